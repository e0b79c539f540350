"""Metadata filters: rows of an index by label, article, license, source or the day they were added."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from jaxtyping import Bool

from medclip.errors import UserError
from medclip.plain_text import is_unicode

FILTER_COLUMNS = ("article", "license", "source")
ADDED_KEY = "added"
MAX_LISTED = 12
"""Values that a message names."""
MAX_COMPARED = 10_000
"""Values, the most frequent, whose spelling is compared: articles can be millions."""
compute: Any = pyarrow.compute  # its functions are generated at import, unseen by type checkers
_DAYS = re.compile(r"(?P<first>\d{4}-\d\d-\d\d)?\.\.(?P<last>\d{4}-\d\d-\d\d)?|(?P<day>\d{4}-\d\d-\d\d)")


@dataclass(frozen=True)
class Filter:
    """Conditions that a row must all meet, each by any of its values, as `fold` compares them. None: every row."""

    conditions: tuple[tuple[str, tuple[str, ...]], ...] = ()


NO_FILTER = Filter()


def make_filter(conditions: Mapping[str, Sequence[str]]) -> Filter:
    """A filter of values by key: a label such as `modality`, `article`, `license`, `source`, or `added`.

    `added` takes a day or a range, 2026-11-01..2026-11-30, either end of which may be left out. UserError for an
    invalid day, and for what is not Unicode.
    """
    for value in conditions.get(ADDED_KEY, ()):
        parse_days(value)
    if not all(map(is_unicode, chain(conditions, *conditions.values()))):
        raise UserError("a filter is not Unicode text.")
    values_by_key = {
        key: tuple(sorted(set(fold(pa.array([value.strip() for value in values], pa.string())).to_pylist())))
        for key, values in conditions.items()
    }
    return Filter(tuple(sorted((key, values) for key, values in values_by_key.items() if values)))


def fold(values: pa.Array | pa.ChunkedArray) -> Any:
    """Texts as filters compare them: without letter case, and an accent one with its letter however it is stored (NFC).

    By Arrow alone, on both sides: Python's own lower case ends a Greek word by another sigma.
    """
    return compute.utf8_lower(compute.utf8_normalize(values, form="NFC"))


def parse_filter(items: Iterable[str]) -> Filter:
    """A filter of KEY=VALUE strings; a repeated key takes any of its values."""
    conditions: dict[str, list[str]] = {}
    for item in items:
        key, sign, value = item.partition("=")
        if not (key.strip() and sign and value.strip()):
            raise UserError(f"filter {item!r}: write KEY=VALUE, for example modality=mri or added=2026-11-01..")
        conditions.setdefault(key.strip(), []).append(value)
    return make_filter(conditions)


def filter_mask(table: pa.Table, added_days: np.ndarray, filter: Filter) -> Bool[np.ndarray, " n"]:
    """Which rows of a table match. `added_days` holds each row's day, datetime64[D]. UserError for an unknown key."""
    mask = np.ones(len(table), bool)
    for key, values in filter.conditions:
        if key == ADDED_KEY:
            ranges = [parse_days(value) for value in values]
            mask &= np.any([(added_days >= first) & (added_days <= last) for first, last in ranges], axis=0)
        else:
            column = fold(column_values(table, key))
            if column.null_count == len(column) and key not in FILTER_COLUMNS and len(table):
                keys = ", ".join([*label_names(table), *FILTER_COLUMNS, ADDED_KEY])
                raise UserError(f"no image of the index has {key!r}; filters can use: {keys}.")
            mask &= compute.is_in(column, pa.array(values, pa.string())).to_numpy(zero_copy_only=False)
    return mask


def explain_no_match(table: pa.Table, mask: Bool[np.ndarray, " n"], added_days: np.ndarray, filter: Filter) -> str:
    """Why no row of the mask, which has some, matches: what the rows have of each key of which none matches alone."""
    clauses = []
    for key, values in filter.conditions:
        if (mask & filter_mask(table, added_days, Filter(((key, values),)))).any():
            continue
        if key == ADDED_KEY:
            clauses.append(f"{key} is {added_days[mask].min()} to {added_days[mask].max()}")
        else:
            clauses.append(f"{key} is {_list_values(column_values(table, key).filter(pa.array(mask)), values)}")
    return "; ".join(clauses) or "each of its keys alone has images, together they have none"


def _list_values(column: pa.ChunkedArray, values: Sequence[str]) -> str:
    """The values of a column, those nearest to `values` first, then the most frequent."""
    counts = {pair["values"]: pair["counts"] for pair in compute.value_counts(column).to_pylist() if pair["values"]}
    frequent = sorted(counts, key=lambda value: (-counts[value], value))
    spellings: dict[str, str] = {}
    for value, key in zip(frequent, fold(pa.array(frequent, pa.string())).to_pylist(), strict=True):
        spellings.setdefault(key, value)
    compared = list(islice(spellings, MAX_COMPARED))
    near = (key for text in values for key in difflib.get_close_matches(text, compared))
    listed = [spellings[key] for key in dict.fromkeys(chain(near, spellings))]
    shown = ", ".join(listed[:MAX_LISTED]) or "not stated"
    return f"{shown} and {len(listed) - MAX_LISTED:,} more" if len(listed) > MAX_LISTED else shown


def column_values(table: pa.Table, key: str) -> pa.ChunkedArray:
    """The values of a column or a label; null where a row has none."""
    return table.column(key) if key in FILTER_COLUMNS else compute.map_lookup(table.column("labels"), key, "first")


def id_mask(table: pa.Table, id: str) -> Bool[np.ndarray, " n"]:
    """Which rows have an id."""
    return compute.equal(table.column("id"), id).to_numpy()


def label_names(table: pa.Table) -> list[str]:
    """Names of the labels of any row: modality, organ, …"""
    names = [chunk.keys for chunk in table.column("labels").chunks if len(chunk)]
    return sorted(compute.unique(pa.chunked_array(names, pa.string())).to_pylist())


def value_counts(table: pa.Table, mask: Bool[np.ndarray, " n"]) -> dict[str, dict[str, int]]:
    """How many rows of the mask have each value of each label and license, the most frequent first.

    A label of the name of another key cannot be filtered by.
    """
    counts_by_key = {}
    for key in [*(name for name in label_names(table) if name not in (*FILTER_COLUMNS, ADDED_KEY)), "license"]:
        pairs = compute.value_counts(column_values(table, key).filter(pa.array(mask))).to_pylist()
        counts = {pair["values"]: pair["counts"] for pair in pairs if pair["values"]}
        if counts:
            counts_by_key[key] = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return counts_by_key


def parse_days(text: str) -> tuple[np.datetime64, np.datetime64]:
    """The first and the last day of a day or range. UserError for an invalid one."""
    match = _DAYS.fullmatch(text.strip())
    try:
        if match and match["day"]:
            return np.datetime64(match["day"]), np.datetime64(match["day"])
        if match and (match["first"] or match["last"]):
            return np.datetime64(match["first"] or "0001-01-01"), np.datetime64(match["last"] or "9999-12-31")
    except ValueError:
        pass
    raise UserError(
        f"added={text} is not a day: write 2026-11-25, 2026-11-01..2026-11-30, 2026-11-01.. or ..2026-11-30."
    )

"""Which rows of an index may answer: by label, article, license, source or the day they were added."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medclip.errors import UserError

COLUMNS = ("article", "license", "source")
ADDED = "added"
_SPAN = re.compile(r"(?P<since>\d{4}-\d\d-\d\d)?\.\.(?P<until>\d{4}-\d\d-\d\d)?|(?P<day>\d{4}-\d\d-\d\d)")


@dataclass(frozen=True)
class Filter:
    """Every key must be met, by any of its values, upper and lower case being the same. Without keys: every row."""

    keys: tuple[tuple[str, tuple[str, ...]], ...] = ()


EVERYTHING = Filter()


def where(said: Mapping[str, Sequence[str]]) -> Filter:
    """Rows whose `modality` is ct or mri, of an `article`, with a `license`, `added` on a day or a span of days.

    A span is 2026-11-01..2026-11-30, either end of which may be left out. UserError for a day that is none.
    """
    for value in said.get(ADDED, ()):
        span(value)
    folded = {key: tuple(sorted({value.strip().lower() for value in any_of})) for key, any_of in said.items()}
    return Filter(tuple(sorted((key, any_of) for key, any_of in folded.items() if any_of)))


def parse_filter(words: Iterable[str]) -> Filter:
    """The same, written KEY=VALUE; a key given again takes either value."""
    said: dict[str, list[str]] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not (key.strip() and sign and value.strip()):
            raise UserError(f"--filter {word}: write KEY=VALUE, for example modality=mri or added=2026-11-01..")
        said.setdefault(key.strip(), []).append(value)
    return where(said)


def matches(rows: pa.Table, added: np.ndarray, asked: Filter) -> np.ndarray:
    """Which rows are asked for: bool (n,). `added` holds each row's day, datetime64[D]. UserError for unknown keys."""
    found = np.ones(len(rows), bool)
    for key, any_of in asked.keys:
        if key == ADDED:
            found &= np.logical_or.reduce([(added >= a) & (added <= b) for a, b in map(span, any_of)])
        else:
            said = pc.utf8_lower(values(rows, key))
            if said.null_count == len(said) and key not in COLUMNS and len(rows):
                known = ", ".join([*label_names(rows), *COLUMNS, ADDED])
                raise UserError(f"no image of the index has {key!r}; what can be asked for: {known}.")
            found &= pc.fill_null(pc.is_in(said, pa.array(any_of, pa.string())), False).to_numpy(zero_copy_only=False)
    return found


def values(rows: pa.Table, key: str) -> pa.ChunkedArray:
    """Those of a column or a label; null where a row has none."""
    return rows.column(key) if key in COLUMNS else pc.map_lookup(rows.column("labels"), key, "first")


def label_names(rows: pa.Table) -> list[str]:
    """The labels that rows have: modality, organ, …"""
    names = [chunk.keys for chunk in rows.column("labels").chunks if len(chunk)]
    return sorted(pc.unique(pa.chunked_array(names, pa.string())).to_pylist())


def counts(rows: pa.Table, live: np.ndarray) -> dict[str, dict[str, int]]:
    """How many rows have each value of each label and license, the most frequent first."""
    found = {}
    for key in [*label_names(rows), "license"]:
        told = pc.value_counts(values(rows, key).filter(pa.array(live))).to_pylist()
        counted = {said["values"]: said["counts"] for said in told if said["values"]}
        found[key] = dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))
    return {key: counted for key, counted in found.items() if counted}


def span(said: str) -> tuple[np.datetime64, np.datetime64]:
    """The first and the last day of what was asked of `added`; UserError for a day that is none."""
    found = _SPAN.fullmatch(said.strip())
    try:
        if found and found["day"]:
            return np.datetime64(found["day"]), np.datetime64(found["day"])
        if found and (found["since"] or found["until"]):
            return np.datetime64(found["since"] or "0001-01-01"), np.datetime64(found["until"] or "9999-12-31")
    except ValueError:
        pass
    raise UserError(f"added={said} is no day: write 2026-11-25, 2026-11-01..2026-11-30, 2026-11-01.. or ..2026-11-30.")

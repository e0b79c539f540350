"""Evaluations of several models, and the items that all of them judged, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from medclip.errors import UserError
from medclip.evaluate.results import measures_in, read_results


@dataclass(frozen=True)
class Evaluation:
    """What one folder holds, by measure."""

    name: str
    results: Mapping[str, Mapping[str, Any]]
    items: Mapping[str, pa.Table]


PARTS = ("test", "corruption", "severity")
"""Columns whose values part the items of a measure: each part is compared for itself."""


@dataclass(frozen=True)
class Column:
    """The values that each evaluation gave the same items."""

    name: str
    part: tuple[str, ...]
    """The values of PARTS, where the measure has them."""
    values: tuple[np.ndarray, ...]
    """f64 (n,) of each evaluation."""
    articles: Sequence[str]
    classes: Sequence[str]
    """What each item truly is; "" where the measure knows no classes."""


def read_evaluations(folders: Sequence[Path]) -> tuple[Evaluation, ...]:
    """Evaluations, named by their folders. UserError where a folder holds none, or a damaged one."""
    names = [folder.name for folder in folders]
    if "" in names or len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    read = []
    for name, folder in zip(names, folders, strict=True):
        held = {measure: read_results(folder, measure) for measure in measures_in(folder)}
        if not held:
            raise UserError(f"{folder} holds no evaluation: it is what medclip evaluate writes with --out.")
        results, items = ({measure: one[part] for measure, one in held.items()} for part in (0, 1))
        read.append(Evaluation(name, results, items))
    return tuple(read)


def columns(measure: str, evaluations: Sequence[Evaluation]) -> Iterator[Column]:
    """What all evaluations hold of the items of a measure, as of `judged`.

    UserError where the items are not the same.
    """
    keys = [_keys(measure, one) for one in evaluations]
    for one, own in zip(evaluations, keys, strict=True):
        if own.keys() != keys[0].keys():
            raise UserError(
                f"{evaluations[0].name} and {one.name} did not measure {measure} on the same items "
                f"({_what_differs(measure, evaluations[0], one)}): use the same --data, --split and --max-samples."
            )
    tables = [
        one.items[measure].take([own[key] for key in keys[0]]) for one, own in zip(evaluations, keys, strict=True)
    ]
    _, articles, classes, *parts = (np.asarray(of, dtype=str) for of in zip(*keys[0], strict=True))
    for part, rows in _parts(parts, len(articles)).items():
        for name in judged(tables[0]):
            if not all(name in judged(table) for table in tables):
                continue
            values = [table.column(name).to_numpy()[rows].astype(float) for table in tables]
            valid = np.isfinite(values[0])
            if any((np.isfinite(of) != valid).any() for of in values):
                raise UserError(f"{name} of {measure} was not judged for the same items by all. Evaluate again.")
            if valid.any():
                own = (of[rows][valid].tolist() for of in (articles, classes))
                yield Column(name, part, tuple(of[valid] for of in values), *own)


def _parts(parts: Sequence[np.ndarray], n: int) -> dict[tuple[str, ...], np.ndarray]:
    """The rows of each combination of values that occurs in columns (n,), in their order; all rows without columns."""
    found: dict[tuple[str, ...], list[int]] = {}
    for row, part in enumerate(zip(*parts, strict=True) if parts else [()] * n):
        found.setdefault(tuple(map(str, part)), []).append(row)
    return {part: np.array(rows) for part, rows in found.items()}


def judged(items: pa.Table) -> list[str]:
    """The columns that hold what the model made of each item: ranks, truths and scores; others say what the item is."""
    return [
        field.name
        for field in items.schema
        if field.name.startswith("rank_") or pa.types.is_boolean(field.type) or pa.types.is_floating(field.type)
    ]


def not_quite_the_same(measure: str, evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Which evaluations saw other images or captions of the same items."""
    first, *others = evaluations
    for other in others:
        if first.results[measure].get("data_sha256") != other.results[measure].get("data_sha256"):
            yield (
                f"{measure}: {other.name} has the items of {first.name}, but their images or captions are not the "
                f"same ({_what_differs(measure, first, other)})"
            )


def _keys(measure: str, evaluation: Evaluation) -> dict[tuple[str, ...], int]:
    """The row of each item: id, article (ids alone may be mere numbers of rows), what it truly is, and its part."""
    table = evaluation.items[measure]
    if not {"id", "article"} <= set(table.column_names):
        raise UserError(f"the items of {measure} in {evaluation.name} have no id and article. Evaluate again.")
    known = [table.column(name).to_pylist() for name in ("id", "article")]
    known.append(table.column("label").to_pylist() if "label" in table.column_names else [""] * len(table))
    known += [table.column(name).to_pylist() for name in PARTS if name in table.column_names]
    rows = zip(*(map(str, of) for of in known), strict=True)
    found = {key: row for row, key in enumerate(rows)}
    if not found or len(found) < len(table):
        raise UserError(f"{measure} in {evaluation.name} has no items, or one of them twice. Evaluate again.")
    return found


def _what_differs(measure: str, one: Evaluation, other: Evaluation) -> str:
    said = [
        (name.replace("data_sha256", "SHA-256 of the data"), *(str(e.results[measure].get(name)) for e in (one, other)))
        for name in ("data", "split", "data_sha256", "label")
    ]
    said.append(("items", *(str(len(e.items[measure])) for e in (one, other))))
    return ", ".join(f"{title} {a[:12]} against {b[:12]}" for title, a, b in said if a != b) or "other ids"

"""What a training split shares with held-out pairs, and a copy of a dataset without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medclip.data.dataset import Split, split_names
from medclip.data.derive import copy_splits
from medclip.data.normalize import casefold_whitespace
from medclip.data.paths import AnyPath
from medclip.data.perceptual_hash import near_duplicates
from medclip.data.schema import is_running_number, names_no_group
from medclip.errors import UserError
from medclip.folder_locks import claim
from medclip.progress import progress

MATCH_KINDS = ("article", "same image", "near image", "caption")


@dataclass(frozen=True)
class Match:
    """A row of one split and a row of another that have something in common."""

    row: int
    other_row: int
    kind: str
    """One of MATCH_KINDS."""


def find_matches(split: Split, other: Split, near: bool = True) -> list[Match]:
    """Everything that rows of `split` share with rows of `other`, kind by kind; each row with its first match.

    Captions are compared without letter case and spacing. Near images are those that are not the same bytes; every
    image is decoded for them, and they are left out where `near` is False. Within one split (`other` is `split`) a row
    is compared with those before it, and articles, which are meant to repeat, are left out. An article that is only the
    id of its pair, or that was made up, is shared with nothing, and a number of at most six digits with no other
    dataset.
    """
    within = split is other
    columns = {"article": "article", "same image": "sha256", "caption": "caption"}
    matches = [
        match
        for kind, column in columns.items()
        if not (within and kind == "article")
        for match in _equal_values(split, other, kind, column)
    ]
    if near:
        matches += _near_images(split, other)
    return matches


def _equal_values(split: Split, other: Split, kind: str, column: str) -> Iterator[Match]:
    first_rows: dict[str, int] = {}
    within_dataset = split.folder == other.folder
    if split is not other:
        for row, value in _values(other, column, within_dataset):
            first_rows.setdefault(value, row)
    for row, value in _values(split, column, within_dataset):
        if value in first_rows:
            yield Match(row, first_rows[value], kind)
        elif split is other:
            first_rows[value] = row


def _values(split: Split, column: str, within_dataset: bool) -> Iterator[tuple[int, str]]:
    """The rows of a split that have a value to compare, and the value."""
    values = split.column(column)
    ids = split.column("id") if column == "article" else [""] * len(values)
    for row, (value, id) in enumerate(zip(values, ids, strict=True)):
        if column == "article" and (names_no_group(value, id) or (is_running_number(value) and not within_dataset)):
            continue
        yield row, casefold_whitespace(value)


def _near_images(split: Split, other: Split) -> Iterator[Match]:
    """An image is compared once, however many rows have it."""
    hashes, other_hashes = split.table.column("sha256"), other.table.column("sha256")
    rows, other_rows = split.distinct_rows, other.distinct_rows
    matches = np.full(len(rows), len(other))
    with progress(f"near images, {split.name}", len(rows), "images") as advance:
        for image, near in near_duplicates(split.fingerprints, other.fingerprints):
            unlike = (row for row in map(other_rows.item, near) if other_hashes[row] != hashes[int(rows[image])])
            matches[image] = next(unlike, len(other))
            advance()
    for row, other_row in enumerate(matches[split.duplicate_ids[0]].tolist()):
        if other_row < (row if split is other else len(other)):
            yield Match(row, other_row, "near image")


def leakage(data: AnyPath, other: AnyPath | None = None) -> dict[str, Any]:
    """What the training split of `data` shares with its other splits, or with every split of `other`.

    Returns {"train": rows, "held_out": {name: {"pairs": n, "shared": {kind: n}, "any": n, "rows": [...]}}}, where n
    counts held-out pairs and rows name the pairs by id. UserError where there is nothing to compare with.
    """
    training = Split(data, "train")
    names = _held_out(data, other)
    if not names:
        raise UserError(f"{data} has no split but train that holds pairs: name a second dataset to compare it with.")
    held_out = {}
    train_ids = training.column("id")
    for name in names:
        split = Split(other or data, name)
        matches = find_matches(split, training)
        ids = split.column("id")
        held_out[name] = {
            "pairs": len(split),
            "shared": {kind: len({m.row for m in matches if m.kind == kind}) for kind in MATCH_KINDS},
            "any": len({m.row for m in matches}),
            "rows": [{"id": ids[m.row], "train_id": train_ids[m.other_row], "kind": m.kind} for m in matches],
        }
    return {"train": len(training), "held_out": held_out}


def decontaminate(data: AnyPath, out: Path, other: AnyPath | None = None) -> dict[str, int]:
    """Write a copy of `data` whose training split shares nothing with the held-out pairs.

    Returns the number of removed training pairs by the first kind of match.
    """
    training = Split(data, "train")
    removed: dict[int, str] = {}
    with claim(out, "dataset.json"):
        for name in _held_out(data, other):
            for match in find_matches(training, Split(other or data, name)):
                removed.setdefault(match.row, match.kind)
        counts = dict(Counter(removed.values()))
        facts: dict[str, Any] = {"leakage_removed": counts}
        if other is not None:
            facts["derived_from"] = f"{data.name} beside {other.name}"

        def clean_rows(split: Split) -> list[int]:
            return [row for row in range(len(split)) if split.name != "train" or row not in removed]

        copy_splits(data, out, clean_rows, facts)
    return counts


def _held_out(data: AnyPath, other: AnyPath | None) -> list[str]:
    return [name for name in split_names(other or data) if other or name != "train"]

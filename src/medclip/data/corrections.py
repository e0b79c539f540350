"""Corrections: pairs to delete and labels to change, as a file, and a copy of a dataset with them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from medclip.atomic_io import read_object
from medclip.data.dataset import Split, split_names
from medclip.data.derive import copy_splits
from medclip.data.paths import AnyPath
from medclip.errors import UserError
from medclip.folder_locks import claim
from medclip.plain_text import is_unicode

FORM = '{"corrections": [{"id": ID, "sha256": HASH OF THE IMAGE, "labels": {LABEL: VALUE} or null}]}'

PairKey = tuple[str, str]
"""The id of a pair and the SHA-256 of its image: splits may use an id twice."""
Corrections = Mapping[PairKey, Mapping[str, str] | None]
"""New values of labels, "" to remove one; None deletes the pair."""


def write_corrections(corrections: Corrections) -> str:
    """The content of a file of corrections."""
    records = [{"id": id, "sha256": sha256, "labels": labels} for (id, sha256), labels in corrections.items()]
    return json.dumps({"corrections": records}, indent=2) + "\n"


def read_corrections(path: Path) -> Corrections:
    """Corrections from a file. UserError where it is damaged or says nothing."""
    fields = read_object(path, "a folder with corrections")
    records = fields.get("corrections")
    if list(fields) != ["corrections"] or not isinstance(records, list):
        raise UserError(f"{path} is not of the form {FORM}.")
    corrections: dict[PairKey, dict[str, str] | None] = {}
    for number, record in enumerate(records, 1):
        if not _is_correction(record):
            raise UserError(f"{path}: correction {number} is not of the form {FORM}.")
        key = (record["id"], record["sha256"])
        if key in corrections:
            raise UserError(f"{path}: correction {number} is of a pair that an earlier one corrects.")
        corrections[key] = record["labels"]
    if not corrections:
        raise UserError(f"{path} corrects nothing.")
    return corrections


def _is_correction(record: object) -> bool:
    if not isinstance(record, dict) or set(record) != {"id", "sha256", "labels"}:
        return False
    labels = record["labels"]
    if labels is not None and not (isinstance(labels, dict) and labels and all(labels)):
        return False
    texts = (record["id"], record["sha256"], *(labels or {}), *(labels or {}).values())
    return all(isinstance(text, str) and is_unicode(text) for text in texts)


def pair_keys(table: pa.Table) -> list[PairKey]:
    """The key of each row of a table with the columns `id` and `sha256`."""
    return list(zip(table.column("id").to_pylist(), table.column("sha256").to_pylist(), strict=True))


def relabel_table(table: pa.Table, corrections: Corrections) -> pa.Table:
    """A table of pairs with the labels changed of those to relabel."""
    column = table.column("labels")
    labels = column.to_pylist()
    for row, key in enumerate(pair_keys(table)):
        if new := corrections.get(key):
            labels[row] = [(name, value) for name, value in {**dict(labels[row] or ()), **new}.items() if value]
    return table.set_column(
        table.schema.get_field_index("labels"), table.field("labels"), pa.array(labels, column.type)
    )


def correct_data(data: AnyPath, out: Path, corrections: Corrections) -> dict[str, int]:
    """Write a copy of a dataset with corrections; returns how many pairs were deleted, relabeled, and not in it.

    UserError where none is in it, or a split would be left empty; then nothing is written.
    """
    rows_by_split: dict[str, Sequence[int]] = {}
    counts: Counter[str] = Counter(deleted=0, relabeled=0)
    present: set[PairKey] = set()
    with claim(out, "dataset.json"):
        for name in split_names(data):
            keys = pair_keys(Split(data, name).table)
            named = [key for key in keys if key in corrections]
            present |= set(named)
            rows_by_split[name] = [row for row, key in enumerate(keys) if corrections.get(key, key) is not None]
            num_deleted = len(keys) - len(rows_by_split[name])
            counts.update(deleted=num_deleted, relabeled=len(named) - num_deleted)
        if not present:
            raise UserError(f"{data} holds none of the {len(corrections)} pairs that the corrections name.")
        copy_splits(
            data,
            out,
            lambda split: rows_by_split[split.name],
            {"corrected": dict(counts)},
            lambda table: relabel_table(table, corrections),
        )
    return {**counts, "absent": len(corrections) - len(present)}

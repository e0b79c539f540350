"""Finds the tables of a Hugging Face dataset, split by split, without its library.

What `save_to_disk` wrote, a downloaded repository (`data/train-00000-of-00001.parquet`), or an image folder with
`metadata.csv` or `metadata.jsonl`; on this machine or, as `hf://OWNER/NAME`, on the Hub.
"""

from __future__ import annotations

import json
from typing import Any

from medclip.data.normalize import split_in
from medclip.data.paths import AnyPath, inside
from medclip.errors import UserError

_DEPTHS = ("", "*/", "*/*/")
# Where a dataset holds its rows in several forms, only the first of these is read.
_KINDS = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tsv")


def find_saved_tables(folder: AnyPath) -> dict[str, list[AnyPath]]:
    """The tables of a folder that says itself what it holds, by split ("" where it names none); {} for another."""
    if splits := _said(folder / "dataset_dict.json").get("splits"):
        tables = {split: _saved(_below(folder, split)) for split in splits}
        if empty := [split for split, files in tables.items() if not files]:
            raise UserError(f"{folder} names the split {empty[0]}, but that folder has no state.json.")
        return _only_train_is_none(tables)
    if tables := _saved(folder):
        return {"": tables}
    return _by_split(folder, _tables(folder, "metadata.*"))


def find_named_tables(folder: AnyPath) -> dict[str, list[AnyPath]]:
    """The tables of a folder whose names say their splits, by split; {} where none does."""
    return _by_split(folder, [path for path in _tables(folder, "*") if split_in(_relative(folder, path))])


def _tables(folder: AnyPath, pattern: str) -> list[AnyPath]:
    return [path for depth in _DEPTHS for path in folder.glob(f"{depth}{pattern}") if path.suffix.lower() in _KINDS]


def _saved(folder: AnyPath) -> list[AnyPath]:
    files = _said(folder / "state.json").get("_data_files") or []
    return [_below(folder, str(file.get("filename"))) for file in files]


def _by_split(folder: AnyPath, tables: list[AnyPath]) -> dict[str, list[AnyPath]]:
    splits: dict[str, list[AnyPath]] = {}
    kind = min((path.suffix.lower() for path in tables), key=_KINDS.index, default="")
    for path in sorted(path for path in tables if path.suffix.lower() == kind):
        splits.setdefault(split_in(_relative(folder, path)), []).append(path)
    return _only_train_is_none(splits)


def _only_train_is_none(splits: dict[str, list[AnyPath]]) -> dict[str, list[AnyPath]]:
    """A dataset without splits has its rows in one called train, which leaves nothing to validate with."""
    return {"": splits["train"]} if list(splits) == ["train"] else splits


def _relative(folder: AnyPath, path: AnyPath) -> str:
    return str(path)[len(str(folder)) :]


def _below(folder: AnyPath, name: str) -> AnyPath:
    found = inside(folder, name)
    if found is None:
        raise UserError(f"{folder} names {name!r}, which is not below it.")
    return found


def _said(path: AnyPath) -> dict[str, Any]:
    """What a file of JSON says, {} where it is absent or something else."""
    try:
        said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"{path} is damaged and cannot be read as JSON ({error}). Fetch it again.") from None
    return said if isinstance(said, dict) else {}

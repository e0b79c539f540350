"""Finds the tables of a Hugging Face dataset, split by split, without its library.

Layouts: what `save_to_disk` wrote, a downloaded repository (`data/train-00000-of-00001.parquet`), or an image folder
with `metadata.csv` or `metadata.jsonl`; on this machine or, as `hf://OWNER/NAME`, on the Hub.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from medclip.bounded_files import read_bounded
from medclip.data.normalize import split_in
from medclip.data.paths import AnyPath, inside, relative_path
from medclip.data.sources.image_caption_folder import is_output
from medclip.data.sources.table_files import table_suffix
from medclip.errors import UserError

_MAX_DESCRIPTION_BYTES = 2**25
_GLOB_DEPTHS = ("", "*/", "*/*/")
_SUFFIXES = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tsv")
"""By preference: where a dataset holds its rows in several formats, only the first is read."""


def find_saved_tables(folder: AnyPath) -> dict[str, list[AnyPath]]:
    """The tables that a folder's own metadata lists, by split ("" where it names none); {} where it has no metadata."""
    if splits := _read_json_object(folder / "dataset_dict.json").get("splits"):
        if not isinstance(splits, list) or not all(isinstance(split, str) for split in splits):
            raise UserError(f"{folder / 'dataset_dict.json'} does not list its splits as save_to_disk does.")
        tables = {split: _state_files(_resolve_below(folder, split)) for split in splits}
        if empty := [split for split, files in tables.items() if not files]:
            raise UserError(f"{folder} names the split {empty[0]}, but that folder has no state.json.")
        return _drop_lone_train(tables)
    if files := _state_files(folder):
        return {"": files}
    return _group_by_split(folder, _glob_tables(folder, "metadata.*"))


def description_files(folder: AnyPath) -> Iterator[AnyPath]:
    """What `save_to_disk` writes beside its tables."""
    names = ("dataset_dict.json", "dataset_info.json", "state.json")
    return (path for depth in _GLOB_DEPTHS[:2] for name in names for path in folder.glob(f"{depth}{name}"))


def find_named_tables(folder: AnyPath) -> dict[str, list[AnyPath]]:
    """The tables whose paths name a split, by split; {} where none does."""
    return _group_by_split(
        folder, [path for path in _glob_tables(folder, "*") if split_in(str(relative_path(path, folder)))]
    )


def find_lone_table(folder: AnyPath) -> AnyPath | None:
    """The table directly in a folder, where it is the only one."""
    tables = [path for path in folder.iterdir() if table_suffix(path) in _SUFFIXES and path.is_file()]
    return tables[0] if len(tables) == 1 else None


def _glob_tables(folder: AnyPath, pattern: str) -> list[AnyPath]:
    paths = [path for depth in _GLOB_DEPTHS for path in folder.glob(f"{depth}{pattern}")]
    return [path for path in paths if table_suffix(path) in _SUFFIXES and not is_output(path.parent)]


def _state_files(folder: AnyPath) -> list[AnyPath]:
    files = _read_json_object(folder / "state.json").get("_data_files") or []
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files):
        raise UserError(f"{folder / 'state.json'} does not list its files as save_to_disk does. Fetch it again.")
    return [_resolve_below(folder, str(file.get("filename"))) for file in files]


def _group_by_split(folder: AnyPath, tables: list[AnyPath]) -> dict[str, list[AnyPath]]:
    splits: dict[str, list[AnyPath]] = {}
    suffix = min((table_suffix(path) for path in tables), key=_SUFFIXES.index, default="")
    for path in sorted((path for path in tables if table_suffix(path) == suffix), key=str):
        splits.setdefault(split_in(str(relative_path(path, folder))), []).append(path)
    return _drop_lone_train(splits)


def _drop_lone_train(splits: dict[str, list[AnyPath]]) -> dict[str, list[AnyPath]]:
    """A dataset without splits has all rows in one called train, which leaves nothing to validate on."""
    return {"": splits["train"]} if list(splits) == ["train"] else splits


def _resolve_below(folder: AnyPath, name: str) -> AnyPath:
    path = inside(folder, name)
    if path is None:
        raise UserError(f"{folder} names {name!r}, which is not below it.")
    return path


def _read_json_object(path: AnyPath) -> dict[str, Any]:
    """A JSON object; {} for an absent file and for other JSON."""
    try:
        value = json.loads(read_bounded(path, _MAX_DESCRIPTION_BYTES)) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged and cannot be read as JSON ({error}). Fetch it again.") from None
    return value if isinstance(value, dict) else {}

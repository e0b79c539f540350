"""The split that a row of a table states: in a column of another name, or by the folder of its image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from medclip.data.normalize import SPLITS, canonical_split
from medclip.data.paths import AnyPath, inside

_OTHER_NAMES = ("datasetsplit", "datasplit", "splitname", "subset", "partition", "set", "phase", "fold", "usage")
"""Columns by `plain_name` that hold splits where their first cell is the name of one."""


def plain_name(column: str) -> str:
    """The name of a column without letter case, spaces, underscores and the like."""
    return "".join(character for character in column.casefold() if character.isalnum())


def find_split_column(row: Mapping[str, Any]) -> str | None:
    """The column of a table's first row that holds the name of a split, and is called as such columns are."""
    columns = {plain_name(name): name for name, value in reversed(list(row.items())) if names_split(value)}
    return next((columns[name] for name in _OTHER_NAMES if name in columns), None)


def names_split(value: Any) -> bool:
    """Whether a value is train, validation or test in any usual spelling."""
    return isinstance(value, str) and canonical_split(value) in SPLITS


class SplitFolders:
    """The folders of splits, such as train/ and test/, that lie side by side below the roots of a table's paths."""

    def __init__(self, *roots: AnyPath):
        self._roots = dict.fromkeys(roots)
        self._counts: dict[PurePosixPath, int] = {}

    def split_of(self, name: str) -> str:
        """The split of an image's path: the first of its folders that is one of at least two; "" where none is."""
        path = PurePosixPath(name.replace("\\", "/"))
        for folder in reversed(path.parents[:-1]):
            if canonical_split(folder.name) in SPLITS and self._num_splits(folder.parent) > 1:
                return canonical_split(folder.name)
        return ""

    def _num_splits(self, parent: PurePosixPath) -> int:
        """How many splits have a folder in `parent`, below the root where there are most."""
        if parent not in self._counts:
            folders = (inside(root, str(parent)) for root in self._roots)
            self._counts[parent] = max((len(_list_splits(folder)) for folder in folders if folder), default=0)
        return self._counts[parent]


def _list_splits(folder: AnyPath) -> set[str]:
    try:
        names = {canonical_split(path.name) for path in folder.iterdir() if path.is_dir()}
    except (OSError, ValueError):  # it is absent, or its name is none
        return set()
    return names & set(SPLITS)

"""What an index holds: segments of rows that never change, and `index.json`, which says which rows count.

A change writes what is new beside what is there and then puts another `index.json` in place: a reader sees the index
before the change or after it. A snapshot is a copy of that file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from medclip import NOT_CLINICAL
from medclip.atomic_io import read_json, write_json
from medclip.errors import UserError

ABOUT, SEGMENTS, SNAPSHOTS = "index.json", "segments", "snapshots"
EXACT, FAISS, MILVUS = "exact", "faiss", "milvus://"


@dataclass(frozen=True)
class Segment:
    """Rows that were added together: a folder below `segments/` with `vectors.npy` and `rows.arrow`."""

    name: str
    first: int
    """The number of its first row. A number is given once, so that a store elsewhere can go by it."""
    rows: int
    added: str
    """The day, as 2026-11-25 (UTC)."""
    data: str
    """Where the pairs came from."""
    split: str
    synthetic: bool


@dataclass(frozen=True)
class Manifest:
    """`index.json`."""

    model: str
    """The model's folder, relative to the index."""
    model_sha256: str
    dimensions: int
    store: str
    """`exact`, `faiss`, or `milvus://HOST:PORT`."""
    name: str
    """Of this index among all, for a store that holds several."""
    segments: tuple[Segment, ...] = ()
    deleted: tuple[int, ...] = ()
    """Numbers of rows that are still in a segment and no longer in the index, ascending."""
    next_row: int = 0
    next_segment: int = 0
    pairs: int = 0
    """Rows that count."""
    notice: str = NOT_CLINICAL

    def with_segment(self, segment: Segment) -> Manifest:
        """The same and a segment more."""
        return self.counted(
            segments=(*self.segments, segment),
            next_row=segment.first + segment.rows,
            next_segment=self.next_segment + 1,
        )

    def without(self, numbers: set[int]) -> Manifest:
        """The same less rows of these numbers."""
        return self.counted(deleted=tuple(sorted(numbers.union(self.deleted))))

    def counted(self, **changes: Any) -> Manifest:
        """The same with `changes`, and `pairs` as they then are."""
        changed = dataclasses.replace(self, **changes)
        return dataclasses.replace(changed, pairs=sum(s.rows for s in changed.segments) - len(changed.deleted))


def read_manifest(folder: Path, snapshot: str | None = None) -> Manifest:
    """What an index, or a snapshot of it, says that it holds. UserError where it is none or damaged."""
    if snapshot is not None and not _snapshot(folder, snapshot).is_file():
        known = ", ".join(snapshots(folder)) or "none"
        raise UserError(f"index {folder} has no snapshot {snapshot!r}; it has: {known}.")
    path = folder / ABOUT if snapshot is None else _snapshot(folder, snapshot)
    said = read_json(path, "an index (see medclip index build)")
    try:
        segments = tuple(Segment(**segment) for segment in said.pop("segments"))
        contents = Manifest(**said | {"segments": segments, "deleted": tuple(said.get("deleted", ()))})
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}). Make the index anew.") from None
    inside = all(segment.name.isdigit() for segment in segments)
    if not (segments and inside and contents.counted() == contents):
        raise UserError(f"{path} is damaged: its segments and pairs disagree. Make the index anew.")
    return contents


def write_manifest(folder: Path, contents: Manifest, snapshot: str | None = None) -> None:
    """Put `index.json`, or the file of a snapshot, in place."""
    write_json(folder / ABOUT if snapshot is None else _snapshot(folder, snapshot), dataclasses.asdict(contents))


def segment_folder(folder: Path, segment: Segment) -> Path:
    """Where a segment of the index in `folder` lies."""
    return folder / SEGMENTS / segment.name


def snapshots(folder: Path) -> list[str]:
    """The names of an index's snapshots."""
    return sorted(path.stem for path in (folder / SNAPSHOTS).glob("*.json"))


@contextmanager
def changing(folder: Path) -> Iterator[Manifest]:
    """What the index holds, while nobody else changes it; UserError where somebody does."""
    read_manifest(folder)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield read_manifest(folder)
    except Timeout:
        raise UserError(f"another process is changing index {folder}; try again when it has ended.") from None


def _snapshot(folder: Path, name: str) -> Path:
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
        raise UserError(f"{name!r} is no name of a snapshot: letters, digits, dots, - and _.")
    return folder / SNAPSHOTS / f"{name}.json"

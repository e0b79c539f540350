"""The manifest of an index: immutable segments of rows, and `index.json`, which lists those that count.

A change writes new files beside the old ones and then replaces `index.json` atomically: a reader sees the index before
the change or after it. A snapshot is a copy of that file.
"""

from __future__ import annotations

import dataclasses
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from medclip import NOT_CLINICAL
from medclip.atomic_io import CHECKSUM, check_as_written, file_name, read_object, sha256, write_with_checksum
from medclip.errors import UserError
from medclip.folder_locks import lock_folder

MANIFEST_FILE, SEGMENTS_DIR, SNAPSHOTS_DIR = "index.json", "segments", "snapshots"
EMBEDDINGS_FILE, ROWS_FILE = "embeddings.npy", "rows.arrow"
EXACT, FAISS, MILVUS_SCHEME = "exact", "faiss", "milvus://"
STORES = f"{EXACT}, {FAISS} or {MILVUS_SCHEME}HOST:PORT"
COLLECTION_NAME = r"medclip_\w+"  # of no other kind: another's on the server is not dropped
SNAPSHOT_NAME = r"[\w-][\w.-]*"
_MAX_ROW_ID = 2**62
_VECTOR_STORE = re.compile(rf"{EXACT}|{FAISS}|{MILVUS_SCHEME}([\w.-]+|\[[\da-fA-F:.]+\]):\d{{1,5}}/?", re.ASCII)


@dataclass(frozen=True)
class Segment:
    """Rows that were added together: a folder below `segments/` with `embeddings.npy` and `rows.arrow`."""

    name: str
    first_row_id: int
    """Row ids are never reused, so an external store can key by them."""
    num_rows: int
    added: str
    """The day, as 2026-11-25 (UTC)."""
    data: str
    """Source of the pairs."""
    split: str
    synthetic: bool
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Of its files, by name."""
    crc32: Mapping[str, int] = field(default_factory=dict)
    """Of its files, by name, as `segments.crc32` has it: quick enough for every opening, where hashes are not."""
    backend: str = "jax"
    """What computed its embeddings: one of `inference_backends.BACKENDS`."""


@dataclass(frozen=True)
class Manifest:
    """The content of `index.json`."""

    model: str
    """The model folder, relative to the index."""
    model_sha256: str
    embedding_dim: int
    vector_store: str
    """`exact`, `faiss`, or `milvus://HOST:PORT`."""
    collection: str
    """Unique name, for a store that holds several indexes."""
    segments: tuple[Segment, ...] = ()
    deleted: tuple[int, ...] = ()
    """Ids of rows that are still in a segment and no longer in the index, ascending."""
    next_row_id: int = 0
    next_segment: int = 0
    num_pairs: int = 0
    """Rows of the segments that are not deleted."""
    snapshots: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the file of each snapshot, by name."""
    notice: str = NOT_CLINICAL

    def with_segment(self, segment: Segment) -> Manifest:
        """A copy with one more segment."""
        return self.replace(
            segments=(*self.segments, segment),
            next_row_id=segment.first_row_id + segment.num_rows,
            next_segment=self.next_segment + 1,
        )

    def with_deleted(self, row_ids: Iterable[int]) -> Manifest:
        """A copy with more rows deleted."""
        return self.replace(deleted=tuple(sorted({*row_ids, *self.deleted})))

    def replace(self, **changes: Any) -> Manifest:
        """A copy with `changes`, its `num_pairs` counted anew."""
        manifest = dataclasses.replace(self, **changes)
        num_rows = sum(segment.num_rows for segment in manifest.segments)
        return dataclasses.replace(manifest, num_pairs=num_rows - len(manifest.deleted))


def check_vector_store(name: str) -> str:
    """The name of a vector store, unchanged. UserError where it is unknown or holds credentials."""
    if "@" in name:
        raise UserError("credentials do not go into an index: set MILVUS_TOKEN and leave them out of --vector-store.")
    if not _is_vector_store(name):
        raise UserError(f"--vector-store {name} is unknown: choose {STORES}.")
    return name


def _is_vector_store(name: str) -> bool:
    """Whether a name is one of those; of a server with an address and a port that there may be."""
    try:
        return bool(_VECTOR_STORE.fullmatch(name) and urlsplit(name).port != 0)
    except ValueError:
        return False


def read_manifest(folder: Path, snapshot: str | None = None) -> Manifest:
    """The manifest of an index or of one of its snapshots. UserError where it is absent or damaged."""
    path = folder / MANIFEST_FILE if snapshot is None else _snapshot_as_written(folder, snapshot)
    content = read_object(path, "an index (medclip index build makes one)")
    manifest = parse_manifest(path, content)
    check_as_written(path, content)
    return manifest


def parse_manifest(path: Path, content: Mapping[str, Any]) -> Manifest:
    """The manifest that a file holds, be it as it was written or not. UserError where it is none."""
    fields = dict(content)
    try:
        fields.pop(CHECKSUM, None)
        segments = tuple(Segment(**segment) for segment in fields.pop("segments"))
        manifest = Manifest(**fields | {"segments": segments, "deleted": tuple(fields.get("deleted", ()))})
        if wrong := [s.added for s in segments if s.added != str(date.fromisoformat(s.added))]:
            raise ValueError(f"{wrong[0]} is not written as a day")
        is_consistent = bool(segments) and manifest.replace() == manifest
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}). Build the index again.") from None
    for segment in segments:
        file_name(segment.name, f"{path}: the name of a segment", "[0-9]{5,}")
    file_name(manifest.collection, f"{path}: collection", COLLECTION_NAME)
    if not is_consistent:
        raise UserError(f"{path} is damaged: its segments and num_pairs disagree. Build the index again.")
    if not _is_vector_store(str(manifest.vector_store)):
        raise UserError(f"{path} is damaged: its vector_store is not {STORES}.")
    if wrong_field := next(chain.from_iterable(map(_wrong_fields, (manifest, *segments))), ""):
        raise UserError(f"{path} is damaged: {wrong_field} is of a wrong type. Build the index again.")
    for name in manifest.snapshots:
        file_name(name, f"{path}: the name of a snapshot", SNAPSHOT_NAME)
    if not _counts_rows(manifest):
        raise UserError(f"{path} is damaged: its rows have not an id each. Build the index again.")
    return manifest


def _counts_rows(manifest: Manifest) -> bool:
    """Whether there are rows, each has an id of its own that was given, and the deleted ones are some of them."""
    ids = sorted((s.first_row_id, s.first_row_id + s.num_rows) for s in manifest.segments)
    limits = list(chain.from_iterable(ids))
    bounds = [0, *limits, manifest.next_row_id, _MAX_ROW_ID]
    return (
        all(first < stop for first, stop in ids)
        and bounds == sorted(bounds)
        and list(manifest.deleted) == sorted({*manifest.deleted})
        and all(bisect_right(limits, row) % 2 for row in manifest.deleted)  # every second limit begins rows
    )


def _wrong_fields(part: Manifest | Segment) -> Iterator[str]:
    """The fields that are not the text, number, switch or ids of rows that they should be."""
    kinds = {"str": str, "int": int, "bool": bool}
    for item in dataclasses.fields(part):
        if (kind := kinds.get(str(item.type))) and type(getattr(part, item.name)) is not kind:
            yield item.name
    if isinstance(part, Manifest) and not all(type(row) is int and 0 <= row < part.next_row_id for row in part.deleted):
        yield "deleted"
    checksums = (
        [("snapshots", part.snapshots, str)]
        if isinstance(part, Manifest)
        else [("sha256", part.sha256, str), ("crc32", part.crc32, int)]
    )
    for name, values, kind in checksums:
        if not (isinstance(values, dict) and all(type(value) is kind for value in values.values())):
            yield name


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `index.json` atomically."""
    write_with_checksum(folder / MANIFEST_FILE, dataclasses.asdict(manifest))


def write_snapshot(folder: Path, manifest: Manifest, name: str) -> dict[str, str]:
    """Write a manifest as a snapshot; returns the `snapshots` that list it. UserError for what is not a name."""
    if not re.fullmatch(SNAPSHOT_NAME, name):
        raise UserError(f"{name!r} is not a name for a snapshot: use letters, digits, dots, - and _.")
    write_with_checksum(path := snapshot_file(folder, name), dataclasses.asdict(manifest))
    return {**manifest.snapshots, name: sha256(path)}


def segment_folder(folder: Path, segment: Segment) -> Path:
    """The folder of a segment of the index in `folder`."""
    return folder / SEGMENTS_DIR / segment.name


def snapshot_file(folder: Path, name: str) -> Path:
    """The file of a snapshot of the index in `folder`."""
    return folder / SNAPSHOTS_DIR / f"{name}.json"


def _snapshot_as_written(folder: Path, name: str) -> Path:
    """The file of a snapshot. UserError where the index has none of that name, or it is absent or another."""
    snapshots = read_manifest(folder).snapshots
    if name not in snapshots:
        raise UserError(f"index {folder} has no snapshot {name!r}; it has: {', '.join(sorted(snapshots)) or 'none'}.")
    path = snapshot_file(folder, name)
    if not path.is_file() or sha256(path) != snapshots[name]:
        raise UserError(f"{path} is absent or damaged: the snapshot is lost. Restore it from a backup.")
    return path


@contextmanager
def lock_manifest(folder: Path) -> Iterator[Manifest]:
    """The manifest of an index, while no other process can change it. LockedError where one is changing it."""
    read_manifest(folder)
    with lock_folder(folder, SNAPSHOTS_DIR, f"{SEGMENTS_DIR}/*"):
        yield read_manifest(folder)

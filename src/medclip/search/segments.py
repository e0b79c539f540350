"""The files of an index, opened: what a row holds, and whether each file is the one that was written."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from medclip.data.checked_files import CHUNK_ROWS, DamageError, columns_crc32, open_array, open_table
from medclip.data.shards import SCHEMA
from medclip.errors import UserError
from medclip.search.embed import open_embeddings
from medclip.search.manifest import (
    EMBEDDINGS_FILE,
    EXACT,
    FAISS,
    MANIFEST_FILE,
    ROWS_FILE,
    Manifest,
    Segment,
    read_manifest,
    segment_folder,
)
from medclip.search.stores.faiss import FAISS_FILE

ROW_COLUMNS = ["id", "image", "width", "height", "caption", "article", "license"]
ROW_COLUMNS += ["attribution", "labels", "source", "sha256"]
FINGERPRINT_FIELDS = {"hash": pa.binary(32), "thumbnail": pa.binary(1024)}  # a row of `Fingerprints`
ROW_SCHEMA = pa.schema([*map(SCHEMA.field, ROW_COLUMNS), *FINGERPRINT_FIELDS.items()])
_CRC32_CACHE_SIZE = 1024  # files: a server that opens an index again after a change reads its new ones alone

FileState = tuple[int, int, int]
"""What the file system reports of a file, and what changes with its content; zeros of one that is absent."""


def open_segments(
    folder: Path, manifest: Manifest | None
) -> tuple[tuple[FileState, ...], Manifest, list[tuple[np.ndarray, pa.Table]]]:
    """The version of an index, its manifest, and embeddings and rows of each segment, of one moment."""
    while True:
        state = _file_state(folder / MANIFEST_FILE)
        current = manifest or read_manifest(folder)
        _, *others = index_version(folder, current)
        try:
            return (state, *others), current, [_open_segment(folder, s, current) for s in current.segments]
        except UserError:  # a purge may have erased a segment meanwhile
            if _file_state(folder / MANIFEST_FILE) == state:
                raise


def crc32(path: Path) -> int:
    """CRC-32 of the embeddings or the rows of a segment, but for the images, which have hashes of their own.

    The file is one that was checked or written just now: its offsets and texts are not checked once more.
    """
    if path.name == EMBEDDINGS_FILE:
        return zlib.crc32(np.ascontiguousarray(open_array(path, "<f4")).data)
    return columns_crc32(pa.ipc.open_file(pa.memory_map(os.fsencode(path))).read_all())


def index_version(folder: Path, manifest: Manifest) -> tuple[FileState, ...]:
    """The state of each file of an index, the manifest's first."""
    return tuple(map(_file_state, _files(folder, manifest)))


def rewritten_file(folder: Path, manifest: Manifest, version: tuple[FileState, ...]) -> Path | None:
    """The first file of an index, its manifest aside, that is the same as in `version`, but with other content."""
    for path, opened in zip(_files(folder, manifest), version, strict=True):
        now = _file_state(path)
        if path.name != MANIFEST_FILE and opened != now and opened[0] == now[0] != 0:
            return path
    return None


def _open_segment(folder: Path, segment: Segment, manifest: Manifest) -> tuple[np.ndarray, pa.Table]:
    """The embeddings and rows of a segment, checked. UserError where they are absent or damaged.

    Embeddings are unit vectors, and those that were written; of those that no scan reads, `nearest_rows` checks the
    length of the ones it answers with. The images of rows are checked as they are read.
    """
    path, name = segment_folder(folder, segment), EMBEDDINGS_FILE
    shape = (segment.num_rows, manifest.embedding_dim)
    try:
        is_scanned = manifest.vector_store == EXACT or segment.num_rows < CHUNK_ROWS
        embeddings = open_embeddings(path / name, shape) if is_scanned else open_array(path / name, "<f4", shape)
        if is_scanned:
            _check_crc32(path / name, segment)
        name = ROWS_FILE
        table = open_table(path / name, ROW_SCHEMA, segment.num_rows)
        _check_crc32(path / name, segment)
    except (FileNotFoundError, DamageError) as error:
        reason = error if isinstance(error, DamageError) else "is absent"
        raise UserError(f"{folder} is damaged: {path / name} {reason}. Build the index again.") from None
    return embeddings, table


def _check_crc32(path: Path, segment: Segment) -> None:
    """DamageError where a file has another CRC-32 than its segment says, if it says one."""
    recorded = segment.crc32.get(path.name)
    if recorded is not None and recorded != _cached_crc32(path, _file_state(path)):
        raise DamageError("is not as it was written")


@lru_cache(_CRC32_CACHE_SIZE)
def _cached_crc32(path: Path, state: FileState) -> int:
    return crc32(path)


def _files(folder: Path, manifest: Manifest) -> Iterator[Path]:
    """The manifest of an index, then the files that it lists, and faiss's own."""
    yield folder / MANIFEST_FILE
    names = (EMBEDDINGS_FILE, ROWS_FILE, *((FAISS_FILE,) if manifest.vector_store == FAISS else ()))
    for segment in manifest.segments:
        for name in names:
            yield segment_folder(folder, segment) / name


def _file_state(path: Path) -> FileState:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_ino, stat.st_size, stat.st_mtime_ns

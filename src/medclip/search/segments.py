"""The files of an index, opened: what a row holds, and whether each file is the one that was written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from medclip.atomic_io import sha256
from medclip.data.checked_files import CHUNK_ROWS, DamageError, open_array, open_table
from medclip.data.dataset import SCHEMA
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
_HASH_CACHE_SIZE = 1024  # files: a server that opens an index again after a change reads its new ones alone

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


def hash_columns(rows: pa.Table) -> str:
    """SHA-256 of all columns of a file of rows but the images, which have hashes of their own."""
    digest = hashlib.sha256()
    for column in rows.drop_columns("image").columns:
        for buffer in chain.from_iterable(chunk.buffers() for chunk in column.chunks):
            digest.update(buffer or b"")
    return digest.hexdigest()


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
            _check_hash(path / name, _file_hash, segment.sha256.get(name))
        name = ROWS_FILE
        table = open_table(path / name, ROW_SCHEMA, segment.num_rows)
        _check_hash(path / name, _columns_hash, segment.columns_sha256 or None)
    except (FileNotFoundError, DamageError) as error:
        reason = error if isinstance(error, DamageError) else "is absent"
        raise UserError(f"{folder} is damaged: {path / name} {reason}. Build the index again.") from None
    return embeddings, table


def _check_hash(path: Path, read_hash: Callable[[Path, FileState], str], digest: str | None) -> None:
    """DamageError where a file has another hash than `digest`, if that is recorded."""
    if digest is not None and read_hash(path, _file_state(path)) != digest:
        raise DamageError("is not as it was written")


@lru_cache(_HASH_CACHE_SIZE)
def _file_hash(path: Path, state: FileState) -> str:
    return sha256(path)


@lru_cache(_HASH_CACHE_SIZE)
def _columns_hash(path: Path, state: FileState) -> str:
    return hash_columns(pa.ipc.open_file(pa.memory_map(os.fsencode(path))).read_all())


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

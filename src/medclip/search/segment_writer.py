"""Writing the parts of an index: the embeddings, rows and fingerprints of images that were added together."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, islice, tee
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32

from medclip.atomic_io import sha256, whole_file
from medclip.data.checked_files import DamageError, check_hash
from medclip.data.dataset import Split
from medclip.data.parallel import map_shards
from medclip.data.shards import write_batches
from medclip.encode.encoder import Backend
from medclip.errors import UserError
from medclip.progress import progress
from medclip.search.embed import RayJob, read_image_embeddings, task_rows, write_embeddings
from medclip.search.manifest import (
    EMBEDDINGS_FILE,
    ROWS_FILE,
    SEGMENTS_DIR,
    Manifest,
    Segment,
    segment_folder,
)
from medclip.search.segments import FINGERPRINT_FIELDS, ROW_COLUMNS, ROW_SCHEMA, crc32
from medclip.search.stores.faiss import FAISS_FILE

BATCH_ROWS = 256


def write_segment(
    folder: Path,
    manifest: Manifest,
    backend: Backend,
    split: Split,
    rows: np.ndarray,
    embeddings: Path | None = None,
    job: RayJob | None = None,
) -> Manifest:
    """Write rows of a split, with a `job` its first ones, as a new segment; returns the manifest with it."""
    segment = Segment(
        name=f"{manifest.next_segment:05}",
        first_row_id=manifest.next_row_id,
        num_rows=len(rows),
        added=str(datetime.now(UTC).date()),
        data=split.dataset["source"],
        split=split.name,
        synthetic=split.dataset["synthetic"],
    )
    path = segment_folder(folder, segment)
    for name in (ROWS_FILE, FAISS_FILE):  # of a killed call, maybe with other rows
        (path / name).unlink(missing_ok=True)
    if embeddings is not None:
        image_embeddings, name = read_image_embeddings(embeddings, manifest.model_sha256, split)
        segment = replace(segment, backend=name)
        _write_npy(path / EMBEDDINGS_FILE, image_embeddings[rows])
    else:
        origin = {"model_sha256": manifest.model_sha256, "data_sha256": split.digest}
        write_embeddings(path / EMBEDDINGS_FILE, backend, split, rows, origin, "images", job)
    mask = np.isin(np.arange(len(split)), rows)
    write_batches(path / ROWS_FILE, ROW_SCHEMA, _with_fingerprints(split, mask, job))
    return manifest.with_segment(_with_hashes(folder, segment))


def rewrite_segment(
    folder: Path, manifest: Manifest, segment: Segment, embeddings: np.ndarray, table: pa.Table, mask: np.ndarray
) -> Manifest:
    """Write the rows of the mask of a segment as a new one; returns the manifest with it."""
    _check_as_written(folder, segment)  # hashes of the new one would vouch for damage
    rewritten_segment = replace(
        segment,
        name=f"{manifest.next_segment:05}",
        first_row_id=manifest.next_row_id,
        num_rows=int(np.count_nonzero(mask)),
    )
    path = segment_folder(folder, rewritten_segment)
    _write_npy(path / EMBEDDINGS_FILE, embeddings[mask])
    write_batches(path / ROWS_FILE, table.schema, _masked_batches(table, mask))
    return manifest.with_segment(_with_hashes(folder, rewritten_segment))


def _check_as_written(folder: Path, segment: Segment) -> None:
    """UserError where a file of a segment is not as it was written."""
    for name in (EMBEDDINGS_FILE, ROWS_FILE):
        path = segment_folder(folder, segment) / name
        try:
            check_hash(path, segment.sha256.get(name))
        except DamageError as error:
            raise UserError(
                f"{folder} is damaged: {path} {error}. Restore it from a backup, or build it again."
            ) from None


def remove_segments(folder: Path, manifest: Manifest) -> None:
    """Erase the segments that a manifest does not list."""
    for path in (folder / SEGMENTS_DIR).iterdir():
        if path.name not in {segment.name for segment in manifest.segments}:
            remove_folder(path)


def remove_folder(path: Path) -> None:
    """Erase a folder. OSError names it by its whole path."""
    try:
        shutil.rmtree(path)
    except OSError as error:  # which names the file alone, not its folder
        raise OSError(error.errno, error.strerror, str(path)) from None


def rows_on_disk(folder: Path) -> int:
    """How many rows the segments of an index hold, listed or not."""
    return sum(len(np.load(path, mmap_mode="r")) for path in (folder / SEGMENTS_DIR).glob(f"*/{EMBEDDINGS_FILE}"))


def _with_hashes(folder: Path, segment: Segment) -> Segment:
    """A segment whose files are written, with their hashes."""
    files = {name: segment_folder(folder, segment) / name for name in (EMBEDDINGS_FILE, ROWS_FILE)}
    return replace(
        segment,
        sha256={name: sha256(file) for name, file in files.items()},
        crc32={name: crc32(file) for name, file in files.items()},
    )


def _masked_batches(table: pa.Table, mask: Bool[np.ndarray, " n"]) -> Iterator[pa.RecordBatch]:
    """The rows of the mask, in batches."""
    start = 0
    for batch in table.to_batches(max_chunksize=BATCH_ROWS):
        yield batch.filter(pa.array(mask[start : start + len(batch)]))
        start += len(batch)


def _with_fingerprints(split: Split, mask: Bool[np.ndarray, " n"], job: RayJob | None) -> Iterator[pa.RecordBatch]:
    """The rows of the mask, with a `job` the first ones, in batches, with fingerprints of their images."""
    batches, num_rows = split.iter_batches(ROW_COLUMNS, mask, BATCH_ROWS), int(np.count_nonzero(mask))
    if job is None:
        batches, ahead = tee(batches)
        images = (image for batch in ahead for image in batch.column("image").to_pylist())
        results = split.iter_fingerprints(np.flatnonzero(mask).tolist(), BATCH_ROWS, images)
    else:
        tasks = ((job, part.start, len(part)) for part in task_rows(range(num_rows)))
        results = map_shards(_fingerprint_rows, tasks, ray=True)
    fingerprints = chain.from_iterable(results)
    with progress("fingerprint", num_rows, "images") as advance:
        for batch in batches:
            batch_fingerprints = list(islice(fingerprints, len(batch)))
            columns = [
                pa.array([arrays[i].tobytes() for arrays in batch_fingerprints], kind)
                for i, kind in enumerate(FINGERPRINT_FIELDS.values())
            ]
            yield pa.RecordBatch.from_arrays([*batch.columns, *columns], schema=ROW_SCHEMA)
            advance(len(batch))


def _fingerprint_rows(job: RayJob, first: int, num_rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rows = Split(job.data, job.split, num_rows, first)
    return list(chain.from_iterable(rows.iter_fingerprints(range(num_rows), BATCH_ROWS)))


def _write_npy(path: Path, embeddings: Float32[np.ndarray, "n p"]) -> None:
    with whole_file(path) as partial, partial.open("wb") as file:
        np.save(file, np.ascontiguousarray(embeddings, "<f4"))

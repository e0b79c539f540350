"""Build an index and change its content: add, delete, correct, snapshot, restore, purge, migrate to another store."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, count, islice, tee
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32

from medclip.atomic_io import file_name, read_json, sha256, whole_file, write_json
from medclip.data.corrections import Corrections, pair_keys, relabel_table
from medclip.data.dataset import Split, default_split, write_batches
from medclip.data.parallel import map_shards
from medclip.data.paths import AnyPath
from medclip.data.resume import finish
from medclip.data.schema import is_made_up, is_row_number, is_running_number
from medclip.encode.encoder import Backend, jax_backend
from medclip.errors import UserError
from medclip.folder_locks import NOTES, claim
from medclip.model.checkpoint import load, model_folder, model_hash
from medclip.progress import console, progress
from medclip.search.embed import RayJob, read_image_embeddings, task_rows, write_embeddings
from medclip.search.manifest import (
    COLLECTION_NAME,
    EMBEDDINGS_FILE,
    EXACT,
    MANIFEST_FILE,
    MILVUS_SCHEME,
    ROWS_FILE,
    SEGMENTS_DIR,
    SNAPSHOTS_DIR,
    Manifest,
    Segment,
    check_vector_store,
    lock_manifest,
    read_manifest,
    segment_folder,
    write_manifest,
    write_snapshot,
)
from medclip.search.reader import FINGERPRINT_FIELDS, ROW_COLUMNS, ROW_SCHEMA, IndexReader, check_available, open_store
from medclip.search.stores.faiss import FAISS_FILE
from medclip.search.stores.milvus import drop_collection, named_server

BATCH_ROWS = 256


def build_index(
    model: str | Path,
    data: AnyPath,
    out: Path,
    split: str | None = None,
    max_samples: int | None = None,
    vector_store: str = EXACT,
    embeddings: Path | None = None,
    cache: bool = True,
    ray: bool = False,
) -> int:
    """Embed every image of a split into the new folder `out`; returns how many. A killed call resumes.

    `embeddings` is a folder that `embed` made of the same split with the same model, in place of embedding again.
    `cache`: whether features are read from and saved in the feature cache. `ray`: as in `map_shards`.
    """
    rows = Split(data, split or default_split(data), max_samples)
    with named_server(vector_store), claim(out, MANIFEST_FILE, f"{SEGMENTS_DIR}/*"):
        check_available(check_vector_store(vector_store))  # before hours of work
        folder, loaded = model_folder(model, dual=True).resolve(), load(model)
        manifest = Manifest(
            model=os.path.relpath(folder, out.resolve()),
            model_sha256=model_hash(folder),
            embedding_dim=loaded.config.projection_dim,
            vector_store=vector_store,
            collection=_new_collection(out, vector_store),
        )
        job = RayJob(model, manifest.model_sha256, data, rows.name, cache=cache) if ray else None
        backend = jax_backend(loaded, cache)
        manifest = _write_segment(out, manifest, backend, rows, np.arange(len(rows)), embeddings, job)
        _commit(out, manifest)
        return manifest.num_pairs


def _new_collection(out: Path, vector_store: str) -> str:
    """A unique name, noted until the index is finished: what a killed call sent under it to a server is dropped."""
    note = out / NOTES / "collection.json"
    if vector_store.startswith(MILVUS_SCHEME) and note.exists():
        name = file_name(read_json(note, "an unfinished index"), str(note), COLLECTION_NAME)
        drop_collection(vector_store, name)
        return name
    name = f"medclip_{uuid.uuid4().hex[:12]}"
    write_json(note, name)
    return name


def add(
    folder: Path, data: AnyPath, split: str | None, max_samples: int | None, model: Path | None, cache: bool = True
) -> tuple[int, int]:
    """Add the pairs of a split that the index lacks. Returns how many were added, and how many it had.

    A pair is in the index if its id is; one that another dataset may have too, made up or a number (also of a file,
    a/17), only with the same image.
    """
    with lock_manifest(folder) as manifest:
        reader = IndexReader(folder)
        rows = Split(data, split or default_split(data), max_samples)
        live = reader.table.select(["id", "sha256"]).filter(pa.array(reader.live_mask))
        present = set(map(_identity, live.column("id").to_pylist(), live.column("sha256").to_pylist()))
        identities = map(_identity, rows.iter_column("id"), rows.iter_column("sha256"))
        new = np.array([row for row, identity in enumerate(identities) if identity not in present], np.int64)
        if len(new):
            backend = jax_backend(load(reader.model_path(model)), cache)
            _commit(folder, _write_segment(folder, manifest, backend, rows, new), manifest)
        return len(new), len(rows) - len(new)


def _identity(id: str, sha256: str) -> str:
    return f"{id} {sha256}" if is_made_up(id) or is_row_number(id.rpartition("/")[2]) else id


def delete(folder: Path, ids: Sequence[str] = (), articles: Sequence[str] = ()) -> int:
    """Exclude the images of these ids or articles from every search; returns how many. `purge` erases them.

    UserError names an id or an article that the index lacks, or that means several (datasets number their images and
    patients alike), and then nothing is deleted.
    """
    with lock_manifest(folder) as manifest:
        reader, row_ids = IndexReader(folder), set()
        for column, values in (("id", ids), ("article", articles)):
            cells = reader.table.column(column).to_pylist()
            rows_by_value: dict[str, list[int]] = {value: [] for value in values}
            for row in np.flatnonzero(reader.live_mask).tolist():
                if cells[row] in rows_by_value:
                    rows_by_value[cells[row]].append(row)
            for value, rows in rows_by_value.items():
                if problem := _why_unclear(reader, column, value, rows):
                    raise UserError(f"index {folder} has {problem} of {column} {value!r}: nothing was deleted.")
            row_ids.update(reader.row_ids[list(chain.from_iterable(rows_by_value.values()))].tolist())
        if len(row_ids) == manifest.num_pairs:
            raise UserError(f"that is every image of index {folder}: delete the folder instead.")
        _commit(folder, manifest.with_deleted(row_ids))
        return len(row_ids)


def _why_unclear(reader: IndexReader, column: str, value: str, rows: Sequence[int]) -> str:
    """What the index has of an id or an article that does not say which images are meant; "" for one that does."""
    if not rows:
        return "no image"
    remedy = "(medclip index correct deletes them by id and hash)"
    if column == "id" and len(rows) > 1:
        return f"{len(rows)} images {remedy}"
    sources = {reader.table.column("source")[row].as_py() for row in rows}
    return f"images of {len(sources)} sources {remedy}" if len(sources) > 1 and is_running_number(value) else ""


class Corrected(NamedTuple):
    """What `correct` did."""

    deleted: int
    relabeled: int
    snapshot: str
    """Name of the snapshot of what was before."""


def correct(folder: Path, corrections: Corrections) -> Corrected:
    """Delete and relabel images, and keep what was before as a snapshot.

    A relabeled row is written anew, in a segment of its own day and source, and the old one is deleted. UserError names
    a pair that the index lacks, and then nothing is changed.
    """
    with lock_manifest(folder) as manifest:
        reader = IndexReader(folder)
        keys = pair_keys(reader.table)
        rows = [row for row in np.flatnonzero(reader.live_mask).tolist() if keys[row] in corrections]
        if absent := set(corrections).difference(keys[row] for row in rows):
            raise UserError(f"index {folder} has no image of id {min(absent)[0]!r} like that: nothing was changed.")
        relabel_mask = np.zeros(len(keys), bool)
        relabel_mask[[row for row in rows if corrections[keys[row]] is not None]] = True
        num_relabeled = int(np.count_nonzero(relabel_mask))
        if len(rows) - num_relabeled == manifest.num_pairs:
            raise UserError(f"that is every image of index {folder}: delete the folder instead.")
        corrected = manifest
        for segment, (first, embeddings) in zip(manifest.segments, reader.segments, strict=True):
            mask = relabel_mask[first : first + segment.num_rows]
            if mask.any():
                table = relabel_table(reader.table.slice(first, segment.num_rows), corrections)
                corrected = _rewrite_segment(folder, corrected, segment, embeddings, table, mask)
        before = next(name for n in count(1) if (name := f"before-corrections-{n}") not in manifest.snapshots)
        corrected = replace(corrected, snapshots=write_snapshot(folder, manifest, before))
        _commit(folder, corrected.with_deleted(reader.row_ids[rows].tolist()), manifest)
        return Corrected(len(rows) - num_relabeled, num_relabeled, before)


def snapshot(folder: Path, name: str) -> int:
    """Save the current content under a name; returns the number of pairs. It takes no space: segments never change."""
    with lock_manifest(folder) as manifest:
        if name in manifest.snapshots:
            raise UserError(f"index {folder} has a snapshot {name!r} already.")
        write_manifest(folder, replace(manifest, snapshots=write_snapshot(folder, manifest, name)))
        return manifest.num_pairs


def restore(folder: Path, name: str) -> int:
    """Return to the content of a snapshot; returns the number of pairs."""
    with lock_manifest(folder) as current:
        manifest = replace(
            read_manifest(folder, name),
            # ids and names given since must not be given again: an external store may hold them
            next_row_id=current.next_row_id,
            next_segment=current.next_segment,
            vector_store=current.vector_store,
            collection=current.collection,
            snapshots=current.snapshots,
        )
        _commit(folder, manifest)
        return manifest.num_pairs


def migrate(folder: Path, vector_store: str) -> int:
    """Switch the vector store, or bring the present one up to date; returns the number of pairs.

    The previous store's copy is dropped, where that store can still be reached.
    """
    with lock_manifest(folder) as manifest:
        with named_server(vector_store):
            _commit(folder, replace(manifest, vector_store=check_vector_store(vector_store)))
        if manifest.vector_store != vector_store:
            try:
                open_store(IndexReader(folder), manifest.vector_store).drop()
            except UserError as error:
                console.print(f"{manifest.vector_store} keeps its copy of the index: {error}")
        return manifest.num_pairs


def purge(folder: Path) -> int:
    """Erase deleted rows and all snapshots from the disk; returns how many rows were erased."""
    with lock_manifest(folder) as manifest:
        reader, before = IndexReader(folder), _rows_on_disk(folder)
        manifest = replace(manifest, snapshots={})
        if (folder / SNAPSHOTS_DIR).exists():  # first: no snapshot lists a segment that is gone
            write_manifest(folder, manifest)
            _remove_folder(folder / SNAPSHOTS_DIR)
        _remove_segments(folder, manifest)  # of killed changes
        purged = replace(manifest, segments=(), deleted=())
        for segment, (first, embeddings) in zip(manifest.segments, reader.segments, strict=True):
            live_mask = reader.live_mask[first : first + segment.num_rows]
            if live_mask.all():
                purged = replace(purged, segments=(*purged.segments, segment))
            elif live_mask.any():
                table = reader.table.slice(first, segment.num_rows)
                purged = _rewrite_segment(folder, purged, segment, embeddings, table, live_mask)
        _commit(folder, purged.replace(), manifest)
        _remove_segments(folder, purged)
        return before - _rows_on_disk(folder)


def _remove_segments(folder: Path, manifest: Manifest) -> None:
    """Erase the segments that a manifest does not list."""
    for path in (folder / SEGMENTS_DIR).iterdir():
        if path.name not in {segment.name for segment in manifest.segments}:
            _remove_folder(path)


def _remove_folder(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except OSError as error:  # which names the file alone, not its folder
        raise OSError(error.errno, error.strerror, str(path)) from None


def _commit(folder: Path, manifest: Manifest, current: Manifest | None = None) -> None:
    """Put a manifest in force in place of the `current` one, if any.

    Readers see it when its store holds all of it. Then the store loses what is beyond it.
    """
    check_available(manifest.vector_store)
    if current and manifest.next_row_id > current.next_row_id:  # ids that a killed call gave never come again
        write_manifest(folder, replace(current, next_row_id=manifest.next_row_id))
    store = IndexReader(folder, manifest).store
    store.extend()
    write_manifest(folder, manifest)
    store.trim()
    for segment in manifest.segments:
        finish(segment_folder(folder, segment))


def _write_segment(
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


def _rewrite_segment(
    folder: Path, manifest: Manifest, segment: Segment, embeddings: np.ndarray, table: pa.Table, mask: np.ndarray
) -> Manifest:
    """Write the rows of the mask of a segment as a new one; returns the manifest with it."""
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


def _with_hashes(folder: Path, segment: Segment) -> Segment:
    """A segment whose files are written, with their hashes."""
    files = {name: segment_folder(folder, segment) / name for name in (EMBEDDINGS_FILE, ROWS_FILE)}
    return replace(segment, sha256={name: sha256(file) for name, file in files.items()})


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


def _rows_on_disk(folder: Path) -> int:
    return sum(len(np.load(path, mmap_mode="r")) for path in (folder / SEGMENTS_DIR).glob(f"*/{EMBEDDINGS_FILE}"))

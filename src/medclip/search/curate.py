"""Build an index and change its content: add, delete, correct, snapshot, restore, purge, migrate to another store."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from medclip.atomic_io import file_name, read_json, write_json
from medclip.data.corrections import Corrections, pair_keys, relabel_table
from medclip.data.dataset import Split, default_split
from medclip.data.paths import AnyPath
from medclip.data.resume import finish
from medclip.data.schema import is_made_up, is_row_number, is_running_number
from medclip.encode.encoder import jax_backend
from medclip.errors import UserError
from medclip.folder_locks import NOTES, claim
from medclip.model.checkpoint import load, model_folder, model_hash
from medclip.progress import console
from medclip.require import require
from medclip.search.embed import RayJob
from medclip.search.manifest import (
    COLLECTION_NAME,
    EXACT,
    MANIFEST_FILE,
    MILVUS_SCHEME,
    SEGMENTS_DIR,
    SNAPSHOTS_DIR,
    Manifest,
    check_vector_store,
    lock_manifest,
    read_manifest,
    segment_folder,
    write_manifest,
    write_snapshot,
)
from medclip.search.reader import IndexReader, check_available, open_store
from medclip.search.segment_writer import remove_folder, remove_segments, rewrite_segment, rows_on_disk, write_segment
from medclip.search.stores.milvus import drop_collection, named_server


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
    if ray:
        require("ray", extra="ray")
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
        manifest = write_segment(out, manifest, backend, rows, np.arange(len(rows)), embeddings, job)
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
            _commit(folder, write_segment(folder, manifest, backend, rows, new), manifest)
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
                corrected = rewrite_segment(folder, corrected, segment, embeddings, table, mask)
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
        reader, before = IndexReader(folder), rows_on_disk(folder)
        manifest = replace(manifest, snapshots={})
        if (folder / SNAPSHOTS_DIR).exists():  # first: no snapshot lists a segment that is gone
            write_manifest(folder, manifest)
            remove_folder(folder / SNAPSHOTS_DIR)
        remove_segments(folder, manifest)  # of killed changes
        purged = replace(manifest, segments=(), deleted=())
        for segment, (first, embeddings) in zip(manifest.segments, reader.segments, strict=True):
            live_mask = reader.live_mask[first : first + segment.num_rows]
            if live_mask.all():
                purged = replace(purged, segments=(*purged.segments, segment))
            elif live_mask.any():
                table = reader.table.slice(first, segment.num_rows)
                purged = rewrite_segment(folder, purged, segment, embeddings, table, live_mask)
        _commit(folder, purged.replace(), manifest)
        remove_segments(folder, purged)
        return before - rows_on_disk(folder)


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

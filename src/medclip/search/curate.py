"""Making an index and changing what it holds."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from medclip.atomic_io import claim, whole_file
from medclip.data.dataset import Split, default_split, write_batches
from medclip.data.images import decode_ahead
from medclip.data.paths import AnyPath
from medclip.data.perceptual_hash import fingerprint
from medclip.data.resume import finish
from medclip.encode.encoder import jax_backend
from medclip.errors import UserError
from medclip.model.checkpoint import Model, load, model_folder, model_hash
from medclip.progress import console, progress
from medclip.search.embed import read_embedding, write_vectors
from medclip.search.index import FINGERPRINT_FIELDS, KEPT, Index
from medclip.search.manifest import (
    ABOUT,
    EXACT,
    SEGMENTS,
    SNAPSHOTS,
    Manifest,
    Segment,
    changing,
    read_manifest,
    segment_folder,
    snapshots,
    write_manifest,
)
from medclip.search.stores import check_available, known_store, open_store

BATCH = 256


def build_index(
    model: str | Path, data: AnyPath, out: Path, split: str | None = None, limit: int | None = None,
    store: str = EXACT, vectors: Path | None = None,
) -> int:  # fmt: skip
    """Embed every image of a split into the new folder `out`; returns how many. Called again, it goes on.

    `vectors` is what `medclip embed` made of the same split with the same model, in place of embedding again.
    """
    rows = Split(data, split or default_split(data), limit)
    check_available(known_store(store))  # before hours of work
    claim(out, ABOUT)
    folder, encoder = model_folder(model).resolve(), load(model)
    contents = Manifest(
        model=os.path.relpath(folder, out.resolve()),
        model_sha256=model_hash(folder),
        dimensions=encoder.config.projection_dim,
        store=store,
        name=f"medclip_{uuid.uuid4().hex[:12]}",
    )
    made = _segment(out, contents, encoder, rows, np.arange(len(rows)), vectors)
    _change(out, made)
    return made.pairs


def add(folder: Path, data: AnyPath, split: str | None, limit: int | None, model: Path | None) -> tuple[int, int]:
    """Add the pairs of a split whose ids the index does not have. Returns how many were added, and how many it had."""
    with changing(folder) as contents:
        index = Index(folder)
        rows = Split(data, split or default_split(data), limit)
        there = set(index.rows.column("id").filter(pa.array(index.live)).to_pylist())
        new = np.array([row for row, id in enumerate(rows.iter_column("id")) if id not in there], np.int64)
        if len(new):
            _change(folder, _segment(folder, contents, load(index.model(model)), rows, new, None))
        return len(new), len(rows) - len(new)


def delete(folder: Path, ids: Sequence[str] = (), articles: Sequence[str] = ()) -> int:
    """Take images of these ids or articles out of every answer; returns how many. `purge` takes them off the disk.

    UserError names an id or an article that the index does not have, and then nothing is deleted.
    """
    with changing(folder) as contents:
        index, numbers = Index(folder), set()
        for column, asked in (("id", ids), ("article", articles)):
            said = index.rows.column(column).to_pylist()
            of = {value: [] for value in asked}
            for row in np.flatnonzero(index.live):
                if said[row] in of:
                    of[said[row]].append(int(index.numbers[row]))
            if absent := [value for value, found in of.items() if not found]:
                raise UserError(f"index {folder} has no image of {column} {absent[0]!r}: nothing was deleted.")
            numbers.update(number for found in of.values() for number in found)
        if len(numbers) == contents.pairs:
            raise UserError(f"that is every image of index {folder}: delete the folder instead.")
        _change(folder, contents.without(numbers))
        return len(numbers)


def snapshot(folder: Path, name: str) -> int:
    """Keep what the index holds now under a name; returns how many pairs. It takes no room: segments never change."""
    with changing(folder) as contents:
        if name in snapshots(folder):
            raise UserError(f"index {folder} has a snapshot {name!r} already.")
        write_manifest(folder, contents, name)
        return contents.pairs


def restore(folder: Path, name: str) -> int:
    """Let the index hold what it held at a snapshot; returns how many pairs."""
    with changing(folder) as now:
        was = read_manifest(folder, name)
        # numbers and names given since must not be given again: a store elsewhere may know them
        given = {field: getattr(now, field) for field in ("next_row", "next_segment", "store", "name")}
        _change(folder, replace(was, **given))
        return was.pairs


def move(folder: Path, store: str) -> int:
    """Let another store answer, or bring the index's own up to date; returns how many pairs it holds.

    What the one before held of the index goes, where it can still be reached.
    """
    with changing(folder) as contents:
        _change(folder, replace(contents, store=known_store(store)))
        if contents.store != store:
            try:
                open_store(Index(folder), contents.store).drop()
            except UserError as error:
                console.print(f"{contents.store} keeps what it has of the index: {error}")
        return contents.pairs


def purge(folder: Path) -> int:
    """Erase from the disk what is no longer in the index, and every snapshot; returns how many rows were erased."""
    with changing(folder) as contents:
        index, before = Index(folder), _rows_on_disk(folder)
        kept = replace(contents, segments=(), deleted=())
        for segment, (first, vectors) in zip(contents.segments, index.vectors, strict=True):
            live = index.live[first : first + segment.rows]
            if live.all():
                kept = replace(kept, segments=(*kept.segments, segment))
            elif live.any():
                table = index.rows.slice(first, segment.rows)
                kept = _rewritten(folder, kept, segment, vectors, table, live)
        _change(folder, kept.counted())
        shutil.rmtree(folder / SNAPSHOTS, ignore_errors=True)
        for path in (folder / SEGMENTS).iterdir():
            if path.name not in {segment.name for segment in kept.segments}:
                shutil.rmtree(path)
        return before - _rows_on_disk(folder)


def _change(folder: Path, contents: Manifest) -> None:
    """From here on the index holds these, and so does its store."""
    check_available(contents.store)
    write_manifest(folder, contents)
    Index(folder).store.sync()


def _segment(
    folder: Path, contents: Manifest, model: Model, rows: Split, of: np.ndarray, vectors: Path | None
) -> Manifest:
    """Write rows `of` a split as a new segment; returns the contents with it."""
    segment = Segment(
        name=f"{contents.next_segment:05}",
        first=contents.next_row,
        rows=len(of),
        added=str(datetime.now(UTC).date()),
        data=rows.dataset["source"],
        split=rows.name,
        synthetic=rows.dataset["synthetic"],
    )
    at = segment_folder(folder, segment)
    if vectors is not None:
        at.mkdir(parents=True, exist_ok=True)
        _write_npy(at / "vectors.npy", read_embedding(vectors, contents.model_sha256, rows)[of])
    else:
        made_from = {"model_sha256": contents.model_sha256, "data_sha256": rows.digest}
        write_vectors(at / "vectors.npy", jax_backend(model), rows, of, made_from, "images")
    table = rows.table.select(KEPT)
    schema = pa.schema([*table.schema, *(pa.field(name, kind) for name, kind in FINGERPRINT_FIELDS.items())])
    write_batches(at / "rows.arrow", schema, _with_looks(table, of, schema))
    finish(at)
    return contents.with_segment(segment)


def _with_looks(table: pa.Table, of: np.ndarray, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows `of` a table, BATCH at a time, with what their images look like."""
    images = (image for part in _selected(table, of) for image in part.column("image").to_pylist())
    prints = chain.from_iterable(decode_ahead(fingerprint, images, BATCH))
    with progress("look at images", len(of), "images") as advance:
        for part in _selected(table, of):
            own = list(islice(prints, len(part)))
            looks = [
                pa.array([look[i].tobytes() for look in own], kind)
                for i, kind in enumerate(FINGERPRINT_FIELDS.values())
            ]
            yield pa.RecordBatch.from_arrays([*part.columns, *looks], schema=schema)
            advance(len(part))


def _selected(table: pa.Table, of: np.ndarray) -> Iterator[pa.RecordBatch]:
    wanted, first = np.isin(np.arange(len(table)), of), 0
    for batch in table.to_batches(max_chunksize=BATCH):
        yield batch.filter(pa.array(wanted[first : first + len(batch)]))
        first += len(batch)


def _rewritten(
    folder: Path, contents: Manifest, segment: Segment, vectors: np.ndarray, rows: pa.Table, live: np.ndarray
) -> Manifest:
    """The live rows of a segment as a new one, in place of it."""
    left = replace(
        segment, name=f"{contents.next_segment:05}", first=contents.next_row, rows=int(np.count_nonzero(live))
    )
    at = segment_folder(folder, left)
    at.mkdir(parents=True, exist_ok=True)
    _write_npy(at / "vectors.npy", vectors[live])
    batches, first = [], 0
    for batch in rows.to_batches(max_chunksize=BATCH):
        batches.append((batch, live[first : first + len(batch)]))
        first += len(batch)
    write_batches(at / "rows.arrow", rows.schema, (batch.filter(pa.array(kept)) for batch, kept in batches))
    return contents.with_segment(left)


def _write_npy(path: Path, vectors: np.ndarray) -> None:
    with whole_file(path) as partial, partial.open("wb") as file:
        np.save(file, np.ascontiguousarray(vectors, "<f4"))


def _rows_on_disk(folder: Path) -> int:
    return sum(len(np.load(path, mmap_mode="r")) for path in (folder / SEGMENTS).glob("*/vectors.npy"))

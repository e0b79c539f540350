"""What the files of a dataset, an index and a folder of embeddings hold: images against hashes, norms, stores."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from medclip.atomic_io import MAX_JSON_BYTES, check_file, read_object
from medclip.bounded_files import TooLargeError, read_text
from medclip.data.checked_files import EMBEDDINGS_MANIFEST, DamageError, damaged_rows, open_array, open_table
from medclip.data.pixel_cache import CACHE_DIR, CACHE_NAME, damaged_pixels
from medclip.data.shards import SCHEMA
from medclip.errors import UserError
from medclip.evaluation.results import ITEMS_HASH, kinds_in
from medclip.search.embed import IDS_FILE
from medclip.search.manifest import (
    EMBEDDINGS_FILE,
    EXACT,
    MANIFEST_FILE,
    ROWS_FILE,
    SEGMENTS_DIR,
    SNAPSHOTS_DIR,
    Manifest,
    Segment,
    parse_manifest,
    segment_folder,
)
from medclip.search.reader import IndexReader
from medclip.search.segments import ROW_SCHEMA
from medclip.search.stores.faiss import FAISS_FILE
from medclip.verify.hashes import (
    HASHES,
    Finding,
    check_hashes,
    check_manifest,
    check_recorded,
    file_problem,
    left_over,
    valid_hashes,
)
from medclip.verify.hashes import read_manifest as read_checked


def check_dataset(folder: Path) -> Iterator[Finding]:
    """Shards, their images and the other files of a prepared dataset."""
    content = yield from read_checked(folder, "dataset.json")
    hashes, shards = valid_hashes(content.get(HASHES)), _shards(content)
    yield from check_hashes(folder, {name: digest for name, digest in hashes.items() if name not in shards})
    if unlisted := sorted(name for name in hashes if name.endswith(".arrow") and name not in shards):
        yield Finding("dataset.json", f"does not list {', '.join(unlisted)}, which it has hashes of")
    for name, rows in shards.items():
        yield from _check_rows(folder, name, hashes.get(name), SCHEMA, _noticed_ids(folder, rows))
    yield from check_recorded(folder, {"dataset.json", *hashes, *shards})
    yield from _check_caches(folder, {Path(name).stem.rpartition("-")[0] for name in shards})


def _check_caches(folder: Path, splits: Container[str]) -> Iterator[Finding]:
    """Decoded images in DATA/cache against those of the dataset."""
    caches = [f"{CACHE_DIR}/{path.name}" for path in sorted((folder / CACHE_DIR).glob("*.pixels"))]
    caches = [name for name in caches if (match := CACHE_NAME.fullmatch(Path(name).name)) and match[1] in splits]
    for name in caches:
        try:
            if ids := damaged_pixels(folder / name, folder):
                yield Finding(name, "holds pixels that are not as they were written", tuple(ids))
        except DamageError as error:
            yield Finding(name, str(error))
        except OSError as error:
            yield Finding(name, f"cannot be read ({error.strerror})")
        except UserError:  # of a shard, which is named by itself
            yield Finding(name, "cannot be compared with the images, which are damaged")
    yield from left_over(folder, caches, f"{CACHE_DIR}/*")


def _shards(content: Mapping[str, Any]) -> dict[str, range]:
    """The shards that a manifest lists, with the numbers of their rows over all; what is damaged is left out."""
    splits = content.get("splits")
    entries = splits.values() if isinstance(splits, dict) else ()
    lists = [entry.get("shards") for entry in entries if isinstance(entry, dict)]
    shards = [shard for own in lists if isinstance(own, list) for shard in own if isinstance(shard, dict)]
    counts = [shard["pairs"] if isinstance(shard.get("pairs"), int) else 0 for shard in shards]
    ends = list(accumulate(counts))
    names = [str(shard.get("file")) for shard in shards]
    return {
        name: range(end - count, end)
        for name, count, end in zip(names, counts, ends, strict=True)
        if Path(name).name == name
    }


def _noticed_ids(folder: Path, rows: range) -> tuple[str, ...]:
    """The ids of rows by NOTICE.txt, for a shard that cannot be read; none where that is damaged too."""
    _, _, table = _read_text(folder / "NOTICE.txt").partition("\nsplit\tid\tlicense\tattribution\n")
    return tuple(line.split("\t")[1] for line in table.split("\n")[rows.start : rows.stop] if "\t" in line)


def _read_text(path: Path) -> str:
    """The text of a file; "" where it cannot be read."""
    try:
        check_file(path)
        return read_text(path, MAX_JSON_BYTES)
    except (OSError, ValueError, TooLargeError):
        return ""


def _check_rows(
    folder: Path, name: str, digest: str | None, schema: pa.Schema, ids: Sequence[str]
) -> Iterator[Finding]:
    """A file of rows: its hash, and each image against its own. `ids` stand for rows that cannot be read."""
    problem = file_problem(folder / name, digest)
    try:
        table = open_table(folder / name, schema)
    except FileNotFoundError:
        yield Finding(name, "is absent", tuple(ids))
        return
    except DamageError as error:
        yield Finding(name, str(error), tuple(ids))
        return
    touched = [
        id
        for batch in table.select(["id", "image", "sha256"]).to_batches()
        for id, image, own in zip(*(column.to_pylist() for column in batch.columns), strict=True)
        if image is None or hashlib.sha256(image).hexdigest() != own
    ]
    if touched:
        yield Finding(name, "holds images that do not have their hash", tuple(map(str, touched)))
    elif problem is not None:
        yield Finding(name, problem, tuple(map(str, table.column("id").to_pylist())))


def check_embeddings(folder: Path) -> Iterator[Finding]:
    """The files of `medclip embed`."""
    hashes = yield from check_manifest(folder, EMBEDDINGS_MANIFEST)
    ids = _read_text(folder / IDS_FILE).splitlines()
    for name, digest in hashes.items():
        yield from (
            _check_vectors(folder, name, digest, ids) if name.endswith(".npy") else check_hashes(folder, {name: digest})
        )
    yield from check_recorded(folder, {EMBEDDINGS_MANIFEST, *hashes})


def _check_vectors(folder: Path, name: str, digest: str | None, ids: Sequence[str]) -> Iterator[Finding]:
    """A file of embeddings: its hash and the length of each row."""
    problem = file_problem(folder / name, digest)
    try:
        rows = damaged_rows(open_array(folder / name, "<f4"))
    except FileNotFoundError:
        yield Finding(name, "is absent", tuple(ids))
        return
    except (DamageError, ValueError) as error:
        yield Finding(name, str(error), tuple(ids))
        return
    if rows:
        touched = tuple(ids[row] if row < len(ids) else f"row {row}" for row in rows)
        yield Finding(name, "holds rows that are not unit vectors", touched)
    elif problem is not None:
        yield Finding(name, problem, tuple(ids))


def check_index(folder: Path) -> Iterator[Finding]:
    """Manifest, snapshots, segments and vector store of an index."""
    content = yield from read_checked(folder, MANIFEST_FILE)
    try:
        manifest = parse_manifest(folder / MANIFEST_FILE, content)
    except (UserError, RecursionError):
        yield Finding(MANIFEST_FILE, "is not the manifest of an index")
        return
    manifests = [manifest]
    snapshots = {f"{SNAPSHOTS_DIR}/{name}.json": name for name in manifest.snapshots}
    for file, name in snapshots.items():
        if (problem := file_problem(folder / file, manifest.snapshots[name])) is None:
            manifests.append(parse_manifest(folder / file, read_object(folder / file, "a snapshot")))
        else:
            yield Finding(file, problem)
    segments = {_segment_hashes(segment): segment for each in manifests for segment in each.segments}.values()
    findings = [finding for segment in segments for finding in _check_segment(folder, segment)]
    yield from findings
    files = [path for segment in segments for path, _ in _segment_files(folder, segment)]
    yield from left_over(folder, files, f"{SEGMENTS_DIR}/**/*")
    yield from left_over(folder, snapshots, f"{SNAPSHOTS_DIR}/**/*")
    yield from check_recorded(folder, {MANIFEST_FILE})
    if not findings:
        yield from _check_store(folder, manifest)


def _segment_hashes(segment: Segment) -> tuple[str, ...]:
    """What tells a segment from another of its name, as in a manifest that came from elsewhere."""
    return segment.name, *(f"{name} {digest}" for name, digest in sorted(valid_hashes(segment.sha256).items()))


def _segment_files(folder: Path, segment: Segment) -> Iterator[tuple[str, str | None]]:
    below = segment_folder(folder, segment).relative_to(folder).as_posix()
    for name in (EMBEDDINGS_FILE, ROWS_FILE, FAISS_FILE):
        yield f"{below}/{name}", valid_hashes(segment.sha256).get(name)


def _check_segment(folder: Path, segment: Segment) -> Iterator[Finding]:
    (vectors, vectors_hash), (rows, rows_hash), _ = _segment_files(folder, segment)
    yield from _check_rows(folder, rows, rows_hash, ROW_SCHEMA, ())
    yield from _check_vectors(folder, vectors, vectors_hash, _ids(folder / rows, ROW_SCHEMA))


def _check_store(folder: Path, manifest: Manifest) -> Iterator[Finding]:
    """What an external vector store holds against the vectors."""
    if manifest.vector_store == EXACT:
        return
    try:
        reader = IndexReader(folder)
        for difference in reader.store.differences():
            ids = tuple(reader.id(int(row)) for row in difference.rows)
            yield Finding(difference.name, difference.problem, ids)
    except UserError as error:
        yield Finding(manifest.vector_store, f"cannot be compared with the vectors: {error}")


def check_evaluations(folder: Path) -> Iterator[Finding]:
    """Results of every kind, and their items against them."""
    items = {f"{kind.stem}.arrow": folder / f"{kind.stem}.json" for kind in kinds_in(folder)}
    for name, results in items.items():
        try:
            digest = read_object(results, "an evaluation").get(ITEMS_HASH)
        except (UserError, RecursionError):  # `check_recorded` tells
            continue
        if (problem := file_problem(folder / name, digest)) is not None:
            yield Finding(name, problem, _ids(folder / name))
    yield from check_recorded(folder, items)


def _ids(path: Path, schema: pa.Schema | None = None) -> tuple[str, ...]:
    """The ids of a file of rows; none where it cannot be read."""
    try:
        return tuple(map(str, open_table(path, schema).column("id").to_pylist()))
    except (FileNotFoundError, DamageError, KeyError):
        return ()

"""Any source of pairs to a prepared dataset; every row that does not arrive is counted by its reason."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from medclip import NOT_CLINICAL, __version__
from medclip.atomic_io import sha256, whole_file, write_with_checksum
from medclip.data.checked_files import columns_crc32
from medclip.data.dataset import SPLIT_NAME, is_prepared
from medclip.data.deidentify import DICOM_SOURCE, make_key, pseudonymize, read_key
from medclip.data.dropped_rows import DROPPED_FILE, explain_dropped, write_dropped
from medclip.data.normalize import split_of
from medclip.data.parallel import map_shards
from medclip.data.paths import AnyPath, parse_path
from medclip.data.prepare_config import DEFAULT, PrepareConfig
from medclip.data.prepare_row import prepare_rows
from medclip.data.presidio import filter_versions
from medclip.data.private_map import record_origins, without_origins
from medclip.data.resume import ResumableFile, remove_stale, source_fingerprint
from medclip.data.schema import Dropped, Pair, is_made_up, take_per_split
from medclip.data.shards import open_shard, shard_report, write_shard
from medclip.data.sources.detect import (
    Source,
    check_dicom_source,
    is_dicom_source,
    is_dicomweb,
    is_phantoms,
    open_source,
    source_length,
    source_path,
)
from medclip.errors import UserError, WorkError, describe_error
from medclip.folder_locks import claim
from medclip.plain_text import printable
from medclip.progress import progress
from medclip.require import require
from medclip.versions import library_versions

NOTICE_FILE = "NOTICE.txt"
LIBRARIES = ("numpy", "pillow", "pydicom", "pyjpegls", "pylibjpeg-openjpeg", "python-gdcm", "ftfy", "pyarrow")
"""What decides a shard's bytes."""
SHARD_PAIRS = 1024
SHARD_BYTES = 2**26  # of images and texts that come with their rows: what waits for a worker is in memory
COUNTERS = ("dropped", "caption_rules", "removed")
"""What a shard counts by name: rows dropped by reason, pairs whose caption a rule changed, pairs that lost what."""
_NOTICE = """The images and captions of this dataset are the work of others, each under the license stated below.
Images were resized and encoded anew, captions cleaned by stated rules. Who passes on the data, or an image from
them, passes on this file. Where no license is stated none was granted: ask the source.
"""


def preview(source: Source, config: PrepareConfig = DEFAULT, num_rows: int = 5) -> list[dict[str, Any] | Dropped]:
    """The first rows of `source` as they would be prepared, each with its `split`. Nothing is written."""
    filter_versions(config.deidentify)
    rows = list(islice(_read_rows(source, config), num_rows))
    prepared = zip(prepare_rows(rows, config), rows, strict=True)
    return [made if isinstance(made, Dropped) else made | {"split": row.split} for made, row in prepared]


def prepare(
    source: Source,
    out: Path,
    config: PrepareConfig = DEFAULT,
    *,
    num_workers: int | None = None,
    ray: bool = False,
) -> dict[str, Any]:
    """Prepare `source` into the folder `out`; returns the content of `out/dataset.json`.

    `source` is a SOURCE of the command line or a value in memory (see `read_memory`); for `num_workers` and `ray` see
    `map_shards`. Memory does not grow with the source, except for the 18 bytes a pair that detect repeated ids and
    about 60 for each image file that rows name, from which the files that none names are told. A
    killed preparation resumes at its first missing shard; `dataset.json` is written last, so a folder without it is
    not yet a dataset. Raises WorkError, with the reasons, where no row becomes a pair.
    """
    if num_workers is not None and num_workers < 1:
        raise UserError("--num-workers must be at least 1.")
    filter_versions(config.deidentify)  # what is not installed is told before anything is written, the key too
    if ray:
        require("ray", extra="ray")
    _check_apart(source, out)
    if is_private := is_dicom_source(source):
        check_dicom_source(source)
    with claim(out, "dataset.json"):
        if is_private:
            make_key(config.studies.pseudonym_key, out)
            origin = {"source": DICOM_SOURCE, "synthetic": False}
        else:
            origin = _origin(source, out)
        rows = _read_rows(source, config, out, record=is_private)
        tasks = ((chunk, out / f"{split}-{number:05d}.arrow", config) for split, number, chunk in chunks_by_split(rows))
        reports: dict[str, list[dict[str, Any]]] = {}
        try:
            with (
                progress("prepare", source_length(source, config.max_samples), "pairs") as advance,
                closing(rows),  # and with them the private map, whatever holds an error's frames
                closing(map_shards(prepare_shard, tasks, num_workers, ray)) as shards,
            ):
                for report in shards:
                    reports.setdefault(report["split"], []).append(report)
                    advance(report["pairs"] + sum(report["dropped"].values()))
            remove_stale(out, [report["file"] for report in chain.from_iterable(reports.values())])
            _write_dropped(out, source, origin, reports)
            return _write_dataset(out, origin, config, reports)
        except OSError as error:
            reason = describe_error(error).removesuffix(".")
            raise WorkError(f"{reason}; what is whole is kept, and the same command goes on from there.") from error


def _check_apart(source: Source, out: Path) -> None:
    """UserError where `out` is the folder that is read: it would be neither the source nor a dataset alone."""
    name = source_path(source)
    if name is not None and not is_dicomweb(name) and out.is_dir() and Path(name).resolve() == out.resolve():
        raise UserError(f"--out {out} is the source itself. Choose another folder.")


def ensure_prepared(data: Source, out: Path) -> AnyPath:
    """A prepared dataset: `data`, if it is one, or what is prepared from it into `OUT-data`, beside `out`."""
    name = source_path(data)
    if name is not None and not is_dicomweb(name) and is_prepared(path := parse_path(name)):
        return path
    folder = out.with_name(f"{out.name}-data")
    if is_prepared(folder):
        raise UserError(f"{folder} is already prepared: give it as the data, or delete it to prepare the source again.")
    prepare(data, folder)
    return folder


def prepare_shard(rows: list[Pair | Dropped], path: Path, config: PrepareConfig) -> dict[str, Any]:
    """Write the shard `path` of `rows` unless it exists, whole and from the same rows and images. Idempotent.

    Returns the split, the file, its SHA-256 and `columns_crc32`, the number of its pairs, and COUNTERS.
    """
    # The fingerprint is taken before an image is read, which may change meanwhile.
    versions = library_versions(*LIBRARIES), filter_versions(config.deidentify)
    shard = ResumableFile(path, source_fingerprint(rows, versions, config))
    report = shard_report(path) if shard.is_complete else None
    if report is None:
        prepared = list(prepare_rows(rows, config))
        pairs = [row for row in prepared if not isinstance(row, Dropped)]
        dropped = [row for row in prepared if isinstance(row, Dropped)]
        report = {
            "file": path.name,
            "pairs": len(pairs),
            "rows_dropped": [[_unicode(row.id), row.split, row.reason, _unicode(row.detail)] for row in dropped],
            "dropped": Counter(row.reason for row in dropped),
            "caption_rules": Counter(chain.from_iterable(row["caption_rules"] for row in pairs)),
            "removed": Counter(chain.from_iterable(row.pop("removed") for row in pairs)),
        }
        with shard.rewrite():
            write_shard(path, pairs, report)
    counts = {name: report[name] for name in ("file", "pairs", *COUNTERS)}
    return {"split": rows[0].split, "sha256": shard.sha256, "crc32": columns_crc32(open_shard(path)), **counts}


def _origin(source: Source, out: Path) -> dict[str, Any]:
    """The source as `dataset.json` names it, without its path on this machine, and whether it is synthetic.

    A value in memory goes by the name of its dataset: contamination is recognized by the names of sources.
    """
    name = source_path(source)
    if name is None:
        return {"source": f"memory:{out.name}", "synthetic": False}
    return {"source": Path(name).name, "synthetic": is_phantoms(name)}


def _unicode(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _read_rows(
    source: Source, config: PrepareConfig, out: Path | None = None, record: bool = False
) -> Generator[Pair | Dropped]:
    """The rows to prepare into `out` (None: for a look at them); where they came from stays in the private map."""
    rows = open_source(source, replace(config, max_samples=None) if config.resplit else config)
    rows = record_origins(rows, config.studies.pseudonym_key) if record else without_origins(rows)
    rows = _resplit(rows) if config.resplit else rows
    return take_per_split(drop_repeated_ids(_pseudonymize(rows, config, out)), config.max_samples)


def _pseudonymize(rows: Iterable[Pair | Dropped], config: PrepareConfig, out: Path | None) -> Iterator[Pair | Dropped]:
    """Rows without patients and studies; the key is made where the first one names any."""
    key = b""
    for row in rows:
        if (row.private or row.identifying) and not key:
            if out is not None:
                make_key(config.studies.pseudonym_key, out)
            key = read_key(config.studies.pseudonym_key)
        yield pseudonymize(row, key)


def _resplit(rows: Iterable[Pair | Dropped]) -> Iterator[Pair | Dropped]:
    for row in rows:
        yield replace(row, split=split_of(row.article if isinstance(row, Pair) else row.id))


def chunks_by_split(rows: Iterator[Pair | Dropped]) -> Iterator[tuple[str, int, list[Pair | Dropped]]]:
    """Rows of one split in their order, a shard at a time: split, number of the shard, rows."""
    open_chunks: dict[str, list[Pair | Dropped]] = {}
    num_bytes: Counter[str] = Counter()
    num_shards: Counter[str] = Counter()
    for row in rows:
        if row.split not in open_chunks and not re.fullmatch(SPLIT_NAME, row.split):
            raise UserError(
                f"row {row.id!r} has the split {row.split[:64]!r}, but a split names files: letters, digits, - and _ "
                "only. See --split-column and --resplit."
            )
        chunk = open_chunks.setdefault(row.split, [])
        chunk.append(row)
        num_bytes[row.split] += _bytes_in_memory(row)
        if len(chunk) == SHARD_PAIRS or num_bytes[row.split] >= SHARD_BYTES:
            yield row.split, num_shards[row.split], chunk
            num_shards[row.split] += 1
            open_chunks[row.split], num_bytes[row.split] = [], 0
    yield from ((split, num_shards[split], chunk) for split, chunk in open_chunks.items() if chunk)


def _bytes_in_memory(row: Pair | Dropped) -> int:
    """Of the image that comes with a row, and of texts that a table of few bytes can make long."""
    texts = [row.id, *row.private]
    if isinstance(row, Dropped):
        return sum(map(len, texts)) + len(row.detail)
    texts += row.caption, row.article, row.license, row.attribution, *row.labels.values()
    image = len(row.image) if isinstance(row.image, bytes) else 0
    return image + sum(map(len, chain(texts, row.concepts, row.keywords, row.semantic_types)))


def drop_repeated_ids(rows: Iterator[Pair | Dropped]) -> Iterator[Pair | Dropped]:
    """Rows, where every pair after the first of an id (in its split) is dropped; a made-up id gets a number instead.

    Ids are remembered as 128-bit hashes, side by side in buckets by their first 16 bits: 14 bytes each, 18 with room to
    grow. Two of 25 million ids share one with a probability of 1e-24.
    """
    buckets: defaultdict[bytes, bytearray] = defaultdict(bytearray)
    repeats: Counter[str] = Counter()
    for row in rows:
        if isinstance(row, Pair):
            id, bucket, digest = row.id, *_bucket(row, buckets)
            while digest in bucket and is_made_up(id):  # the same content twice: two rows all the same
                repeats[id] += 1
                row = replace(row, id=f"{id}-{repeats[id]}")
                bucket, digest = _bucket(row, buckets)
            if digest in bucket:
                row = Dropped(row.id, row.split, "duplicate id")
            else:
                bucket += digest
        yield row


def _bucket(row: Pair, buckets: defaultdict[bytes, bytearray]) -> tuple[bytearray, bytes]:
    """The bucket of an id in its split, and what it holds of it."""
    key = f"{row.split}\0{row.id}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(key, digest_size=16).digest()
    return buckets[digest[:2]], digest[2:]


def _write_dropped(out: Path, source: Source, origin: dict[str, Any], reports: dict[str, list[dict[str, Any]]]) -> None:
    """Write `dropped.jsonl`. Raises WorkError with what it says where no row became a pair."""
    shards = list(chain.from_iterable(reports.values()))
    dropped = ((shard_report(out / shard["file"]) or {})["rows_dropped"] for shard in shards)  # a shard at a time
    write_dropped(out, chain.from_iterable(dropped))
    if not any(shard["pairs"] for shard in shards):
        # the folder of a DICOM study may be named after a patient
        of_source = "" if origin["source"] == DICOM_SOURCE else f" of {source_path(source) or 'the source'}"
        raise WorkError(f"no row{of_source} became a pair. {explain_dropped(out)}")


def _write_dataset(
    out: Path, origin: dict[str, Any], config: PrepareConfig, reports: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Write `NOTICE.txt` and, last, `dataset.json`; returns its content."""
    write_notice(out, {split: [report["file"] for report in of_split] for split, of_split in reports.items()})
    counts = {name: {split: _sum(name, of_split) for split, of_split in reports.items()} for name in COUNTERS}
    dataset = {
        "medclip_version": __version__,
        **origin,
        "notice": NOT_CLINICAL,
        "seed": config.seed,
        "shorter_side": config.shorter_side,
        "licenses": config.licenses,
        "resplit": config.resplit,
        "splits": {
            split: {
                "pairs": sum(report["pairs"] for report in of_split),
                "shards": [{"file": report["file"], "pairs": report["pairs"]} for report in of_split],
            }
            for split, of_split in reports.items()
        },
        "dropped": counts["dropped"],
        "caption_rules": counts["caption_rules"],
        "sha256": {report["file"]: report["sha256"] for of_split in reports.values() for report in of_split}
        | {name: sha256(out / name) for name in (NOTICE_FILE, DROPPED_FILE)},
        "crc32": {report["file"]: report["crc32"] for of_split in reports.values() for report in of_split},
    }
    if any(counts["removed"].values()):
        dataset["privacy"] = counts["removed"]
    if config.deidentify:
        dataset["deidentify"] = filter_versions(config.deidentify)
    write_with_checksum(out / "dataset.json", dataset)
    return dataset


def _sum(name: str, reports: list[dict[str, Any]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report[name])
    return dict(total.most_common())


def write_notice(folder: Path, files: Mapping[str, Sequence[str]]) -> None:
    """Write `folder`/NOTICE.txt: pairs of each license, then split, id, license and attribution of every pair.

    `files` are the shards of each split. Memory is that of one shard; lines are tab-separated.
    """
    stated: Counter[str] = Counter()
    for name in chain.from_iterable(files.values()):
        stated.update(open_shard(folder / name).column("license").to_pylist())
    counts: Counter[str] = Counter()
    for license, count in stated.items():
        counts[_line(license) or "no license stated"] += count
    with whole_file(folder / NOTICE_FILE) as partial, partial.open("w", encoding="utf-8") as out:
        out.write(_NOTICE + "\n")
        out.writelines(f"{count}\t{license}\n" for license, count in counts.most_common())
        out.write("\nsplit\tid\tlicense\tattribution\n")
        out.writelines("\t".join(row) + "\n" for row in _notice_rows(folder, files))


def _notice_rows(folder: Path, files: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Split, id, license and attribution (or article) of every pair."""
    for split, names in files.items():
        for name in names:
            columns = open_shard(folder / name).select(["id", "license", "attribution", "article"]).itercolumns()
            for id, license, attribution, article in zip(*(column.to_pylist() for column in columns), strict=True):
                yield tuple(map(_line, (split, id, license, attribution or article)))


def _line(text: str) -> str:
    return printable(" ".join(text.split()))

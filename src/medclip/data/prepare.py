"""Any source of pairs to a prepared dataset; every row that does not arrive is counted by its reason."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from medclip import NOT_CLINICAL, __version__
from medclip.atomic_io import claim, whole_file, write_json
from medclip.data.dataset import shard_report, write_shard
from medclip.data.deidentify import DICOM_SOURCE, make_key
from medclip.data.normalize import split_of
from medclip.data.notice import write_notice
from medclip.data.parallel import map_shards
from medclip.data.prepare_config import DEFAULT, PrepareConfig
from medclip.data.prepare_row import prepare_row
from medclip.data.resume import ResumableFile, finish, remove_stale, source_fingerprint
from medclip.data.schema import Dropped, Pair, take_per_split
from medclip.data.sources.detect import is_dicom_folder, open_source, source_length
from medclip.errors import UserError, WorkError
from medclip.progress import progress

SHARD_PAIRS = 1024
SHARD_BYTES = 2**26  # of images that come with their rows: what waits for a worker is in memory
_SPLIT = re.compile(r"\w[\w.-]{0,63}")
COUNTED = ("dropped", "caption_rules", "removed")
"""What a shard counts by name: rows dropped by reason, pairs whose caption a rule changed, pairs that lost what."""


def preview(source: str, how: PrepareConfig = DEFAULT, rows: int = 5) -> list[dict[str, Any] | Dropped]:
    """What would become of the first rows of SOURCE; each prepared one with its `split`. Nothing is written."""
    found = list(islice(_rows(source, how), rows))
    made = [prepare_row(row, how) for row in found]
    return [
        one if isinstance(one, Dropped) else one | {"split": row.split} for row, one in zip(found, made, strict=True)
    ]


def prepare(
    source: str, out: Path, how: PrepareConfig = DEFAULT, *, num_workers: int | None = None, ray: bool = False
) -> dict[str, Any]:
    """Prepare SOURCE into the folder `out` and return what `out/dataset.json` says.

    For `workers` and `cluster` see `map_shards`. What is in memory does not grow with the source, but for 18 bytes a
    pair that tell repeated ids. A killed preparation resumes at its first missing shard; `dataset.json` is written
    last, so a folder without it is not yet a dataset.
    """
    if num_workers is not None and num_workers < 1:
        raise UserError("--workers must be at least 1.")
    name = source if source.startswith("phantoms") else Path(source).name
    if is_dicom_folder(source):
        name = DICOM_SOURCE
        make_key(how.studies.pseudonym_key, out)
    rows = _rows(source, how)
    claim(out, "dataset.json")
    tasks = ((chunk, out / f"{split}-{number:05d}.arrow", how) for split, number, chunk in _chunks(rows))
    reports: dict[str, list[dict[str, Any]]] = {}
    try:
        with (
            progress("prepare", source_length(source, how.max_samples), "pairs") as advance,
            closing(map_shards(prepare_shard, tasks, num_workers, ray)) as made,
        ):
            for report in made:
                reports.setdefault(report["split"], []).append(report)
                advance(report["pairs"] + sum(report["dropped"].values()))
        remove_stale(out, {report["file"] for report in chain.from_iterable(reports.values())})
        dataset = _finish(out, name, how, reports)
    except OSError as error:
        raise WorkError(f"{error}; what is whole is kept, and the same command goes on from there.") from error
    finish(out)
    return dataset


def prepare_shard(rows: list[Pair | Dropped], path: Path, how: PrepareConfig) -> dict[str, Any]:
    """Write the shard `path` of `rows` unless it is there, whole and from the same rows and images. Idempotent.

    Returns the split, the file, how many pairs it holds, and COUNTED.
    """
    # before an image is read, which may change meanwhile
    shard = ResumableFile(path, source_fingerprint(rows, __version__, how))
    report = shard_report(path) if shard.is_complete else None
    if report is None:
        made = [prepare_row(row, how) for row in rows]
        kept = [row for row in made if not isinstance(row, Dropped)]
        gone = [row for row in made if isinstance(row, Dropped)]
        stayed = [row for row, one in zip(rows, made, strict=True) if not isinstance(one, Dropped)]
        report = {
            "file": path.name,
            "pairs": len(kept),
            "rows_dropped": [[_unicode(row.id), row.split, row.reason, _unicode(row.detail)] for row in gone],
            "dropped": Counter(row.reason for row in gone),
            "caption_rules": Counter(chain.from_iterable(row["caption_rules"] for row in kept)),
            "removed": Counter(chain.from_iterable(row.removed for row in stayed)),
        }
        with shard.rewrite():
            write_shard(path, kept, report)
    return {"split": rows[0].split, **{name: report[name] for name in ("file", "pairs", *COUNTED)}}


def _unicode(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _rows(source: str, how: PrepareConfig) -> Iterator[Pair | Dropped]:
    if not how.resplit:
        return take_per_split(_unique(open_source(source, how)), how.max_samples)
    return take_per_split(_unique(_resplit(open_source(source, replace(how, max_samples=None)))), how.max_samples)


def _resplit(rows: Iterable[Pair | Dropped]) -> Iterator[Pair | Dropped]:
    for row in rows:
        yield replace(row, split=split_of(row.article if isinstance(row, Pair) else row.id))


def _chunks(rows: Iterator[Pair | Dropped]) -> Iterator[tuple[str, int, list[Pair | Dropped]]]:
    """Rows of one split in their order, a shard at a time: split, number of the shard, rows."""
    waiting: dict[str, list[Pair | Dropped]] = {}
    size: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for row in rows:
        if row.split not in waiting and not _SPLIT.fullmatch(row.split):
            raise UserError(
                f"row {row.id!r} has the split {row.split[:64]!r}, but a split names files: letters, digits, - and _ "
                "only. See --split-column and --resplit."
            )
        held = waiting.setdefault(row.split, [])
        held.append(row)
        size[row.split] += len(row.image) if isinstance(row, Pair) and isinstance(row.image, bytes) else 0
        if len(held) == SHARD_PAIRS or size[row.split] >= SHARD_BYTES:
            yield row.split, numbers[row.split], held
            numbers[row.split] += 1
            waiting[row.split], size[row.split] = [], 0
    yield from ((split, numbers[split], held) for split, held in waiting.items() if held)


def _unique(rows: Iterator[Pair | Dropped]) -> Iterator[Pair | Dropped]:
    """Pairs, of which every one after the first of an id (in its split) is dropped.

    Seen ids are 128-bit hashes, side by side in buckets by their first 16 bits: 14 bytes each, 18 with room to grow.
    That two of 25 million ids share one has a chance of 1e-24.
    """
    seen: defaultdict[bytes, bytearray] = defaultdict(bytearray)
    for row in rows:
        if isinstance(row, Pair):
            said = f"{row.split}\0{row.id}".encode("utf-8", "surrogatepass")
            known = hashlib.blake2b(said, digest_size=16).digest()
            bucket = seen[known[:2]]
            if known[2:] in bucket:
                row = Dropped(row.id, row.split, "duplicate id")
            else:
                bucket += known[2:]
        yield row


def _finish(out: Path, source: str, how: PrepareConfig, reports: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    keys = ("id", "split", "reason", "detail")
    with whole_file(out / "dropped.jsonl") as partial, partial.open("w", encoding="utf-8") as lines:
        for report in chain.from_iterable(reports.values()):
            for row in (shard_report(out / report["file"]) or {})["rows_dropped"]:  # a shard at a time
                lines.write(json.dumps(dict(zip(keys, row, strict=True)), ensure_ascii=False) + "\n")
    write_notice(out, {split: [report["file"] for report in of_split] for split, of_split in reports.items()})
    counts = {name: {split: _sum(name, of_split) for split, of_split in reports.items()} for name in COUNTED}
    dataset = {
        "medclip": __version__,
        "source": source,
        "synthetic": source.startswith("phantoms"),
        "notice": NOT_CLINICAL,
        "seed": how.seed,
        "shorter_side": how.shorter_side,
        "licenses": how.licenses,
        "resplit": how.resplit,
        "splits": {
            split: {
                "pairs": sum(report["pairs"] for report in of_split),
                "shards": [{"file": report["file"], "pairs": report["pairs"]} for report in of_split],
            }
            for split, of_split in reports.items()
        },
        "dropped": counts["dropped"],
        "caption_rules": counts["caption_rules"],
    }
    if any(counts["removed"].values()):
        dataset["privacy"] = counts["removed"]
    write_json(out / "dataset.json", dataset)
    return dataset


def _sum(name: str, reports: list[dict[str, Any]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report[name])
    return dict(total.most_common())

"""Any source of pairs to a prepared data set; every row that does not arrive is counted by its reason."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from medclip import NOT_CLINICAL, __version__
from medclip.data import unfinished
from medclip.data.captions import MIN_CHARACTERS, clean_caption
from medclip.data.images import ImageError, standardise
from medclip.data.pairs import Dropped, Pair
from medclip.data.places import Place, is_url, reached
from medclip.data.shards import shard_report, write_shard
from medclip.data.sources.columns import Columns
from medclip.data.sources.open import known_length, open_source
from medclip.data.splits import first
from medclip.data.workers import map_shards
from medclip.errors import UserError, WorkError
from medclip.files import claim, whole_file, write_json
from medclip.progress import progress

SHARD_PAIRS = 1024
SHARD_BYTES = 2**26  # of pictures that come with their rows: what waits for a worker is in memory
_SPLIT = re.compile(r"\w[\w.-]{0,63}")


def prepare_row(row: Pair | Dropped, side: int) -> dict[str, Any] | Dropped:
    """One row of the prepared form, or why there is none. Pure."""
    if isinstance(row, Dropped):
        return row
    caption, _ = clean_caption(row.caption)
    if len(caption) < MIN_CHARACTERS:
        return Dropped(row.id, row.split, f"caption under {MIN_CHARACTERS} characters")
    try:
        image, width, height = standardise(_fetched(row.image), side)
    except ImageError as error:
        return Dropped(row.id, row.split, str(error), "" if isinstance(row.image, bytes) else row.image.name)
    return {
        "id": row.id,
        "image": image,
        "width": width,
        "height": height,
        "caption": caption,
        "caption_original": row.caption,
        "article": row.article,
        "licence": row.licence,
        "attribution": row.attribution,
        "concepts": list(row.concepts),
        "keywords": list(row.keywords),
        "semantic_types": list(row.semantic_types),
        "labels": list(row.labels.items()),
        "source": row.source,
        "sha256": hashlib.sha256(image).hexdigest(),
    }


def prepare_shard(rows: list[Pair | Dropped], path: Path, side: int) -> dict[str, Any]:
    """Write the shard `path` of `rows` unless it is there, whole and from the same rows and pictures. Idempotent.

    Returns the split, the file, how many pairs it holds and how many rows were dropped for each reason.
    """
    known = unfinished.made_from(rows, __version__, side)  # before a picture is read, which may change meanwhile
    report = shard_report(path)
    if report is None or not unfinished.is_noted(path, known):
        unfinished.note(path, None)
        made = [prepare_row(_encodable(row), side) for row in rows]
        kept = [row for row in made if not isinstance(row, Dropped)]
        gone = [row for row in made if isinstance(row, Dropped)]
        dropped = [[_unicode(d.id), d.split, d.reason, _unicode(d.detail)] for d in gone]
        report = {"file": path.name, "pairs": len(kept), "dropped": dropped}
        write_shard(path, kept, report)
        unfinished.note(path, known)
    reasons = Counter(reason for _, _, reason, _ in report["dropped"])
    return {"split": rows[0].split, "file": path.name, "pairs": report["pairs"], "dropped": dict(reasons)}


def _encodable(row: Pair | Dropped) -> Pair | Dropped:
    """The row, or why it cannot be stored: JSON and file names can hold halves of characters, which UTF-8 cannot."""
    if isinstance(row, Pair):
        try:
            json.dumps(asdict(replace(row, image=Path())), default=str, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return Dropped(row.id, row.split, "text is not Unicode")
    return row


def _unicode(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _fetched(image: Place | bytes) -> Path | bytes:
    """A picture behind a URL as its bytes. A store that does not answer fails the work: the picture is not missing."""
    if not is_url(image):
        return image
    try:
        with reached(image, but=(FileNotFoundError, IsADirectoryError)):
            return image.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise ImageError("image missing") from None


def preview(
    source: str, side: int = 256, seed: int = 0, columns: Columns | None = None, rows: int = 5
) -> list[dict[str, Any] | Dropped]:
    """What would become of the first rows of SOURCE; each prepared one with its `split`. Nothing is written."""
    found = list(islice(_unique(open_source(source, seed, columns)), rows))
    made = [prepare_row(row, side) for row in found]
    return [
        one if isinstance(one, Dropped) else one | {"split": row.split} for row, one in zip(found, made, strict=True)
    ]


def prepare(
    source: str,
    out: Path,
    side: int = 256,
    limit: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    columns: Columns | None = None,
    cluster: bool = False,
) -> dict[str, Any]:
    """Prepare SOURCE into the folder `out` and return what `out/dataset.json` says.

    `limit` keeps the first rows of each split; for `workers` and `cluster` see `map_shards`. What is in memory does not
    grow with the source, but for 16 bytes a pair that tell repeated ids. A killed preparation resumes at its first
    missing shard; `dataset.json` is written last, so a folder without it is not yet a data set.
    """
    if side < 1 or (limit is not None and limit < 1) or (workers is not None and workers < 1):
        raise UserError("--side, --limit and --workers must be at least 1.")
    rows = first(_unique(open_source(source, seed, columns, limit)), limit)
    claim(out, "dataset.json")
    tasks = ((chunk, out / f"{split}-{number:05d}.arrow", side) for split, number, chunk in _chunks(rows))
    reports: dict[str, list[dict[str, Any]]] = {}
    try:
        with (
            progress("prepare", known_length(source, limit), "pairs") as advance,
            closing(map_shards(prepare_shard, tasks, workers, cluster)) as made,
        ):
            for report in made:
                reports.setdefault(report["split"], []).append(report)
                advance(report["pairs"] + sum(report["dropped"].values()))
        unfinished.remove_others(out, {report["file"] for report in chain.from_iterable(reports.values())})
        dataset = _finish(out, source, side, seed, reports)
    except OSError as error:
        raise WorkError(f"{error}; what is whole is kept, and the same command goes on from there.") from error
    unfinished.finish(out)
    return dataset


def _chunks(rows: Iterator[Pair | Dropped]) -> Iterator[tuple[str, int, list[Pair | Dropped]]]:
    """Rows of one split in their order, a shard at a time: split, number of the shard, rows."""
    waiting: dict[str, list[Pair | Dropped]] = {}
    size: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for row in rows:
        if row.split not in waiting and not _SPLIT.fullmatch(row.split):
            raise UserError(
                f"row {row.id!r} has the split {row.split!r}: splits name files, so use letters, digits, -._"
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

    Seen ids are 128-bit hashes, side by side in buckets by their first 16 bits: 14 bytes each and no object. That two
    of 25 million ids share one has a chance of 1e-24.
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


def _finish(out: Path, source: str, side: int, seed: int, reports: dict[str, Any]) -> dict[str, Any]:
    keys = ("id", "split", "reason", "detail")
    with whole_file(out / "dropped.jsonl") as partial, partial.open("w", encoding="utf-8") as lines:
        for report in chain.from_iterable(reports.values()):
            for row in (shard_report(out / report["file"]) or {})["dropped"]:  # a shard at a time
                lines.write(json.dumps(dict(zip(keys, row, strict=True)), ensure_ascii=False) + "\n")
    counts = {split: sum((Counter(r["dropped"]) for r in of_split), Counter()) for split, of_split in reports.items()}
    dataset = {
        "medclip": __version__,
        "source": source if source.startswith("phantoms") else Path(source).name,
        "synthetic": source.startswith("phantoms"),
        "notice": NOT_CLINICAL,
        "seed": seed,
        "shorter_side": side,
        "splits": {
            split: {
                "pairs": sum(report["pairs"] for report in of_split),
                "shards": [{"file": r["file"], "pairs": r["pairs"]} for r in of_split],
            }
            for split, of_split in reports.items()
        },
        "dropped": {split: dict(of_split) for split, of_split in counts.items()},
    }
    write_json(out / "dataset.json", dataset)
    return dataset

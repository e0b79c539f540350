"""Any source of pairs to a prepared data set; every row that does not arrive is counted by its reason."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from pathlib import Path
from typing import Any

from medclip import NOT_CLINICAL, __version__
from medclip.data.captions import MIN_CHARACTERS, clean_caption
from medclip.data.images import ImageError, standardise
from medclip.data.pairs import Dropped, Frame, Pair
from medclip.data.privacy import SOURCE, Studies, make_key
from medclip.data.shards import shard_report, write_shard
from medclip.data.sources.columns import Columns
from medclip.data.sources.open import holds_studies, open_source
from medclip.errors import UserError, WorkError
from medclip.files import claim, sha256, whole_file, write_json
from medclip.progress import progress

SHARD_PAIRS = 1024


def prepare_row(row: Pair | Dropped, side: int) -> dict[str, Any] | Dropped:
    """One row of the prepared form, or why there is none. Pure."""
    if isinstance(row, Dropped):
        return row
    caption = clean_caption(row.caption)
    if len(caption) < MIN_CHARACTERS:
        return Dropped(row.id, row.split, f"caption under {MIN_CHARACTERS} characters")
    try:
        image, width, height = standardise(row.image, side)
    except ImageError as error:
        return Dropped(row.id, row.split, str(error), row.image.name if isinstance(row.image, Path) else "")
    return {
        "id": row.id,
        "image": image,
        "width": width,
        "height": height,
        "caption": caption,
        "caption_original": row.caption,
        "article": row.article,
        "licence": row.licence,
        "concepts": list(row.concepts),
        "keywords": list(row.keywords),
        "semantic_types": list(row.semantic_types),
        "labels": list(row.labels.items()),
        "source": row.source,
        "sha256": hashlib.sha256(image).hexdigest(),
    }


def prepare_shard(rows: list[Pair | Dropped], path: Path, side: int) -> dict[str, Any]:
    """Write the shard `path` of `rows` unless it is already there, whole and from the same rows. Idempotent."""
    said = repr((__version__, side, [(r.id, r.caption, _digest(r.image)) if isinstance(r, Pair) else r for r in rows]))
    made_from = hashlib.sha256(said.encode()).hexdigest()
    report = shard_report(path)
    if report and report["made_from"] == made_from:
        return report
    made = [prepare_row(row, side) for row in rows]
    kept = [row for row in made if not isinstance(row, Dropped)]
    dropped = [[d.id, d.split, d.reason, d.detail] for d in made if isinstance(d, Dropped)]
    stayed = (row for row, one in zip(rows, made, strict=True) if not isinstance(one, Dropped))
    gone = Counter(chain.from_iterable(row.removed for row in stayed))
    report = {"file": path.name, "pairs": len(kept), "dropped": dropped, "removed": gone, "made_from": made_from}
    write_shard(path, kept, report)
    return report


def _digest(image: Path | bytes | Frame) -> str:
    """What a picture is known by; a file that is absent now may be there on resume."""
    if isinstance(image, Frame):
        return f"{_digest(image.path)} {image.number} {image.masked}"
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    return sha256(image) if image.is_file() else "absent"


def preview(
    source: str,
    side: int = 256,
    seed: int = 0,
    columns: Columns | None = None,
    rows: int = 5,
    studies: Studies | None = None,
) -> list[dict[str, Any] | Dropped]:
    """What would become of the first rows of SOURCE; each prepared one with its `split`. Nothing is written."""
    first = list(islice(_unique(open_source(source, seed, columns, studies)), rows))
    made = [prepare_row(row, side) for row in first]
    return [
        one if isinstance(one, Dropped) else one | {"split": row.split} for row, one in zip(first, made, strict=True)
    ]


def prepare(
    source: str,
    out: Path,
    side: int = 256,
    limit: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    columns: Columns | None = None,
    studies: Studies | None = None,
) -> dict[str, Any]:
    """Prepare SOURCE into the folder `out` and return what `out/dataset.json` says.

    `limit` keeps the first rows of each split. A killed preparation resumes at its first missing shard;
    `dataset.json` is written last, so a folder without it is not yet a data set.
    """
    if side < 1 or (limit is not None and limit < 1):
        raise UserError("--side and --limit must be at least 1.")
    rows = open_source(source, seed, columns, studies)
    rows = _first(_unique(rows), limit)
    name = source if source.startswith("phantoms") else Path(source).name
    if holds_studies(Path(source)):
        name = SOURCE
        make_key(studies.key if studies else None, out)
    claim(out, "dataset.json")
    reports: dict[str, list[dict[str, Any]]] = {}
    workers = workers or os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    waiting: deque[tuple[str, int, Future[dict[str, Any]]]] = deque()
    with ProcessPoolExecutor(workers, mp_context=context) as pool, progress("prepare", None, "pairs") as advance:

        def collect() -> None:
            split, pairs, future = waiting.popleft()
            done = reports.setdefault(split, [])
            try:
                done.append(future.result())
            except BrokenProcessPool:  # native decoders abort on some damaged files instead of raising
                raise WorkError(
                    f"a worker died in or near shard {len(done)} of {split} ({pairs} rows): memory ran out, or a "
                    "decoder crashed on a damaged picture. Whole shards stay; find the picture with --limit."
                ) from None
            advance(pairs)

        for split, number, chunk in _chunks(rows):
            path = out / f"{split}-{number:05d}.arrow"
            waiting.append((split, len(chunk), pool.submit(prepare_shard, chunk, path, side)))
            if len(waiting) > 2 * workers:  # bounds what waits in memory, whatever the source's length
                collect()
        while waiting:
            collect()
    return _finish(out, name, side, seed, reports)


def _chunks(rows: Iterator[Pair | Dropped]) -> Iterator[tuple[str, int, list[Pair | Dropped]]]:
    """Rows of one split in their order, a shard at a time: split, number of the shard, rows."""
    waiting: dict[str, list[Pair | Dropped]] = {}
    numbers: Counter[str] = Counter()
    for row in rows:
        held = waiting.setdefault(row.split, [])
        held.append(row)
        if len(held) == SHARD_PAIRS:
            yield row.split, numbers[row.split], waiting[row.split]
            numbers[row.split] += 1
            waiting[row.split] = []
    yield from ((split, numbers[split], held) for split, held in waiting.items() if held)


def _unique(rows: Iterator[Pair | Dropped]) -> Iterator[Pair | Dropped]:
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if isinstance(row, Pair) and (row.split, row.id) in seen:
            row = Dropped(row.id, row.split, "duplicate id")
        seen.add((row.split, row.id))
        yield row


def _first(rows: Iterator[Pair | Dropped], limit: int | None) -> Iterator[Pair | Dropped]:
    taken: Counter[str] = Counter()
    for row in rows:
        taken[row.split] += 1
        if limit is None or taken[row.split] <= limit:
            yield row


def _finish(out: Path, source: str, side: int, seed: int, reports: dict[str, Any]) -> dict[str, Any]:
    dropped = [row for of_split in reports.values() for report in of_split for row in report["dropped"]]
    with whole_file(out / "dropped.jsonl") as partial:
        keys = ("id", "split", "reason", "detail")
        lines = (json.dumps(dict(zip(keys, row, strict=True)), ensure_ascii=False) for row in dropped)
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    counts = {split: Counter(row[2] for row in dropped if row[1] == split) for split in reports}
    dataset = {
        "medclip": __version__,
        "source": source,
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
    if removed := _removed(reports):
        dataset["privacy"] = removed
    write_json(out / "dataset.json", dataset)
    return dataset


def _removed(reports: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, int]]:
    """How many pairs lost what of their source's, by place: header, report or pixels. Names, never values."""
    total: Counter[str] = Counter()
    for of_split in reports.values():
        for report in of_split:
            total.update(report["removed"])
    places: dict[str, dict[str, int]] = {}
    for name, count in total.most_common():
        place, _, what = name.partition("/")
        places.setdefault(place, {})[what] = count
    return places

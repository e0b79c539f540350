"""Flipped bits and cut files of everything that is written, under `medclip verify` and under what opens it."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from medclip.errors import UserError, WorkError
from soak.commands import in_fork, run_whole
from soak.record import Bounds, Record
from soak.writing import STAGES, Place

Open = Callable[[Path], None]
ARTIFACTS = {
    "dataset": "prepare",
    "run": "train",
    "index": "index build",
    "embeddings": "embed",
    "evaluation": "evaluate",
    "export of a dataset": "export parquet",
    "export of a model": "export safetensors",
}
"""By the stage that writes it."""


def flips(bounds: Bounds) -> Iterator[Record]:
    """One bit of a random file flipped, or the file cut at a random byte: `medclip verify` names a file, and what opens
    the folder ends in a sentence or in the right content, never in a crash."""
    place, rng = Place(bounds.folder), random.Random(bounds.seed)
    for name in filter(lambda name: bounds.only in name, ARTIFACTS):
        folder = place.folder / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        run_whole(place.words(STAGES[ARTIFACTS[name]].words, folder), place.folder)
        for log in folder.rglob("*tfevents*"):  # TensorBoard's, appended to by others
            log.unlink()
        for kind in ("a flipped bit", "a cut file"):
            tried = [(rng.random(), rng.random(), rng.randrange(8)) for _ in bounds.times(200)]

            damage_all = partial(_damage_all, folder, kind, tried, OPEN.get(name))
            result = in_fork(damage_all, place.folder / "log")
            outcomes = json.loads(result) if result.startswith("[") else [result]
            faults = [outcome for outcome in outcomes if outcome not in ("refused", "opened", "not opened")]
            counts = Counter(outcomes)
            outcome = "`medclip verify` names the file"
            if name in OPEN:
                outcome += f"; opening: {counts['refused']} refused in a sentence, {counts['opened']} opened"
            yield Record(f"{kind} of {name}", len(tried), outcome, faults, only=name)


def _damage_all(folder: Path, kind: str, tried: list[tuple[float, float, int]], open_again: Open | None) -> str:
    return json.dumps([_damage(folder, kind, *draw, open_again) for draw in tried])


def _damage(folder: Path, kind: str, file: float, byte: float, bit: int, open_again: Open | None) -> str:
    from medclip.verify import verify

    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    path = files[int(file * len(files))]
    whole = path.read_bytes()
    content = bytearray(whole)
    at = int(byte * len(content))
    if kind == "a flipped bit":
        content[at] ^= 1 << bit
    else:
        del content[at:]
    path.unlink()  # an earlier one may be mapped still
    path.write_bytes(content)
    where = f"{path.relative_to(folder)}, byte {at}, bit {bit}"
    try:
        try:
            if not verify(folder).findings:
                return f"{where}: silent"
        except UserError:
            pass  # the manifest itself is none any more
        if open_again is None:
            return "not opened"
        try:
            open_again(folder)
        except (UserError, WorkError):
            return "refused"
        return "opened"
    except Exception as error:
        return f"{where}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    finally:
        path.unlink()
        path.write_bytes(whole)


def _open_dataset(folder: Path) -> None:
    from medclip.data.dataset import Split

    for split in ("train", "validation"):
        opened = Split(folder, split)
        for column in ("id", "caption", "labels"):
            opened.column(column)


def _open_index(folder: Path) -> None:
    from medclip.search.reader import IndexReader

    reader = IndexReader(folder)
    for row, score in reader.nearest_rows(reader.sample_embeddings[:1], 5)[0]:
        reader.hit(row, score)


def _open_run(folder: Path) -> None:
    from medclip.model.checkpoint import load

    load(folder)


def _open_evaluation(folder: Path) -> None:
    from medclip.evaluation.results import Kind, read_results

    read_results(folder, Kind.RETRIEVAL)


OPEN = {"dataset": _open_dataset, "index": _open_index, "run": _open_run, "evaluation": _open_evaluation,
        "export of a model": _open_run}  # fmt: skip

"""What a training split has in common with the pairs it will be judged on, and a copy without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from medclip.atomic_io import claim, write_json
from medclip.data.dataset import Split, read_dataset, write_table
from medclip.data.normalize import casefold_whitespace
from medclip.data.perceptual_hash import near_duplicates
from medclip.errors import UserError
from medclip.progress import progress

WAYS = ("article", "same image", "near image", "caption")


@dataclass(frozen=True)
class Shared:
    """A row of one split and a row of another that have something in common."""

    row: int
    other: int
    way: str
    """One of WAYS."""


def shared(mine: Split, theirs: Split, near: bool = True) -> list[Shared]:
    """Everything rows of `mine` share with rows of `theirs`: each row, way by way, with the first row it meets there.

    Captions are compared without letter case and spacing. Near images are those that are not the same bytes; they
    take time n × m, and are left out where `near` is False. A split beside itself is searched for repetitions: each row
    is held against those before it, and articles, which are meant to repeat, are left out.
    """
    found, within = [], mine is theirs
    for way, column in (("article", "article"), ("same image", "sha256"), ("caption", "caption")):
        if within and way == "article":
            continue
        there: dict[str, int] = {}
        if not within:
            for row, value in enumerate(theirs.column(column)):
                there.setdefault(casefold_whitespace(value), row)
        for row, value in enumerate(map(casefold_whitespace, mine.column(column))):
            if value in there:
                found.append(Shared(row, there[value], way))
            elif within:
                there[value] = row
    if not near:
        return found
    own, others = mine.table.column("sha256"), theirs.table.column("sha256")
    pairs = near_duplicates(mine.sketches, theirs.sketches, within)
    with progress(f"near images, {mine.name}", len(mine), "pairs") as advance:
        for row, rows in pairs:
            unlike = (other for other in rows.tolist() if others[other] != own[row])
            found += [Shared(row, other, "near image") for other in islice(unlike, 1)]
            advance()
    return found


def leakage(data: Path, other: Path | None = None) -> dict[str, Any]:
    """What the training split of `data` shares with its other splits, or with every split of `other`.

    Returns {"train": rows, "held_out": {name: {"pairs": n, "shared": {way: n}, "any": n, "rows": [...]}}}, where n are
    held-out pairs and rows name the pairs by id.
    """
    training = Split(data, "train")
    folder = other or data
    names = [name for name in read_dataset(folder)["splits"] if other or name != "train"]
    if not names:
        raise UserError(f"{data} has no split but train: name a second dataset to compare it with.")
    held_out = {}
    ids = training.column("id")
    for name in names:
        split = Split(folder, name)
        found = shared(split, training)
        own = split.column("id")
        held_out[name] = {
            "pairs": len(split),
            "shared": {way: len({s.row for s in found if s.way == way}) for way in WAYS},
            "any": len({s.row for s in found}),
            "rows": [{"id": own[s.row], "train_id": ids[s.other], "way": s.way} for s in found],
        }
    return {"train": len(training), "held_out": held_out}


def decontaminate(data: Path, out: Path, other: Path | None = None) -> dict[str, int]:
    """Write a copy of `data` whose training split shares nothing with the rest; rows gone, by their first way."""
    about = read_dataset(data)
    training = Split(data, "train")
    claim(out, "dataset.json")
    folder = other or data
    gone: dict[int, str] = {}
    for name in (name for name in read_dataset(folder)["splits"] if other or name != "train"):
        for one in shared(training, Split(folder, name)):
            gone.setdefault(one.row, one.way)
    splits = {}
    for name in about["splits"]:
        split = Split(data, name)
        kept = [row for row in range(len(split)) if name != "train" or row not in gone]
        splits[name] = {"pairs": len(kept), "shards": _copied(split, kept, out)}
    removed = dict(Counter(gone.values()))
    said = {
        "leakage_removed": removed,
        "from": about["source"] if other is None else f"{data.name} beside {other.name}",
    }
    write_json(out / "dataset.json", {**about, "splits": splits, **said})
    return removed


def _copied(split: Split, rows: Sequence[int], out: Path) -> list[dict[str, Any]]:
    """Rows of a split as one shard for each of its record batches, of which none is empty."""
    shards, start = [], 0
    wanted = np.asarray(rows, np.int64)
    for batch in split.table.to_batches():
        inside = wanted[(wanted >= start) & (wanted < start + len(batch))] - start
        start += len(batch)
        if not len(inside):
            continue
        file = f"{split.name}-{len(shards):05d}.arrow"
        write_table(out / file, pa.Table.from_batches([batch]).take(inside), {"file": file, "pairs": len(inside)})
        shards.append({"file": file, "pairs": len(inside)})
    return shards

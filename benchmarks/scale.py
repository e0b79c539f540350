"""What grows with the number of pairs, measured on synthetic ones: time, memory and files of the steps that see all.

    python benchmarks/scale.py --pairs 250000

A hundredth of 25 million by default. Times are of one core's work (user + system), so that a busy machine tells the
same as a quiet one; memory is what the process has more than before. docs/performance.md extrapolates from it.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from medclip.atomic_io import write_with_checksum
from medclip.data.dataset import Split, duplicate_ids, read_dataset
from medclip.data.prepare import SHARD_PAIRS, drop_repeated_ids
from medclip.data.schema import Pair
from medclip.data.shards import write_shard
from medclip.training.data import rows_at

WORDS = [
    "axial",
    "contrast",
    "enhanced",
    "computed",
    "tomography",
    "of",
    "the",
    "chest",
    "shows",
    "a",
    "nodule",
    "in",
    "the",
    "left",
    "upper",
    "lobe",
    "arrow",
]


def write_pairs(folder: Path, num_pairs: int) -> None:
    """A dataset of shards that are links to one, whose rows are as long as those of ROCO but for their images."""
    random = np.random.default_rng(0)
    rows = [
        {
            "id": f"ROCO_{number:05}",
            "image": random.bytes(256),
            "width": 256,
            "height": 256,
            "caption": " ".join(random.choice(WORDS, 25)),
            "caption_original": " ".join(random.choice(WORDS, 25)),
            "caption_rules": [],
            "article": f"PMC{number:07}",
            "license": "CC BY",
            "attribution": "Somebody et al., Journal of Something, 2020, https://doi.org/10.0000/000000",
            "concepts": ["C0040405", "C0817096"],
            "keywords": [],
            "semantic_types": [],
            "labels": [],
            "source": "roco",
            "sha256": random.bytes(32).hex(),
        }
        for number in range(SHARD_PAIRS)
    ]
    files = [f"train-{number:05}.arrow" for number in range(num_pairs // SHARD_PAIRS)]
    write_shard(folder / files[0], rows, {})
    for file in files[1:]:
        os.link(folder / files[0], folder / file)
    shards = [{"file": file, "pairs": SHARD_PAIRS} for file in files]
    dataset = {
        "source": "synthetic",
        "synthetic": True,
        "dropped": {},
        "splits": {"train": {"pairs": SHARD_PAIRS * len(files), "shards": shards}},
        "sha256": dict.fromkeys(files, "0" * 64),
    }
    write_with_checksum(folder / "dataset.json", dataset)


def measure(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds of a core, and MB that the process has more afterwards, while the result lives."""
    memory, start = private_mb(), time.process_time()
    result = work()
    seconds, more = time.process_time() - start, private_mb() - memory
    del result
    return {"core_s": round(seconds, 3), "private_mb": round(more, 1)}


def private_mb() -> float:
    """Memory of this process that is no mapped file."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main(pairs: int = 250_000) -> None:
    """Print as JSON what so many pairs cost."""
    measured: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder, pairs)
        measured["dataset.json"] = measure(lambda: read_dataset(folder))
        measured["dataset.json"]["bytes"] = (folder / "dataset.json").stat().st_size
        measured["open a split"] = measure(lambda: Split(folder, "train"))
        split = Split(folder, "train")
        pairs = len(split)
        measured["open a split"]["mappings"] = Path("/proc/self/maps").read_text().count(".arrow")
        measured["digest"] = measure(lambda: split.digest)
        rows = np.random.default_rng(0).integers(0, pairs, 4096)
        measured["captions of 4,096 rows"] = measure(lambda: split.take("caption", rows))
        ids = (f"{row}-{id}" for row, id in enumerate(split.iter_column("id")))
        sha256 = (f"{row:064x}" for row in range(pairs))
        measured["number equal images and captions"] = measure(lambda: duplicate_ids(sha256, ids))
    repeated = drop_repeated_ids(Pair(f"ROCO_{row:09}", b"", "", "train", "") for row in range(pairs))
    measured["ids of a preparation"] = measure(lambda: (deque(repeated, maxlen=0), repeated))
    measured["order of an epoch"] = measure(lambda: rows_at(pairs, 4096, 0, 0))
    print(json.dumps({"pairs": pairs, **measured}, indent=1))


if __name__ == "__main__":
    tyro.cli(main)

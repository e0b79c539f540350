"""Time, processor time and peak memory of a retrieval evaluation, by the command itself.

    python benchmarks/retrieval.py --pairs 50000 [--width 512] [--concepts 8]

Draws embeddings and a dataset without images (three pairs an article, a repeated caption among a hundred, concepts by
Zipf's law), runs `medclip evaluate retrieval --embeddings` in a process of its own and prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from medclip.atomic_io import write_json
from medclip.data.dataset import SCHEMA, write_shard


def make(folder: Path, pairs: int, width: int, concepts: int) -> None:
    rng = np.random.default_rng(0)
    for name in ("images", "texts"):
        np.save(folder / f"{name}.npy", rng.standard_normal((pairs, width), dtype=np.float32))
    empty = {field.name: [] if str(field.type).startswith(("list", "map")) else "" for field in SCHEMA}
    rows = [
        empty
        | {"id": str(i), "image": b"", "width": 0, "height": 0, "article": str(i // 3), "sha256": str(i)}
        | {"caption": f"caption {i - i % 100 if i % 100 == 1 else i}", "labels": [("modality", "abc"[i % 3])]}
        | {"concepts": [f"C{c}" for c in rng.zipf(1.3, concepts).clip(max=10**6)]}
        for i in range(pairs)
    ]
    write_shard(folder / "validation-00000.arrow", rows, {})
    split = {"pairs": pairs, "shards": [{"file": "validation-00000.arrow", "pairs": pairs}]}
    dataset = {"source": "drawn", "synthetic": True, "splits": {"validation": split}, "dropped": {}}
    write_json(folder / "dataset.json", dataset)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--pairs", 50_000), ("--width", 512), ("--concepts", 8)):
        parser.add_argument(name, type=int, default=default)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make(folder, args.pairs, args.width, args.concepts)
        files = [str(folder / f"{name}.npy") for name in ("images", "texts")]
        start = time.monotonic()
        command = ["-m", "medclip.cli.main", "evaluate", "retrieval", "--data", str(folder), "--embeddings", *files]
        with subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL) as child:
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
    result = {
        **vars(args),
        "seconds": round(time.monotonic() - start),
        "processor seconds": round(usage.ru_utime + usage.ru_stime),
        "peak GiB": round(usage.ru_maxrss / 2**20, 2),
        "exit code": child.returncode,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

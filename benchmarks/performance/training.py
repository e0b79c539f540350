"""The start of training, and its memory by the number of pairs. Steps beside peers: training_speed.py."""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from medclip.atomic_io import write_json
from medclip.data.shards import SCHEMA, write_batches
from performance.models import write_model
from performance.record import Bounds, Comparison, Result, in_new_process, in_turn, run

SIDE, FEW, MANY, CHUNK = 32, 5_000, 500_000, 10_000
# the largest own memory of the process, without mapped files, which the system takes back as it likes
COMMAND = """
import os, sys, threading, time
from pathlib import Path
from medclip.cli.main import main
peak = 0
def watch():
    global peak
    while True:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peak = max(peak, int(lines["RssAnon"].split()[0]))
        time.sleep(0.05)
threading.Thread(target=watch, daemon=True).start()
sys.argv[0] = "medclip"
main()
print(peak)
"""


def write_pairs(folder: Path, num_pairs: int) -> None:
    """A dataset of noise, each image and caption another one."""
    rng = np.random.default_rng(0)
    folder.mkdir()

    def image() -> bytes:
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), np.uint8)).save(file, "JPEG")
        return file.getvalue()

    images = [image() for _ in range(64)]  # a number behind the last byte makes another one of each

    def batch(rows: range) -> pa.RecordBatch:
        defaults = {pa.string(): "", pa.binary(): b"", pa.int32(): SIDE}
        columns = {f.name: pa.repeat(pa.scalar(defaults.get(f.type, []), f.type), len(rows)) for f in SCHEMA}
        files = [images[row % len(images)] + row.to_bytes(4) for row in rows]
        columns["image"] = pa.array(files)
        columns["sha256"] = pa.array([hashlib.sha256(file).hexdigest() for file in files])
        texts = {"id": "p{}", "article": "a{}", "caption": "caption {} of noise"}
        columns |= {name: pa.array([text.format(row) for row in rows]) for name, text in texts.items()}
        return pa.RecordBatch.from_arrays([columns[field.name] for field in SCHEMA], schema=SCHEMA)

    splits = {}
    for split, count in (("train", num_pairs), ("validation", 64)):
        chunks = (range(at, min(at + CHUNK, count)) for at in range(0, count, CHUNK))
        write_batches(folder / f"{split}-00000.arrow", SCHEMA.with_metadata({"medclip": "{}"}), map(batch, chunks))
        splits[split] = {"pairs": count, "shards": [{"file": f"{split}-00000.arrow", "pairs": count}]}
    write_json(folder / "dataset.json", {"source": "drawn", "synthetic": True, "splits": splits, "dropped": {}})


def measure(bounds: Bounds) -> Iterator[Result]:
    yield from _memory(bounds)
    yield from _second_start(bounds)


def train_peak(folder: Path, num_pairs: int) -> int:
    """The peak of 20 steps of training on so many pairs of noise, written to a new folder."""
    in_new_process(write_pairs, folder, num_pairs)
    return peak_of_run(folder)


def peak_of_run(data: Path) -> int:
    """The peak of 20 steps of training, no image being decoded yet."""
    shutil.rmtree(data / "cache", ignore_errors=True)
    flags = ["--preset", "tiny", "--steps", 20, "--batch-size", 64, "--num-evals", 1, "--on-regression", "warn"]
    with tempfile.TemporaryDirectory(dir=data.parent) as folder:
        command = [sys.executable, "-c", COMMAND, "train", "--data", data, *flags, "--out", f"{folder}/run"]
        return int(run(command).output.split()[-1])


def _memory(bounds: Bounds) -> Iterator[Result]:
    few, many = bounds.size(FEW), bounds.size(MANY)
    folders = {count: bounds.folder / str(count) for count in (few, many)}
    for count, folder in folders.items():
        in_new_process(write_pairs, folder, count)
    peaks = in_turn(bounds.rounds, {str(count): partial(peak_of_run, folder) for count, folder in folders.items()})
    yield Comparison(
        f"training on {many:,} pairs, tiny preset, 20 steps", f"ours on {few:,} pairs",
        [a / b for a, b in zip(peaks[str(few)], peaks[str(many)], strict=True)],
        "peak of the process's own memory, without mapped files", goal=1,
    )  # fmt: skip


def _second_start(bounds: Bounds) -> Iterator[Result]:
    model, data = write_model(bounds, "small"), bounds.folder / "pairs"
    in_new_process(write_pairs, data, 64)
    flags = ["--init", model, "--freeze", "vision_model.*", "text_model.*", "--steps", 1, "--num-evals", 1]
    command = [sys.executable, "-m", "medclip.cli.main", "train", "--data", data, *flags, "--batch-size", 64]
    ratios = []
    for number in range(min(bounds.rounds, 2)):
        cache = f"XDG_CACHE_HOME={bounds.folder / f'cache{number}'}"
        first, second = (
            run(["env", cache, *command, "--out", bounds.folder / f"start{number}-{start}"]).seconds for start in (1, 2)
        )
        ratios.append(first / second)
    yield Comparison(
        "second start of `medclip train`, frozen DINOv2-S and MiniLM, 64 pairs, one step", "the first start", ratios
    )

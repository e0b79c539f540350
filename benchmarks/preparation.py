"""Preparing the same images by us, by `datasets.map` and by img2dataset's resizer, in turn: pairs/s and peak memory.

    python -m venv PEERS && PEERS/bin/pip install datasets pillow opencv-python-headless albumentations==1.4.24
    PEERS/bin/pip install --no-deps img2dataset          # its pins are years old; only its resizer is taken
    python benchmarks/preparation.py --images FOLDER --peers PEERS/bin/python --pairs 2000 --rounds 5

All make JPEGs of quality 95 whose shorter side is at most 256, with 1 and with 2 processes. `datasets.map` runs the
same Pillow calls as we do and writes Arrow; img2dataset's resizer is OpenCV's ("area", its default) and fills tar
archives of as many images as our shards have. We alone find color images that are grey, check captions and ids,
count what fails, hash every image and fsync. Seconds are those of the whole process, imports and workers' start
included, so a small count says more about starting than about working; one round before the first is not counted.
Memory is the largest sum of proportional set sizes (Linux) over the processes of a run.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PAIRS_PER_SHARD = 128  # so that a small count is shared out evenly; img2dataset and we take them in such pieces
MEDCLIP = """
import json, sys
from pathlib import Path
from medclip.data import prepare as module
folder, out, workers, module.SHARD_PAIRS = json.loads(sys.argv[1])
dataset = module.prepare(f"{folder}/pairs.csv", Path(out), num_workers=workers)
print(dataset["splits"]["train"]["pairs"])
"""
DATASETS = """
import csv, io, json, sys
import datasets
from PIL import Image
folder, out, workers, _ = json.loads(sys.argv[1])
datasets.disable_progress_bars()
def fit(row):
    image = row["image"]
    if min(image.size) > 256:
        scale = 256 / min(image.size)
        image = image.resize([round(n * scale) for n in image.size], Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    return {"image": {"bytes": file.getvalue(), "path": None}}
rows = list(csv.DictReader(open(f"{folder}/pairs.csv")))
columns = {"image": [f"{folder}/{row['image']}" for row in rows], "caption": [row["caption"] for row in rows]}
data = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
made = data.map(fit, num_proc=workers if workers > 1 else None, cache_file_name=f"{out}.arrow")
print(len(made))
"""
IMG2DATASET = """
import csv, importlib.util, io, json, multiprocessing, os, sys, tarfile
from pathlib import Path
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
resizer = Path(importlib.util.find_spec("img2dataset").submodule_search_locations[0]) / "resizer.py"
spec = importlib.util.spec_from_file_location("resizer", resizer)  # the package itself imports wandb and more
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
folder, out, workers, size = json.loads(sys.argv[1])
resize = module.Resizer(256, "keep_ratio", True, encode_quality=95, encode_format="jpg")
def shard(task):
    number, rows = task
    done = 0
    with tarfile.open(f"{out}-{number:05d}.tar", "w") as archive:
        for row in rows:
            image, _, _, _, _, error = resize(io.BytesIO(Path(f"{folder}/{row['image']}").read_bytes()))
            if error:
                continue
            for kind, data in (("jpg", image), ("txt", row["caption"].encode())):
                member = tarfile.TarInfo(f"{row['id']}.{kind}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
            done += 1
    return done
rows = list(csv.DictReader(open(f"{folder}/pairs.csv")))
tasks = list(enumerate(rows[at : at + size] for at in range(0, len(rows), size)))
if workers == 1:
    done = sum(map(shard, tasks))
else:
    with multiprocessing.Pool(workers) as pool:
        done = sum(pool.imap(shard, tasks))
print(done)
"""


def make_source(images: Path, folder: Path, pairs: int) -> None:
    """A table of a folder's first images, reached by links; each is read once, so that none is on the disk alone."""
    (folder / "images").mkdir()
    with (folder / "pairs.csv").open("w", newline="") as handle:
        out = csv.writer(handle)
        out.writerow(("id", "image", "caption", "split"))
        for number, path in enumerate(sorted(path for path in images.iterdir() if path.is_file())[:pairs]):
            path.read_bytes()
            (folder / "images" / f"{number}{path.suffix}").symlink_to(path.resolve())
            out.writerow((number, f"images/{number}{path.suffix}", f"An image for the benchmark, {number}", "train"))


def processes(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = [
            int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()
        ]
    except OSError:
        return [pid]
    return [pid, *(descendant for child in children for descendant in processes(child))]


def memory(pid: int) -> float:
    """Megabytes; pages that several processes share count once."""
    total = 0
    for process in processes(pid):
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:  # it has just ended
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024


def measure(python: str, script: str, folder: Path, workers: int) -> tuple[float, float]:
    """Pairs/s and peak megabytes of one run in a fresh process."""
    compiled = {"PYTHONPYCACHEPREFIX": f"{folder}/compiled", "PYTHONDONTWRITEBYTECODE": ""}
    with tempfile.TemporaryDirectory() as out:
        path = Path(out) / "run.py"
        path.write_text(script)
        arguments = [python, path, json.dumps([str(folder), f"{out}/made", workers, PAIRS_PER_SHARD])]
        start, peak = time.perf_counter(), 0.0
        with subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **compiled}
        ) as run:
            while run.poll() is None:
                peak = max(peak, memory(run.pid))
                time.sleep(0.05)
            seconds = time.perf_counter() - start
            if run.returncode:
                raise SystemExit(f"{python} failed: run it with its errors shown.\n{script}")
            return int(run.stdout.read().split()[-1]) / seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder of images")
    parser.add_argument("--peers", required=True, help="the Python in which the others are installed")
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    runs = {
        "medclip": (sys.executable, MEDCLIP),
        "datasets": (arguments.peers, DATASETS),
        "img2dataset": (arguments.peers, IMG2DATASET),
    }
    folder = Path(tempfile.mkdtemp())
    try:
        make_source(arguments.images, folder, arguments.pairs)
        for workers in (1, 2):
            results: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
            for round_number in range(arguments.rounds + 1):
                for name, (python, script) in runs.items():
                    result = measure(python, script, folder, workers)
                    results[name] += [result] if round_number else []
            ours = np.array(results["medclip"])
            for name, values in results.items():
                speed, peak = np.array(values).T
                ratio = ours[:, 0] / speed
                print(
                    f"{workers} processes, {name:>11}: {np.median(speed):6.0f} pairs/s, {np.median(peak):5.0f} MB; "
                    f"medclip is {np.median(ratio):.2f} times as fast ({ratio.min():.2f}–{ratio.max():.2f})",
                    flush=True,
                )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

"""Preparing the same images by us, by `datasets.map` and by img2dataset's resizer.

All make JPEGs of quality 95 whose shorter side is at most 256. `datasets.map` runs the same Pillow calls as we do and
writes Arrow; img2dataset's resizer is OpenCV's ("area", its default) and fills tar archives. We alone find color images
that are gray, check captions and ids, count what fails, hash every image and fsync. Whole processes.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from performance.models import choose_images, write_pairs
from performance.record import Bounds, Comparison, Result, Usage, in_turn, ratios, run

PAIRS, MANY_PAIRS = 1000, 5000
MEDCLIP = """
import sys, time
from pathlib import Path
from medclip.data import prepare as module
module.SHARD_PAIRS = 128  # what img2dataset's archives hold here
dataset = module.prepare(sys.argv[1] + "/pairs.csv", Path(sys.argv[2]), num_workers=int(sys.argv[3]))
print(time.process_time(), dataset["splits"]["train"]["pairs"])
"""
DATASETS = """
import csv, io, json, sys
import datasets
from PIL import Image
folder, out = sys.argv[1:3]
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
made = data.map(fit, cache_file_name=f"{out}.arrow")
print(len(made))
"""
IMG2DATASET = """
import csv, importlib.util, io, json, os, sys, tarfile
from pathlib import Path
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
resizer = Path(importlib.util.find_spec("img2dataset").submodule_search_locations[0]) / "resizer.py"
spec = importlib.util.spec_from_file_location("resizer", resizer)  # the package itself imports wandb and more
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
folder, out, size = *sys.argv[1:3], 128
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
print(sum(map(shard, tasks)))
"""


def measure(bounds: Bounds) -> Iterator[Result]:
    files = choose_images(bounds, MANY_PAIRS)
    few, many = files[: bounds.size(PAIRS)], files[: bounds.size(MANY_PAIRS)]
    source = write_pairs(few, bounds.folder / "few").parent
    scripts = {
        "ours": (sys.executable, MEDCLIP),
        "`datasets.map` with the same Pillow calls": (bounds.peers, DATASETS),
        "img2dataset's resizer (OpenCV)": (bounds.peers, IMG2DATASET),
    }
    two = write_pairs(few[:2], bounds.folder / "two").parent
    for script in scripts.values():
        prepare(*script, bounds, two)  # compiles modules
    runs = in_turn(bounds.rounds, {name: partial(prepare, *script, bounds, source) for name, script in scripts.items()})
    assert all(int(usages[0].output.split()[-1]) == len(few) for usages in runs.values())
    megabytes = sum(path.stat().st_size for path in few) / 1e6
    for peer in list(scripts)[1:]:
        for cost, field, goal in (("processor time", "seconds", 1.2), ("peak memory", "peak_mb", None)):
            yield Comparison(
                f"preparation of {len(few):,} images, one process", peer, ratios(runs[peer], runs["ours"], field), cost,
                goal=goal, checked="the number of images", limit=f"{megabytes:.0f} MB decoded, resized, encoded",
            )  # fmt: skip
    source = write_pairs(many, bounds.folder / "many").parent
    script = scripts["ours"]
    runs = in_turn(1, {str(n): partial(prepare, *script, bounds, source, n) for n in (1, 2)})
    (one,), (two,) = runs["1"], runs["2"]
    parent = float(two.output.split()[0])
    path = parent + (two.seconds - parent) / 2
    yield Comparison(
        f"preparation of {len(many):,} images, two workers", "one worker", [one.seconds / path],
        "processor time of the longest path, that of workers halved", goal=1, checked="the number of images",
    )  # fmt: skip


def prepare(python: str, script: str, bounds: Bounds, source: Path, workers: int = 1) -> Usage:
    """One run into a new folder."""
    with tempfile.TemporaryDirectory(dir=bounds.folder) as out:
        return run([python, "-c", script, source, f"{out}/made", workers], cores=workers)

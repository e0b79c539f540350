"""How fast images come: our reader, WebDataset and a loop over files, in turn on the same images.

    python benchmarks/loader.py --data DATA [--count 2048] [--rounds 5]     (pip install webdataset; it needs no torch)

Each gives the first COUNT training images once, shuffled, as batches u8 (128, 224, 224, 3), squeezed to the square
with bicubic interpolation; every round checks that all gave the same pixels. "one thread" is ours without its threads:
WebDataset and the loop have one as well (WebDataset gets processes from torch's DataLoader, which is not used here).
WebDataset shuffles within 1,000 images, the others over all. Prints images/s and CPU microseconds an image of each
(median, range over rounds), the ratio of each one's images/s to WebDataset's in the same round, and how many single
rows/s the Arrow shards give at random places.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

from medclip.data.dataset import Split
from medclip.encode.decode import decode_pixels
from medclip.training.data import SplitImages, cache_pixels, rows_at

BATCH, SIDE, ROWS = 128, 224, 10_000
SQUARE = {"size": {"height": SIDE, "width": SIDE}, "do_center_crop": False, "resample": 3}


def open_image(image: io.BytesIO | Path) -> np.ndarray:
    """What a user without a reader writes."""
    with Image.open(image) as opened:
        return np.asarray(opened.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def ours(images: SplitImages | np.ndarray, seed: int) -> Iterator[np.ndarray]:
    for step in range(len(images) // BATCH):
        yield np.asarray(images[rows_at(len(images), BATCH, seed, step)])


def one_thread(split: Split, seed: int) -> Iterator[np.ndarray]:
    for step in range(len(split) // BATCH):
        yield np.stack([decode_pixels(split.image(row), SQUARE) for row in rows_at(len(split), BATCH, seed, step)])


def from_tar(path: Path, seed: int) -> Iterator[np.ndarray]:
    images = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False).shuffle(1000, seed=seed)
    yield from images.map(lambda row: open_image(io.BytesIO(row["jpg"]))).batched(BATCH, collation_fn=np.stack)


def from_files(folder: Path, seed: int) -> Iterator[np.ndarray]:
    files = sorted(folder.iterdir())
    order = np.random.default_rng(seed).permutation(len(files))
    for start in range(0, len(files), BATCH):
        yield np.stack([open_image(files[i]) for i in order[start : start + BATCH]])


def write_out(split: Split, folder: Path) -> tuple[Path, Path]:
    """The images as files, and as a tar."""
    files, tar = folder / "files", folder / "images.tar"
    files.mkdir()
    with tarfile.open(tar, "w") as out:
        for row in range(len(split)):
            (files / f"{row:06}.jpg").write_bytes(split.image(row))
            out.add(files / f"{row:06}.jpg", f"{row:06}.jpg")
    return files, tar


def print_range(name: str, values: np.ndarray, digits: int = 0) -> None:
    summary = {"median": np.median(values), "low": values.min(), "high": values.max()}
    print(json.dumps({name: {key: round(float(value), digits) for key, value in summary.items()}}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    split = Split(args.data, "train", args.count // BATCH * BATCH)
    images = SplitImages(split, SQUARE)
    pixels = cache_pixels(images)
    with tempfile.TemporaryDirectory() as folder:
        files, tar = write_out(split, Path(folder))
        readers = {
            "ours, decoded when indexed": lambda seed: ours(images, seed),
            "ours, decoded once": lambda seed: ours(pixels, seed),
            "ours, one thread": lambda seed: one_thread(split, seed),
            "WebDataset": lambda seed: from_tar(tar, seed),
            "loop over files": lambda seed: from_files(files, seed),
        }
        rates: dict[str, list[float]] = {name: [] for name in readers}
        work: dict[str, list[float]] = {name: [] for name in readers}
        single: list[float] = []
        for number in range(args.rounds):
            sums = set()
            for name, read in readers.items():
                start, busy, total = time.monotonic(), time.process_time(), 0
                for batch in read(number):
                    total += int(batch.sum(dtype=np.int64))
                rates[name].append(len(split) / (time.monotonic() - start))
                work[name].append(1e6 * (time.process_time() - busy) / len(split))
                sums.add(total)
            assert len(sums) == 1, sums
            rows = np.random.default_rng(number).integers(0, len(split), ROWS).tolist()
            start = time.monotonic()
            for row in rows:
                split.image(row)
            single.append(ROWS / (time.monotonic() - start))
    print(json.dumps({"images": len(split), "bytes each": round(sum(map(len, map(split.image, rows))) / ROWS)}))
    for name, values in rates.items():
        print_range(f"{name}, images/s", np.array(values))
        print_range(f"{name}, CPU us", np.array(work[name]))
    for name, values in rates.items():
        print_range(f"{name} / WebDataset", np.array(values) / rates["WebDataset"], 2)
    print_range("single rows/s", np.array(single))


if __name__ == "__main__":
    main()

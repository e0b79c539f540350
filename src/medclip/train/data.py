"""Order is a function of (seed, step): the same rows whatever the workers, restarts or machines; and their pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from medclip.atomic_io import whole_file
from medclip.data.dataset import Split
from medclip.encode.decode import fill_pixels
from medclip.encode.encoder import split_pixels
from medclip.progress import progress


def rows_at(n: int, batch: int, seed: int, step: int) -> np.ndarray:
    """Row numbers i64 (batch,) of a step: each epoch is a fresh permutation of n rows, its remainder left out.

    Needs 1 <= batch <= n. The array is a view of the epoch's order and cannot be written to.
    """
    epoch, place = divmod(step, n // batch)
    return _order(n, seed, epoch)[place * batch : (place + 1) * batch]


@lru_cache(maxsize=1)
def _order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Drawn once an epoch and kept, 8 bytes a pair: of all n! orders each is equally likely.

    25 million take 1 s and 200 MB. An order computed row by row (a Feistel network that walks its cycles, Black and
    Rogaway 2002) needs no memory but 0.8 ms for 4,096 rows: over an epoch more time, for one of few possible orders.
    """
    order = np.random.default_rng((seed, epoch)).permutation(n)
    order.flags.writeable = False
    return order


class Pictures:
    """The images of a split, fitted to a model's square where they are asked for: `pictures[rows]`."""

    def __init__(self, split: Split, preprocessor: Mapping[str, Any]):
        self.split, self.preprocessor = split, preprocessor
        self.read_pixels = partial(split_pixels, split, preprocessor=preprocessor)
        self.shape = (len(split), *self.read_pixels(0).shape)
        """(n, s, s, 3), of u8."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Pixels u8 (*rows.shape, s, s, 3) of those rows, decoded in threads."""
        rows = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        pixels = np.empty((rows.size, *self.shape[1:]), np.uint8)
        return fill_pixels(pixels, rows.ravel().tolist(), self.read_pixels).reshape(*rows.shape, *self.shape[1:])


def decoded(pictures: Pictures, into: np.ndarray) -> np.ndarray:
    """`into` u8 (m, s, s, 3), filled with the first m images."""
    with progress(f"decode {pictures.split.name}", len(into), "pairs") as advance:
        return fill_pixels(into, range(len(into)), pictures.read_pixels, advance)


def cache_of(pictures: Pictures) -> Path:
    """Where `cached` keeps them."""
    said = json.dumps([pictures.preprocessor, pictures.split.digest], sort_keys=True)
    digest = hashlib.sha256(said.encode()).hexdigest()
    return pictures.split.folder / "cache" / f"{pictures.split.name}-{digest[:16]}.npy"


def cached(pictures: Pictures) -> np.ndarray:
    """All images as a memory map u8 (n, s, s, 3) of DATA/cache, decoded unless they are there already."""
    path = cache_of(pictures)
    if not path.exists():
        with whole_file(path) as partial:
            kept = np.lib.format.open_memmap(partial, "w+", np.uint8, pictures.shape)
            decoded(pictures, kept).flush()
    return np.load(path, mmap_mode="r")

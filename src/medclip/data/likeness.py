"""Which pictures are the same picture, re-encoded, resized, blurred or brightened."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

# Measured on ROCO (docs/log.md): 99.4 % or more of altered copies lie within these bits and so do a few of 11 million
# pairs of different pictures, which the correlation then tells apart. The 64-bit form drowns in dark CT frames.
SIDE, MOST_BITS = 16, 24
THUMBNAIL, LEAST_CORRELATION = 32, 0.97


def difference_hash(image: bytes) -> np.ndarray:
    """Signs of the horizontal differences of a picture at 17 × 16 greys, u64 (4,)."""
    grey = np.asarray(_grey(image, (SIDE + 1, SIDE)), np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)


def near_pairs(mine: np.ndarray, theirs: np.ndarray) -> list[tuple[int, int]]:
    """Rows (i of `mine`, j of `theirs`) whose hashes differ in at most MOST_BITS bits. Time n × m, memory m."""
    found = []
    for i, own in enumerate(mine):
        bits = np.bitwise_count(own ^ theirs).sum(axis=1)
        found += [(i, int(j)) for j in np.flatnonzero(bits <= MOST_BITS)]
    return found


def alike(one: bytes, other: bytes) -> bool:
    """Whether two pictures correlate as copies do, at 32 × 32 greys."""
    a, b = (np.asarray(_grey(image, (THUMBNAIL, THUMBNAIL)), float).ravel() for image in (one, other))
    if a.std() == 0 or b.std() == 0:
        return bool(np.array_equal(a, b))
    return bool(np.corrcoef(a, b)[0, 1] >= LEAST_CORRELATION)


def _grey(image: bytes, size: tuple[int, int]) -> Image.Image:
    with Image.open(io.BytesIO(image)) as opened:
        return opened.convert("L").resize(size, Image.Resampling.BOX)

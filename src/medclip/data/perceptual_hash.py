"""Which images are the same image, re-encoded, resized, blurred or brightened."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

# Measured on ROCO (docs/log.md): 99.4 % or more of altered copies lie within these bits and so do a few of 11 million
# pairs of different images, which the correlation then tells apart. The 64-bit form drowns in dark CT frames.
SIDE, MOST_BITS = 16, 24
THUMBNAIL, LEAST_CORRELATION = 32, 0.97


@dataclass(frozen=True)
class Fingerprints:
    """What images look like, row by row: as much as telling copies from others takes."""

    hashes: np.ndarray
    """u64 (n, 4): signs of the horizontal differences at 17 × 16 greys."""
    thumbnails: np.ndarray
    """u8 (n, 1024): 32 × 32 greys."""

    def __getitem__(self, rows: slice) -> Fingerprints:
        return Fingerprints(self.hashes[rows], self.thumbnails[rows])


def fingerprint(image: bytes) -> tuple[np.ndarray, np.ndarray]:
    """A row of `Sketches`: hash u64 (4,) and thumbnail u8 (1024,) of an encoded image."""
    with Image.open(io.BytesIO(image)) as opened:
        grey = opened.convert("L")
    small = np.asarray(grey.resize((SIDE + 1, SIDE), Image.Resampling.BOX))
    thumbnail = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    return np.packbits(small[:, 1:] > small[:, :-1]).view(np.uint64), thumbnail.ravel()


def near_duplicates(mine: Fingerprints, theirs: Fingerprints, within: bool = False) -> Iterator[tuple[int, np.ndarray]]:
    """Each row of `mine` with the rows of `theirs` that show the same image, in ascending order; often none.

    The same means at most MOST_BITS bits of the hash apart and a correlation of LEAST_CORRELATION or more. `within`:
    both are one collection, and a row is compared with those before it alone. Time n × m, memory m.
    """
    for row in range(len(mine.hashes)):
        others = theirs[:row] if within else theirs
        bits = np.bitwise_count(mine.hashes[row] ^ others.hashes).sum(axis=1, dtype=np.uint16)
        close = np.flatnonzero(bits <= MOST_BITS)
        yield row, close[_correlate(mine.thumbnails[row], others.thumbnails[close])]


def _correlate(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which rows correlate with one as copies do; images of a single grey only where they are equal."""
    mine, theirs = (v - v.mean(axis=-1, keepdims=True) for v in (one.astype(np.float32), others.astype(np.float32)))
    norms = np.linalg.norm(theirs, axis=1) * np.linalg.norm(mine)
    return np.where(norms > 0, theirs @ mine >= LEAST_CORRELATION * norms, (others == one).all(axis=1))

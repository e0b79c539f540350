"""Which images show the same, re-encoded, resized, blurred or brightened: perceptual hashes and thumbnails."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8, UInt64
from PIL import Image

# Measured on ROCO (docs/log.md): 99.4 % or more of altered copies lie within these bits, and so do a few of 11 million
# pairs of different images, which the correlation then rejects. A 64-bit hash collides too often on dark CT frames.
HASH_SIDE = 16
MAX_HASH_DISTANCE = 24
"""Bits."""
THUMBNAIL_SIDE = 32
MIN_CORRELATION = 0.97


@dataclass(frozen=True)
class Fingerprints:
    """Perceptual hashes and thumbnails of images, row by row: enough to detect copies."""

    hashes: UInt64[np.ndarray, "n 4"]
    """Signs of the horizontal differences of 17 × 16 grays (difference hash, 256 bits)."""
    thumbnails: UInt8[np.ndarray, "n 1024"]
    """32 × 32 grays."""

    def __getitem__(self, rows: slice) -> Fingerprints:
        return Fingerprints(self.hashes[rows], self.thumbnails[rows])


def fingerprint(image: bytes) -> tuple[UInt64[np.ndarray, " 4"], UInt8[np.ndarray, " 1024"]]:
    """One row of `Fingerprints`: hash and thumbnail of an encoded image."""
    with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as opened:
        gray = opened.convert("L")
    small = np.asarray(gray.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX))
    thumbnail = np.asarray(gray.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX))
    return np.packbits(small[:, 1:] > small[:, :-1]).view(np.uint64), thumbnail.ravel()


def near_duplicates(
    queries: Fingerprints, references: Fingerprints, within: bool = False
) -> Iterator[tuple[int, np.ndarray]]:
    """Each row of `queries` with the rows of `references` that show the same image, ascending; often none.

    The same means a Hamming distance of at most MAX_HASH_DISTANCE and a correlation of at least MIN_CORRELATION.
    `within`: both are one collection, and a row is compared only with those before it. Time n × m, memory m.
    """
    for row in range(len(queries.hashes)):
        earlier = references[:row] if within else references
        distances = np.bitwise_count(queries.hashes[row] ^ earlier.hashes).sum(axis=1, dtype=np.uint16)
        close = np.flatnonzero(distances <= MAX_HASH_DISTANCE)
        yield row, close[_correlates(queries.thumbnails[row], earlier.thumbnails[close])]


def _correlates(query: UInt8[np.ndarray, " 1024"], references: UInt8[np.ndarray, "n 1024"]) -> Bool[np.ndarray, " n"]:
    """Which references correlate with the query as copies do; images of a single gray only where they are equal."""
    q, r = (v - v.mean(axis=-1, keepdims=True) for v in (query.astype(np.float32), references.astype(np.float32)))
    norms = np.linalg.norm(r, axis=1) * np.linalg.norm(q)
    return np.where(norms > 0, r @ q >= MIN_CORRELATION * norms, (references == query).all(axis=1))

"""Which images show the same, re-encoded, resized, blurred or brightened: perceptual hashes and thumbnails."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, UInt8, UInt64
from PIL import Image

from medclip.data.images import decode

# Measured on ROCO (docs/log.md): 99.4 % or more of altered copies lie within these bits, and so do a few of 11 million
# pairs of different images, which the correlation then rejects. A 64-bit hash collides too often on dark CT frames.
HASH_SIDE = 16
MAX_HASH_DISTANCE = 24
"""Bits."""
THUMBNAIL_SIDE = 32
MIN_CORRELATION = 0.97

# Multi-index hashing (Norouzi, Punjani & Fleet 2012): bit i lies in band i % 13, as neighbors say almost the same. Two
# hashes within 24 bits differ in at most one bit of one of the first 12 bands or in none of the last: 12 × 2 + 1 > 24.
NUM_BANDS = 13
BAND_BITS = 20
assert 2 * (NUM_BANDS - 1) + 1 > MAX_HASH_DISTANCE and NUM_BANDS * BAND_BITS >= HASH_SIDE**2
MIN_BUCKET_ROWS = 20_000
"""Fewer rows are compared faster than they are sorted into buckets."""
SCANS_PER_GATHER = 32
"""As many rows are compared in order in the time of one that a bucket names."""
BLOCK_ROWS = 8192


@dataclass(frozen=True)
class Fingerprints:
    """Perceptual hashes and thumbnails of images, row by row: enough to detect copies."""

    hashes: UInt64[np.ndarray, "n 4"]
    """Signs of the horizontal differences of 17 × 16 grays (difference hash, 256 bits)."""
    thumbnails: UInt8[np.ndarray, "n 1024"]
    """32 × 32 grays."""

    @classmethod
    def empty(cls, num_rows: int) -> Fingerprints:
        """Rows to be filled."""
        return cls(np.empty((num_rows, 4), np.uint64), np.empty((num_rows, THUMBNAIL_SIDE**2), np.uint8))


def fingerprint(image: bytes) -> tuple[UInt64[np.ndarray, " 4"], UInt8[np.ndarray, " 1024"]]:
    """One row of `Fingerprints`: hash and thumbnail of an encoded image. Raises ImageError."""
    gray = decode(image).convert("L")
    small = np.asarray(gray.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX))
    thumbnail = np.asarray(gray.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX))
    return np.packbits(small[:, 1:] > small[:, :-1]).view(np.uint64), thumbnail.ravel()


def near_duplicates(
    queries: Fingerprints, references: Fingerprints, within: bool = False
) -> Iterator[tuple[int, Iterator[int]]]:
    """Each row of `queries` with the rows of `references` that show the same image, ascending; often none.

    The same means a Hamming distance of at most MAX_HASH_DISTANCE and a correlation of at least MIN_CORRELATION.
    `within`: both are one collection, and a row is compared only with those before it. References are compared when
    they are drawn: who needs the first alone draws one. Memory m.
    """
    words = np.ascontiguousarray(references.hashes.T)
    buckets = _fill_buckets(references.hashes) if words.shape[1] >= MIN_BUCKET_ROWS else None
    for row, keys in enumerate(_band_keys(queries.hashes)):
        candidates = _in_buckets(buckets, keys) if buckets else None
        if candidates is None:
            first, second = (np.bitwise_count(words[i] ^ queries.hashes[row, i]) for i in (0, 1))
            candidates = np.flatnonzero(first + second <= MAX_HASH_DISTANCE)
        yield row, _copies(queries, row, references, candidates[candidates < row] if within else candidates)


@dataclass(frozen=True)
class _Buckets:
    """The rows of a collection by the bits of a band."""

    starts: Int32[np.ndarray, " k"]
    """Of the bucket of each key in `rows`; it ends where the next one starts."""
    rows: Int32[np.ndarray, " m"]
    """Band by band, ascending in each bucket."""


def _band_keys(hashes: UInt64[np.ndarray, "n 4"]) -> Int32[np.ndarray, "n 13"]:
    """The bits of each band as a number, that of the band above them."""
    bit = np.arange(HASH_SIDE**2)
    weights = np.zeros((len(bit), NUM_BANDS), np.float32)  # products in float32, exact up to 24 bits, are the fastest
    weights[bit, bit % NUM_BANDS] = 2.0 ** (bit // NUM_BANDS)
    keys = np.empty((len(hashes), NUM_BANDS), np.int32)
    for start in range(0, len(hashes), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        keys[block] = np.unpackbits(hashes[block].view(np.uint8), axis=1).astype(np.float32) @ weights
    return keys + (np.arange(NUM_BANDS, dtype=np.int32) << BAND_BITS)


def _fill_buckets(hashes: UInt64[np.ndarray, "n 4"]) -> _Buckets:
    keys = _band_keys(hashes)
    starts = np.zeros((NUM_BANDS << BAND_BITS) + 1, np.int32)
    np.cumsum(np.bincount(keys.ravel(), minlength=len(starts) - 1), out=starts[1:])
    rows = [np.argsort(band, kind="stable").astype(np.int32) for band in keys.T]
    return _Buckets(starts, np.concatenate(rows))


def _probes() -> tuple[np.ndarray, Int32[np.ndarray, " p"]]:
    """Which band's key to look up, with which bits flipped: each as it is, and all but the last with a bit flipped."""
    bits = np.arange(HASH_SIDE**2)
    bits = bits[bits % NUM_BANDS < NUM_BANDS - 1]
    bands = np.concatenate([np.arange(NUM_BANDS), bits % NUM_BANDS])
    return bands, np.concatenate([np.zeros(NUM_BANDS), 1 << bits // NUM_BANDS]).astype(np.int32)


PROBED_BANDS, PROBE_MASKS = _probes()


def _in_buckets(buckets: _Buckets, keys: Int32[np.ndarray, " 13"]) -> np.ndarray | None:
    """The rows of the buckets that hold every near hash, ascending; None where so many are slower than all in order."""
    probes = keys[PROBED_BANDS] ^ PROBE_MASKS
    ends = buckets.starts[probes + 1]
    counts = ends - buckets.starts[probes]
    total = int(counts.sum(dtype=np.int64))
    if total > len(buckets.rows) // NUM_BANDS // SCANS_PER_GATHER:
        return None
    return np.unique(buckets.rows[np.repeat(ends - counts.cumsum(), counts) + np.arange(total)])


def _copies(queries: Fingerprints, row: int, references: Fingerprints, candidates: np.ndarray) -> Iterator[int]:
    """The candidates that show the same image as a query."""
    for start in range(0, len(candidates), BLOCK_ROWS):
        block = candidates[start : start + BLOCK_ROWS]
        different = np.bitwise_count(references.hashes[block] ^ queries.hashes[row])
        distances = sum(different.T[1:], different.T[0].astype(np.uint16))  # faster than a sum over the axis of 4
        close = block[distances <= MAX_HASH_DISTANCE]
        if len(close):
            yield from close[_correlates(queries.thumbnails[row], references.thumbnails[close])].tolist()


def _correlates(query: UInt8[np.ndarray, " 1024"], references: UInt8[np.ndarray, "n 1024"]) -> Bool[np.ndarray, " n"]:
    """Which references correlate with the query as copies do; images of a single gray only where they are equal."""
    q, r = (v - v.mean(axis=-1, keepdims=True) for v in (query.astype(np.float32), references.astype(np.float32)))
    norms = np.linalg.norm(r, axis=1) * np.linalg.norm(q)
    return np.where(norms > 0, r @ q >= MIN_CORRELATION * norms, (references == query).all(axis=1))

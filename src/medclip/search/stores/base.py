"""Who looks for the nearest rows: here what an index asks of it, and the one that scans. The index scores them itself.

So every store gives the same scores in the same order, and a store that is not exact can only miss rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from medclip.search.filters import Filter
from medclip.search.manifest import Manifest

CHUNK = 65536  # rows scanned at once: 256 KiB of scores a query
SCANNED = 1 / 100  # of the rows: where a filter leaves no more, every store scores them all
SAME = 1e-5  # cosines in float32 by other kernels differ by less


class Rows(Protocol):
    """What a store sees of an index: see `medclip.search.index.Index`."""

    folder: Path
    contents: Manifest
    vectors: list[tuple[int, np.ndarray]]
    rows: pa.Table
    numbers: np.ndarray
    added: np.ndarray
    live: np.ndarray

    def vectors_of(self, rows: np.ndarray) -> np.ndarray:
        """The unit vectors of rows, f32 (len(rows), p)."""

    def is_current(self) -> bool:
        """Whether nobody changed the index since it was opened."""


class Store(Protocol):
    """What an index asks of a store. Rows are counted from 0 over the index's segments, deleted ones too."""

    def candidates(self, vectors: np.ndarray, count: int, allowed: np.ndarray, asked: Filter) -> list[np.ndarray]:
        """Rows that hold the `count` nearest to each unit vector of f32 (q, p), in any order, often more.

        Only rows that are `allowed`, bool (n,): those that count and are as `asked`.
        """

    def sync(self) -> None:
        """Take up what the index now holds, and let go of what it does not."""

    def drop(self) -> None:
        """Let go of everything: another store answers from now on."""


class ExactStore:
    """A scan of every row that is allowed."""

    def __init__(self, index: Rows):
        self.index = index

    def candidates(self, vectors: np.ndarray, count: int, allowed: np.ndarray, asked: Filter) -> list[np.ndarray]:
        """The nearest rows and those that tie with the last of them."""
        return scan(self.index.vectors, vectors, count, allowed)

    def sync(self) -> None:
        """It reads the index itself."""

    def drop(self) -> None:
        """It has nothing of its own."""


def scan(
    segments: list[tuple[int, np.ndarray]], vectors: np.ndarray, count: int, allowed: np.ndarray
) -> list[np.ndarray]:
    """Of the rows that are `allowed`, for each vector the nearest `count` and those that tie with the last of them."""
    rows, done = np.flatnonzero(allowed), 0
    scores = np.empty((len(vectors), len(rows)), np.float32)
    for first, segment in segments:
        for start in range(0, len(segment), CHUNK):
            part = segment[start : start + CHUNK]
            wanted = allowed[first + start : first + start + len(part)]
            kept = int(np.count_nonzero(wanted))
            if kept > len(part) / 2:  # to copy most rows would cost more than to score them all
                scores[:, done : done + kept] = (vectors @ part.T)[:, wanted]
            elif kept:
                scores[:, done : done + kept] = vectors @ part[wanted].T
            done += kept
    return [rows[_nearest(of, count)] for of in scores]


def _nearest(scores: np.ndarray, count: int) -> np.ndarray:
    if count >= len(scores):
        return np.arange(len(scores))
    last = np.partition(scores, len(scores) - count)[len(scores) - count]
    return np.flatnonzero(scores >= last - SAME)

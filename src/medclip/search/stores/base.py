"""The interface of a vector store, and the exact scan. A store gives candidates; the index scores them itself.

So every store gives the same scores in the same order, and an approximate store can only miss rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float32, Int

from medclip.search.filters import Filter
from medclip.search.manifest import Manifest

CHUNK_ROWS = 65536  # scanned at once: 256 KiB of scores a query
SCAN_FRACTION = 1 / 100  # of the rows: where a filter leaves no more, every store scans
SCORE_TOLERANCE = 1e-5  # cosines in float32 differ by less between kernels

Embeddings = Float32[np.ndarray, "q p"]
RowMask = Bool[np.ndarray, " n"]
Rows = Int[np.ndarray, " r"]
SegmentEmbeddings = tuple[int, np.ndarray]
"""The first row of a segment, counted from 0 over the index, and the segment's embeddings, f32 (rows, p)."""


@dataclass(frozen=True)
class Difference:
    """A file or collection of a store that does not hold what the index does."""

    name: str
    problem: str
    """To be read after the name."""
    rows: Rows


class IndexData(Protocol):
    """What a store reads of an index; see `medclip.search.reader.IndexReader`."""

    folder: Path
    manifest: Manifest
    segments: list[SegmentEmbeddings]
    table: pa.Table
    row_ids: np.ndarray
    added_days: np.ndarray
    live_mask: np.ndarray

    def embeddings_at(self, rows: Rows) -> Float32[np.ndarray, "r p"]:
        """Embeddings of rows."""
        ...

    def is_current(self) -> bool:
        """Whether the index is unchanged since it was opened."""
        ...


class Store(Protocol):
    """A vector store of one index. Rows are counted from 0 over the segments, deleted ones included."""

    def candidates(self, embeddings: Embeddings, count: int, mask: RowMask, filter: Filter) -> list[np.ndarray]:
        """For each query embedding the rows that hold its `count` nearest, in any order, often more.

        Only rows of `mask`, which are live and match `filter`.
        """
        ...

    def extend(self) -> None:
        """Add what the store's copy lacks of the index, before readers see its manifest."""
        ...

    def trim(self) -> None:
        """Remove what the copy has beyond the index, when its manifest is in force."""
        ...

    def drop(self) -> None:
        """Delete the store's copy."""
        ...

    def differences(self) -> Iterator[Difference]:
        """Where the store's copy is not that of the index. UserError where it cannot be read."""
        ...


class ExactStore:
    """A scan of all rows of the mask. It reads the index itself and has no copy."""

    def __init__(self, index: IndexData):
        self.index = index

    def candidates(self, embeddings: Embeddings, count: int, mask: RowMask, filter: Filter) -> list[np.ndarray]:
        """The nearest rows and those that tie with the last of them."""
        return scan(self.index.segments, embeddings, count, mask)

    def extend(self) -> None:
        """Nothing to do."""

    def trim(self) -> None:
        """Nothing to do."""

    def drop(self) -> None:
        """Nothing to do."""

    def differences(self) -> Iterator[Difference]:
        """None: there is no copy."""
        return iter(())


def scan(segments: Sequence[SegmentEmbeddings], embeddings: Embeddings, count: int, mask: RowMask) -> list[np.ndarray]:
    """For each query embedding the `count` nearest rows of the mask and those that tie with the last of them."""
    rows, done = np.flatnonzero(mask), 0
    scores = np.empty((len(embeddings), len(rows)), np.float32)
    for first, segment in segments:
        for start in range(0, len(segment), CHUNK_ROWS):
            chunk = segment[start : start + CHUNK_ROWS]
            chunk_mask = mask[first + start : first + start + len(chunk)]
            count_in_chunk = int(np.count_nonzero(chunk_mask))
            columns = slice(done, done + count_in_chunk)
            if count_in_chunk == len(chunk):
                np.matmul(embeddings, chunk.T, out=scores[:, columns])  # a copy of all scores is a fifth of the time
            elif count_in_chunk > len(chunk) / 2:  # copying most rows costs more than scoring all of them
                scores[:, columns] = (embeddings @ chunk.T)[:, chunk_mask]
            elif count_in_chunk:
                scores[:, columns] = embeddings @ chunk[chunk_mask].T
            done += count_in_chunk
    return [rows[nearest(query_scores, count)] for query_scores in scores]


def nearest(scores: Float32[np.ndarray, " r"], count: int) -> Rows:
    """Where the `count` highest of scores in float32 are, and those that exact scores may put among them."""
    if count >= len(scores):
        return np.arange(len(scores))
    last = np.partition(scores, len(scores) - count)[len(scores) - count]
    return np.flatnonzero(scores >= last - SCORE_TOLERANCE)

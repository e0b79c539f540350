"""Who looks for the nearest rows: a scan of all, faiss, or Milvus. Each names candidates; the index scores them itself.

So every store gives the same scores in the same order, and a store that is not exact can only miss rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from medclip.errors import UserError
from medclip.search.contents import EXACT
from medclip.search.where import Where

if TYPE_CHECKING:
    from medclip.search.index import Index

FAISS, MILVUS = "faiss", "milvus://"
CHUNK = 65536  # rows scanned at once: 256 KiB of scores a query
SCANNED = 1 / 100  # of the rows: where a filter leaves no more, every store scores them all
SAME = 1e-5  # cosines in float32 by other kernels differ by less


class Store(Protocol):
    """What an index asks of a store. Rows are counted from 0 over the index's segments, deleted ones too."""

    def candidates(self, vectors: np.ndarray, count: int, allowed: np.ndarray, asked: Where) -> list[np.ndarray]:
        """Rows that hold the `count` nearest to each unit vector of f32 (q, p), in any order, often more.

        Only rows that are `allowed`, bool (n,): those that count and are as `asked`.
        """

    def follow(self) -> None:
        """Take up what the index now holds, and let go of what it does not."""

    def leave(self) -> None:
        """Let go of everything: another store answers from now on."""


def known_store(said: str) -> str:
    """A store as it is written into an index; UserError for one that is not known."""
    if said in (EXACT, FAISS):
        return said
    if said.startswith(MILVUS) and len(said) > len(MILVUS):
        if "@" in said:
            raise UserError("credentials do not go into an index: set MILVUS_TOKEN and leave them out of --store.")
        return said
    raise UserError(f"--store {said}: there are exact, faiss and milvus://HOST:PORT.")


def reach(said: str) -> None:
    """UserError where a store's library is not installed or its server does not answer."""
    if said == FAISS:
        from medclip.search import quantised  # noqa: F401
    if said.startswith(MILVUS):
        from medclip.search.milvus import connected

        connected(said)


def open_store(index: Index, said: str) -> Store:
    """A store of an index. UserError where its library is not installed or its server does not answer."""
    if said == FAISS:
        from medclip.search.quantised import Quantised

        return Quantised(index)
    if said.startswith(MILVUS):
        from medclip.search.milvus import Milvus

        return Milvus(index, said)
    return Exact(index)


class Exact:
    """A scan of every row that is allowed."""

    def __init__(self, index: Index):
        self.index = index

    def candidates(self, vectors: np.ndarray, count: int, allowed: np.ndarray, asked: Where) -> list[np.ndarray]:
        """The nearest rows and those that tie with the last of them."""
        return scan(self.index.vectors, vectors, count, allowed)

    def follow(self) -> None:
        """It reads the index itself."""

    def leave(self) -> None:
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

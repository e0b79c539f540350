"""Dot products of queries with many candidates: in float32 where that is certain, else in float64. No JAX."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int64, Num

MAX_QUERIES = 512  # of which scores with all candidates are in memory at once
MAX_OPEN_SHARE = 1 / 256  # of scores that are cheaper one by one than as a whole product in float64
MAX_SQUARE = 2.0**120  # of a vector's length: float32 holds every product of two such vectors


def nearest_others(
    queries: Num[np.ndarray, "n p"], candidates: Num[np.ndarray, "m p"], own: Int[np.ndarray, "k 2"]
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """For each query the best candidate that is not its own by dot product, and its score; of equal ones the first.

    `own` says which query (its row) a candidate belongs to. The score is -inf where all do.
    """
    best, best_scores = np.empty(len(queries), np.int64), np.empty(len(queries))
    own = own[np.argsort(own[:, 0], kind="stable")]
    for rows, scores in score_blocks(queries, candidates, MAX_QUERIES):
        first, last = np.searchsorted(own[:, 0], (rows.start, rows.stop))
        best[rows], best_scores[rows] = scores.best(own[first:last] - (rows.start, 0))
    return best, best_scores


@dataclass(frozen=True)
class Scores:
    """Dot products of some queries with all candidates in float32; those that this leaves open, in float64.

    A product in float32 takes half the time, and what it says of all but a few pairs is certain.
    """

    queries: Num[np.ndarray, "n p"]
    candidates: Num[np.ndarray, "m p"]
    rough: Float32[np.ndarray, "n m"]
    error: float
    """No product in float32 is further from the exact one; infinite where it says nothing."""

    def reach(self, bar: Float64[np.ndarray, ...]) -> Bool[np.ndarray, "n m"]:
        """Which scores are at least `bar`, that of each query (n, 1) or of each candidate (m,)."""
        reached = self.rough >= np.float32(bar + self.error)
        is_open = reached != (self.rough >= np.float32(bar - self.error))
        reached[is_open] = self._exact(is_open) >= np.broadcast_to(bar, reached.shape)[is_open]
        return reached

    def best(self, left_out: Int[np.ndarray, "k 2"]) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """The best candidate of each query but those `left_out`, of equal ones the first, and its score or -inf.

        Writes over `rough`, which is as large as all scores: of a block this is asked last.
        """
        left = tuple(left_out.T)
        self.rough[left] = -np.inf
        is_open = self.rough >= np.float32(self.rough.max(axis=1, keepdims=True) - 2 * self.error)
        scores = np.full(is_open.shape, -np.inf)
        scores[is_open] = self._exact(is_open)
        scores[left] = -np.inf
        best = scores.argmax(axis=1)
        return best, scores[np.arange(len(best)), best]

    def _exact(self, is_open: Bool[np.ndarray, "n m"]) -> Float64[np.ndarray, " c"]:
        """The open scores in float64, row by row."""
        if np.count_nonzero(is_open) > MAX_OPEN_SHARE * is_open.size:
            return self._exact_product[is_open]
        return exact_scores(self.queries, self.candidates, np.argwhere(is_open))

    @cached_property
    def _exact_product(self) -> Float64[np.ndarray, "n m"]:
        return self.queries.astype(np.float64) @ self.candidates.T.astype(np.float64)


def score_blocks(
    queries: Num[np.ndarray, "n p"], candidates: Num[np.ndarray, "m p"], size: int
) -> Iterator[tuple[slice, Scores]]:
    """The scores of all queries, of `size` of them at a time.

    |fl(x·y) - x·y| ≤ γ |x||y| with γ = p u / (1 - p u) and u = 2^-24 (Higham 2002, 3.1), whatever the order of the
    sum; three more roundings are those of both vectors and of the bar.
    """
    share = (candidates.shape[1] + 3) * 2.0**-24
    with np.errstate(over="ignore"):
        squares = [np.einsum("np,np->n", v, v, dtype=np.float64).max(initial=0) for v in (queries, candidates)]
    is_in_range = max(squares) < MAX_SQUARE
    error = share / (1 - share) * np.sqrt(squares[0]) * np.sqrt(squares[1]) if is_in_range else np.inf
    columns = candidates.T.astype(np.float32) if is_in_range else candidates.T
    for start in range(0, len(queries), size):
        block = queries[start : start + size]
        rough = block.astype(np.float32) @ columns if is_in_range else np.zeros((len(block), len(candidates)), "f4")
        yield slice(start, start + size), Scores(block, candidates, rough, error)


def exact_scores(
    queries: Num[np.ndarray, "n p"], candidates: Num[np.ndarray, "m p"], pairs: Int[np.ndarray, "k 2"]
) -> Float64[np.ndarray, " k"]:
    """The products of pairs of a query and a candidate, by their rows."""
    blocks = np.array_split(pairs.T, len(pairs) // 4096 + 1, axis=1)  # of 32 MB at 1,024 numbers a vector
    vectors = ((queries[rows], candidates[columns]) for rows, columns in blocks)
    return np.concatenate(
        [np.einsum("np,np->n", *(v.astype(np.float64, copy=False) for v in both)) for both in vectors]
    )

"""Dot products of queries with many candidates: in float32 where that is certain, else in float64. No JAX."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int64, Num

from medclip.progress import Advance

TIE_TOLERANCE = 1e-9  # equal vectors get products that differ by BLAS's rounding; in float64 that is far less than this
TILE = (512, 2048)  # queries and candidates whose scores are in memory at once: 4 MB, which caches hold
MAX_OPEN_SHARE = 1 / 64  # of scores that are cheaper one by one than as a whole product in float64
MAX_UNDECIDED = 8  # scores of a query whose exact ones may decide which is the best, before they are decided
MAX_EXACT = 1024  # of them at once: 16 MB at 1,024 numbers a vector
MAX_SQUARE = 2.0**120  # of a vector's length: float32 holds every product of two such vectors


class Nearest(NamedTuple):
    """The best candidate of each query but its own, of equal ones the first, and its score: -inf where all are own."""

    candidates: Int64[np.ndarray, " n"]
    scores: Float64[np.ndarray, " n"]

    @classmethod
    def none_yet(cls, num_queries: int) -> Nearest:
        """To be raised."""
        return cls(np.zeros(num_queries, np.int64), np.full(num_queries, -np.inf))

    def raise_to(
        self, queries: Int[np.ndarray, " k"], candidates: Int[np.ndarray, " k"], scores: Float64[np.ndarray, " k"]
    ) -> None:
        """Take the candidates that are better than the best so far."""
        order = np.lexsort((candidates, -scores, queries))
        queries, first = np.unique(queries[order], return_index=True)
        best = order[first]
        better = scores[best] > self.scores[queries]
        self.candidates[queries[better]] = candidates[best[better]]
        self.scores[queries[better]] = scores[best[better]]


class NearestSoFar:
    """Raises what is nearest to each query as tiles come by: what their scores leave open is decided at the end.

    Nearly all that is the best of a tile is beaten in a later one; only what is left at the end needs float64.
    """

    def __init__(
        self,
        nearest: Nearest,
        queries: Num[np.ndarray, "n p"],
        candidates: Num[np.ndarray, "m p"],
        error: float,
    ) -> None:
        self.nearest = nearest
        self._vectors, self._error = (queries, candidates), error
        self._best = np.full(len(queries), -np.inf, np.float32)  # rough score of each query
        self._undecided: list[tuple[np.ndarray, ...]] = []

    def raise_bar(self, queries: slice, best: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
        """The rough score from which on a candidate may be the nearest, now that these are the best of a tile."""
        self._best[queries] = np.maximum(self._best[queries], best)
        return self._bar(queries)

    def _bar(self, queries: slice) -> Float32[np.ndarray, " n"]:
        rough, exact = self._best[queries].astype(np.float64), self.nearest.scores[queries]
        return np.maximum(rough - 2 * self._error, exact - self._error).astype(np.float32)

    def keep(
        self, queries: Int[np.ndarray, " k"], candidates: Int[np.ndarray, " k"], rough: Float32[np.ndarray, " k"]
    ) -> None:
        """Remember what reaches the bar."""
        self._undecided.append((queries, candidates, rough))
        if sum(len(queries) for queries, _, _ in self._undecided) > MAX_UNDECIDED * len(self._best):
            self.decide()

    def decide(self) -> None:
        """Raise by what reached the bar, and forget it."""
        if self._undecided:
            queries, candidates, rough = (np.concatenate(parts) for parts in zip(*self._undecided, strict=True))
            self._undecided.clear()
            is_left = rough >= self._bar(slice(None))[queries]
            at = queries[is_left], candidates[is_left]
            self.nearest.raise_to(*at, exact_scores(*self._vectors, at))


class Ranking(NamedTuple):
    """How queries score their own candidates, of which the best counts, and all others."""

    own_scores: Float64[np.ndarray, " n"]
    num_ahead: Int64[np.ndarray, " n"]
    """How many others stand before its own; those that tie with it do."""
    num_ahead_in_group: Int64[np.ndarray, " n"]
    """Those of them that are of the query's group."""
    nearest: Nearest

    @classmethod
    def none_yet(cls, scores_of_own: Float64[np.ndarray, " k"], query: Int[np.ndarray, " k"], n: int) -> Ranking:
        """Of n queries that nothing stands before yet. ValueError where one has no own."""
        own_scores = np.full(n, -np.inf)
        np.maximum.at(own_scores, query, scores_of_own)
        if np.isneginf(own_scores).any():
            raise ValueError("an image or a text belongs to nothing")
        return cls(own_scores, np.zeros(n, np.int64), np.zeros(n, np.int64), Nearest.none_yet(n))


def rank_both(
    images: Num[np.ndarray, "n p"],
    texts: Num[np.ndarray, "m q"],
    own: Int[np.ndarray, "k 2"],
    groups: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]] | None = None,
    advance: Advance | None = None,
) -> tuple[Ranking, Ranking]:
    """Rank texts for each image, and images for each text, by one product of both; memory is linear in n.

    `own` says which image (its row) belongs to which text. `advance` counts images. ValueError where one has no own,
    widths differ or values are not finite.
    """
    if images.shape[1:] != texts.shape[1:]:
        raise ValueError(f"images {images.shape} and texts {texts.shape} do not pair up")
    if not (np.isfinite(images).all() and np.isfinite(texts).all()):
        raise ValueError("vectors hold values that are not finite")
    scores_of_own = exact_scores(images, texts, (own[:, 0], own[:, 1]))
    to_text = Ranking.none_yet(scores_of_own, own[:, 0], len(images))
    to_image = Ranking.none_yet(scores_of_own, own[:, 1], len(texts))
    image_bar, text_bar = (ranking.own_scores - TIE_TOLERANCE for ranking in (to_text, to_image))
    error = rounding_error(images, texts)
    nearest_text = NearestSoFar(to_text.nearest, images, texts, error)
    nearest_image = NearestSoFar(to_image.nearest, texts, images, error)
    if groups:
        groups = groups[0].astype(np.int32), groups[1].astype(np.int32)  # compared in half the time
    for tile in score_tiles(images, texts, own, error):
        rows, columns = tile.rows, tile.columns
        ahead_of_image, ahead_of_text = tile.reach(image_bar[rows, None]), tile.reach(text_bar[columns])
        to_text.num_ahead[rows] += count_in_rows(ahead_of_image)
        to_image.num_ahead[columns] += count_in_columns(ahead_of_text)
        if groups:
            same = places(groups[0][rows, None] == groups[1][columns])
            counts = [np.bincount(same[0][ahead_of_image[same]], minlength=len(tile.queries)),
                      np.bincount(same[1][ahead_of_text[same]], minlength=len(tile.candidates))]  # fmt: skip
            to_text.num_ahead_in_group[rows] += counts[0]
            to_image.num_ahead_in_group[columns] += counts[1]
        tile.raise_nearest(nearest_text, nearest_image)
        if advance and columns.stop == len(texts):
            advance(len(tile.queries))
    nearest_text.decide()
    nearest_image.decide()
    return to_text, to_image


def nearest_others(vectors: Num[np.ndarray, "n p"]) -> Nearest:
    """For each vector the best other one, by half of their product with each other."""
    nearest, error = Nearest.none_yet(len(vectors)), rounding_error(vectors, vectors)
    so_far, own = NearestSoFar(nearest, vectors, vectors, error), np.repeat(np.arange(len(vectors))[:, None], 2, axis=1)
    for tile in score_tiles(vectors, vectors, own, error, upper=True):
        tile.raise_nearest(so_far, so_far)
    so_far.decide()
    return nearest


@dataclass(frozen=True)
class Scores:
    """Dot products of some queries with some candidates in float32; those that this leaves open, in float64.

    A product in float32 takes half the time, and what it says of all but a few pairs is certain.
    """

    rows: slice
    """Of all queries, these."""
    columns: slice
    queries: Num[np.ndarray, "n p"]
    candidates: Num[np.ndarray, "m p"]
    own: tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]
    """Places in `rough`, which holds -inf there: a query's own candidates are asked after elsewhere."""
    rough: Float32[np.ndarray, "n m"]
    error: float
    """No product in float32 is further from the exact one; infinite where it says nothing."""

    def reach(self, bar: Float64[np.ndarray, ...]) -> Bool[np.ndarray, "n m"]:
        """Which scores are at least `bar`, that of each query (n, 1) or of each candidate (m,)."""
        reached = self.rough >= np.float32(bar + self.error)
        is_open = self._open(reached != (self.rough >= np.float32(bar - self.error)))
        reached[is_open] = self._exact(is_open) >= np.broadcast_to(bar, reached.shape)[is_open]
        return reached

    def raise_nearest(self, of_queries: NearestSoFar, of_candidates: NearestSoFar) -> None:
        """Raise what is nearest to these queries, and to these candidates, where these scores are better."""
        bar = of_queries.raise_bar(self.rows, self.rough.max(axis=1))
        query, candidate = self._open(self.rough >= bar[:, None])
        self._raise(of_queries, (query, candidate), self.rows.start + query, self.columns.start + candidate)
        bar = of_candidates.raise_bar(self.columns, self.rough.max(axis=0))
        query, candidate = self._open(self.rough >= bar)
        self._raise(of_candidates, (query, candidate), self.columns.start + candidate, self.rows.start + query)

    def _raise(
        self,
        so_far: NearestSoFar,
        at: tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]],
        queries: Int[np.ndarray, " k"],
        candidates: Int[np.ndarray, " k"],
    ) -> None:
        if len(queries) > MAX_OPEN_SHARE * self.rough.size:
            so_far.decide()  # of equal ones the first counts
            so_far.nearest.raise_to(queries, candidates, self._exact_product[at])
        else:
            so_far.keep(queries, candidates, self.rough[at])

    def _open(self, is_open: Bool[np.ndarray, "n m"]) -> tuple[np.ndarray, np.ndarray]:
        is_open[self.own] = False
        return places(is_open)

    def _exact(self, at: tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]) -> Float64[np.ndarray, " k"]:
        """Scores in float64."""
        if len(at[0]) > MAX_OPEN_SHARE * self.rough.size:
            return self._exact_product[at]
        return exact_scores(self.queries, self.candidates, at)

    @cached_property
    def _exact_product(self) -> Float64[np.ndarray, "n m"]:
        return self.queries.astype(np.float64) @ self.candidates.T.astype(np.float64)


def rounding_error(queries: Num[np.ndarray, "n p"], candidates: Num[np.ndarray, "m p"]) -> float:
    """No product in float32 is further from the exact one than this; infinite where float32 cannot hold them all.

    |fl(x·y) - x·y| ≤ γ |x||y| with γ = p u / (1 - p u) and u = 2^-24 (Higham 2002, 3.1), whatever the order of the
    sum; three more roundings are those of both vectors and of the bar.
    """
    share = (candidates.shape[1] + 3) * 2.0**-24
    with np.errstate(over="ignore"):
        squares = [np.einsum("np,np->n", v, v, dtype=np.float64).max(initial=0) for v in (queries, candidates)]
    is_in_range = max(squares) < MAX_SQUARE
    return float(share / (1 - share) * np.sqrt(squares[0]) * np.sqrt(squares[1])) if is_in_range else np.inf


def score_tiles(
    queries: Num[np.ndarray, "n p"],
    candidates: Num[np.ndarray, "m p"],
    own: Int[np.ndarray, "k 2"],
    error: float,
    upper: bool = False,
) -> Iterator[Scores]:
    """All scores, row by row of tiles; with `upper`, those on and above the diagonal, and some below.

    `error` is their `rounding_error`.
    """
    own = own[np.argsort(own[:, 0], kind="stable")]
    for start in range(0, len(queries), TILE[0]):
        rows = slice(start, min(start + TILE[0], len(queries)))
        own_of_rows = own[slice(*np.searchsorted(own[:, 0], (rows.start, rows.stop)))]
        for first in range(start if upper else 0, len(candidates), TILE[1]):
            columns = slice(first, min(first + TILE[1], len(candidates)))
            parts = queries[rows], candidates[columns]
            if np.isfinite(error):
                left, right = (part.astype(np.float32, copy=False) for part in parts)
                rough = left @ right.T
            else:
                rough = np.zeros((len(parts[0]), len(parts[1])), np.float32)
            row, column = own_of_rows[(own_of_rows[:, 1] >= first) & (own_of_rows[:, 1] < columns.stop)].T
            own_here = row - start, column - first
            rough[own_here] = -np.inf
            yield Scores(rows, columns, *parts, own_here, rough, error)


def exact_scores(
    queries: Num[np.ndarray, "n p"],
    candidates: Num[np.ndarray, "m p"],
    at: tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]],
) -> Float64[np.ndarray, " k"]:
    """The products of pairs of a query and a candidate, by their rows."""
    scores = np.empty(len(at[0]))
    for start in range(0, len(scores), MAX_EXACT):
        some = slice(start, start + MAX_EXACT)
        both = queries[at[0][some]], candidates[at[1][some]]
        scores[some] = np.einsum("np,np->n", *(vectors.astype(np.float64, copy=False) for vectors in both))
    return scores


def count_in_rows(mask: Bool[np.ndarray, "n m"]) -> Int64[np.ndarray, " n"]:
    """`mask.sum(axis=1)`, in an eighth of its time: bits of eight columns at once."""
    return np.bitwise_count(np.packbits(mask, axis=1)).sum(axis=1, dtype=np.int64)


def count_in_columns(mask: Bool[np.ndarray, "n m"]) -> Int64[np.ndarray, " m"]:
    """`mask.sum(axis=0)`, in a tenth of its time: sums of as many rows as a byte can count."""
    bytes_, counts = mask.view(np.uint8), np.zeros(mask.shape[1], np.int64)
    for start in range(0, len(mask), 255):
        counts += np.add.reduce(bytes_[start : start + 255], axis=0, dtype=np.uint8)
    return counts


def places(mask: Bool[np.ndarray, "n m"]) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """Rows and columns where a mask is true: `numpy.nonzero`, in a seventh of its time."""
    row, column = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return row, column

"""Retrieval metrics of plain matrices and bootstrap intervals. Pure numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Num

from medclip.progress import Advance

KS = (1, 5, 10)
DIRECTIONS: tuple[str, str] = ("image_to_text", "text_to_image")
TIE_TOLERANCE = 1e-9  # equal vectors get products that differ by BLAS's rounding; in float64 that is far less than this
MAX_SCORES = 2**24  # scores in memory at once: 128 MB

Names = Sequence[str] | np.ndarray
"""A name for each row: its article, its class."""
Statistics = Callable[[np.ndarray], Mapping[str, float]]
"""Several numbers of rows (n, …), by name; NaN where one is not defined."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def ranks(
    images: Num[np.ndarray, "n p"],
    texts: Num[np.ndarray, "m q"],
    pairs: Int[np.ndarray, "k 2"] | None = None,
    advance: Advance | None = None,
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Rank (1 is best) of each image's text among all texts, i64 (n,), and of each text's image among all images.

    By dot product; ties count against the model. `pairs` i64 (k, 2) says which image (its row) belongs to which text;
    without it, row i of both is a pair. Where an image has several captions, its rank is that of the best of them, and
    its other captions do not stand before it: R@k from images to text is the share of *images* with at least one of
    their captions among the first k, and R@k from text to images the share of *captions* with their image among the
    first k, in which each image stands once. (Querying with every row of a table of pairs instead counts an image's
    other captions as misses: CLIP_benchmark#7, #48.) For example, images A and B, captions a1, a2 and b1:

        images = [[1, 0], [0, 1]], texts = [[.6, .8], [.8, .6], [.8, -.6]], pairs = [[0, 0], [0, 1], [1, 2]]

        a1   a2   b1                A's best is a2, with which b1 ties: rank 2; a1 does not matter
    A   .6   .8   .8                B's only one, b1, comes last: rank 3
    B   .8   .6  -.6                a1 ranks B before A: 2; a2 ranks A first: 1; b1 ranks A before B: 2

    gives ([2, 3], [2, 1, 2]): R@1 is 0 from images to text and 1/3 from text to images.

    Takes one product of both matrices for both directions; memory is linear in n. `advance` counts images. Raises
    ValueError on shapes that do not pair up, on rows without a partner, or values that are not finite.
    """
    if images.shape[1:] != texts.shape[1:] or (pairs is None and len(images) != len(texts)):
        raise ValueError(f"images {images.shape} and texts {texts.shape} do not pair up")
    if not (np.isfinite(images).all() and np.isfinite(texts).all()):
        raise ValueError("vectors hold values that are not finite")
    pairs = np.repeat(np.arange(len(images))[:, None], 2, axis=1) if pairs is None else np.unique(pairs, axis=0)
    images, texts = images.astype(np.float64), texts.astype(np.float64)
    blocks = np.array_split(pairs, len(pairs) // 4096 + 1)  # of 32 MB at 1,024 numbers a vector
    own = np.concatenate([np.einsum("np,np->n", images[block[:, 0]], texts[block[:, 1]]) for block in blocks])
    image_bar, image_ranks = _bars(own, pairs[:, 0], len(images))
    text_bar, text_ranks = _bars(own, pairs[:, 1], len(texts))
    size = max(1, MAX_SCORES // len(texts))
    for start in range(0, len(images), size):
        rows = slice(start, start + size)
        scores = images[rows] @ texts.T
        image_ranks[rows] += (scores >= image_bar[rows, None]).sum(axis=1)
        text_ranks += (scores >= text_bar).sum(axis=0)
        if advance:
            advance(len(scores))
    return image_ranks, text_ranks


def _bars(own: np.ndarray, query: np.ndarray, num_queries: int) -> tuple[np.ndarray, np.ndarray]:
    """The score that a candidate must reach to stand before each query's own, and the rank before any is counted.

    The own candidates that reach it are counted with the others later, so the rank starts that much lower.
    """
    best = np.full(num_queries, -np.inf)
    np.maximum.at(best, query, own)
    if np.isneginf(best).any():
        raise ValueError("an image or a text belongs to nothing")
    bar = best - TIE_TOLERANCE
    return bar, 1 - np.bincount(query[own >= bar[query]], minlength=num_queries)


def recall_at_k(ranks: Int[np.ndarray, ...], k: int) -> float:
    """Share of ranks of at most k."""
    return float((ranks <= k).mean())


def rank_metrics(ranks: Int[np.ndarray, " n"]) -> dict[str, float]:
    """R@1, R@5, R@10, median, mean and geometric mean rank, and MRR, the mean of 1/rank."""
    return {
        **{f"R@{k}": recall_at_k(ranks, k) for k in KS},
        "median_rank": float(np.median(ranks)),
        "mean_rank": float(ranks.mean()),
        "geometric_mean_rank": float(np.exp(np.log(ranks).mean())),
        "MRR": float((1 / ranks).mean()),
    }


def chance_metrics(num_candidates: Int[np.ndarray, " n"], num_relevant: Int[np.ndarray, " n"]) -> dict[str, float]:
    """The `rank_metrics` to expect of a random order, for query i with num_relevant[i] right among num_candidates[i].

    The first of R right ones among N stands behind rank r with probability (N-R)/N · (N-R-1)/(N-1) · … (r factors).
    """
    rank = np.arange(1, num_candidates.max() + 1)
    probability = np.zeros(len(rank))
    cases, counts = np.unique(np.stack([num_candidates, num_relevant], axis=1), axis=0, return_counts=True)
    for (n, right), share in zip(cases, counts / len(num_candidates), strict=True):
        behind = np.cumprod(np.maximum(n - right - rank + 1, 0) / np.maximum(n - rank + 1, 1))
        probability += share * -np.diff(behind, prepend=1)
    cumulative = np.cumsum(probability)
    middle = np.searchsorted(cumulative, [0.5 - TIE_TOLERANCE, 0.5 + TIE_TOLERANCE]) + 1
    return {
        **{f"R@{k}": float(cumulative[min(k, len(rank)) - 1]) for k in KS},
        "median_rank": float(middle.mean()),
        "mean_rank": float(probability @ rank),
        "geometric_mean_rank": float(np.exp(probability @ np.log(rank))),
        "MRR": float(probability @ (1 / rank)),
    }


def retrieval_metrics(
    images: Num[np.ndarray, "n p"], texts: Num[np.ndarray, "n p"], articles: Sequence[str], seed: int
) -> dict[str, dict[str, Estimate]]:
    """`rank_metrics` with intervals, by direction; row i of both is a pair."""
    both = zip(DIRECTIONS, ranks(images, texts), strict=True)
    return {direction: estimates(own, articles, rank_metrics, seed) for direction, own in both}


def estimate(
    values: Num[np.ndarray, "n ..."],
    groups: Names,
    statistic: Callable[[np.ndarray], float],
    seed: int,
) -> Estimate:
    """`statistic(values)` with its 95 % percentile bootstrap interval, whole groups (articles) resampled together.

    Images of one article resemble each other; resampling single rows would claim too much
    (Field & Welsh 2007, cluster bootstrap).
    """
    return estimates(values, groups, lambda rows: {"": statistic(rows)}, seed)[""]


def estimates(
    values: Num[np.ndarray, "n ..."], groups: Names, statistics: Statistics, seed: int, resamples: int = 1000
) -> dict[str, Estimate]:
    """The same for several statistics of the same resamples, by name.

    A statistic that is not defined (NaN) is absent; resamples in which it is not defined are left out of its interval.
    """
    resampled = [statistics(np.repeat(values, counts, axis=0)) for counts in resample_counts(groups, seed, resamples)]
    return percentile_ci(statistics(values), resampled)


def resample_counts(groups: Names, seed: int, resamples: int) -> Iterator[Int[np.ndarray, " n"]]:
    """How often each row is in each resample of whole groups, i64 (n,)."""
    _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    rng, count = np.random.default_rng(seed), group.max() + 1
    for _ in range(resamples):
        yield np.bincount(rng.integers(0, count, count), minlength=count)[group]


def percentile_ci(values: Mapping[str, float], resampled: Sequence[Mapping[str, float]]) -> dict[str, Estimate]:
    """Values with the 2.5th and the 97.5th percentile of the resamples; undefined ones are left out."""
    samples = np.array([list(sample.values()) for sample in resampled], float).T
    result = {}
    for (name, value), sample in zip(values.items(), samples, strict=True):
        if not np.isnan(value):
            low, high = np.percentile(sample[~np.isnan(sample)], (2.5, 97.5))
            result[name] = Estimate(float(value), float(low), float(high))
    return result

"""Retrieval metrics on plain matrices, with intervals. Pure numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from medclip.progress import Advance

KS = (1, 5, 10)
WAYS = ("image_to_text", "text_to_image")
TIE = 1e-9  # equal vectors get products that differ by BLAS's rounding; in float64 that is far less than this
AT_ONCE = 2**24  # scores in memory at once: 128 MB


def ranks(
    images: np.ndarray, texts: np.ndarray, pairs: np.ndarray | None = None, advance: Advance | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rank (1 is best) of what belongs to each image among all texts, i64 (n,), and to each text among all images.

    By dot product; ties count against the model. `pairs` i64 (m, 2) says which image (its row) belongs to which text;
    left out, row i of both is a pair. Where an image has several captions, its rank is that of the best of them, and
    its other captions do not stand before it: R@k of images asking for text is the share of *images* with at least
    one of their captions among the first k, and R@k of text asking for images the share of *captions* with their
    image among the first k, in which each image stands once. (Asking with every row of a table of pairs instead
    counts an image's other captions as misses: CLIP_benchmark#7, #48.) For example, images A and B, captions a1, a2
    and b1:

        images = [[1, 0], [0, 1]], texts = [[.6, .8], [.8, .6], [.8, -.6]], pairs = [[0, 0], [0, 1], [1, 2]]

        a1   a2   b1                A's best is a2, with which b1 ties: rank 2; a1 does not matter
    A   .6   .8   .8                B's only one, b1, comes last: rank 3
    B   .8   .6  -.6                a1 finds B before A: 2; a2 finds A: 1; b1 finds A first: 2

    gives ([2, 3], [2, 1, 2]): R@1 is 0 from images to text and 1/3 from text to images.

    Takes one product of both matrices for both ways; memory is linear in n. `advance` hears of images done. Raises
    ValueError on shapes that do not pair up, on rows that belong to nothing, or values that are not finite.
    """
    if images.shape[1:] != texts.shape[1:] or (pairs is None and len(images) != len(texts)):
        raise ValueError(f"images {images.shape} and texts {texts.shape} do not pair up")
    if not (np.isfinite(images).all() and np.isfinite(texts).all()):
        raise ValueError("vectors hold values that are not finite")
    pairs = np.repeat(np.arange(len(images))[:, None], 2, axis=1) if pairs is None else np.unique(pairs, axis=0)
    images, texts = images.astype(np.float64), texts.astype(np.float64)
    own = np.concatenate([_products(images, texts, part) for part in np.array_split(pairs, len(pairs) // 4096 + 1)])
    bars, found = [], []
    for vectors, at in zip((images, texts), pairs.T, strict=True):
        best = np.full(len(vectors), -np.inf)
        np.maximum.at(best, at, own)
        if np.isneginf(best).any():
            raise ValueError("an image or a text belongs to nothing")
        bars.append(best - TIE)
        found.append(1 - np.bincount(at[own >= bars[-1][at]], minlength=len(vectors)))  # they are counted below
    size = max(1, AT_ONCE // len(texts))
    for start in range(0, len(images), size):
        rows = slice(start, start + size)
        scores = images[rows] @ texts.T
        found[0][rows] += (scores >= bars[0][rows, None]).sum(axis=1)
        found[1] += (scores >= bars[1]).sum(axis=0)
        if advance:
            advance(len(scores))
    return found[0], found[1]


def _products(images: np.ndarray, texts: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    return np.einsum("np,np->n", images[pairs[:, 0]], texts[pairs[:, 1]])


def recall_at_k(found: np.ndarray, k: int) -> float:
    """Share of ranks of at most k."""
    return float((found <= k).mean())


def rank_metrics(found: np.ndarray) -> dict[str, float]:
    """What ranks amount to: R@1, R@5, R@10, median and mean rank, and MRR, the mean of 1/rank."""
    return {
        **{f"R@{k}": recall_at_k(found, k) for k in KS},
        "median_rank": float(np.median(found)),
        "mean_rank": float(found.mean()),
        "MRR": float((1 / found).mean()),
    }


def chance(pool: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """The `rank_figures` to expect of a random order, where query i has right[i] right ones among pool[i] candidates.

    The first of R right ones among N stands behind rank r with chance (N-R)/N · (N-R-1)/(N-1) · … (r factors).
    """
    at = np.arange(1, pool.max() + 1)
    falls = np.zeros(len(at))
    kinds, queries = np.unique(np.stack([pool, right], axis=1), axis=0, return_counts=True)
    for (n, good), share in zip(kinds, queries / len(pool), strict=True):
        behind = np.cumprod(np.maximum(n - good - at + 1, 0) / np.maximum(n - at + 1, 1))
        falls += share * -np.diff(behind, prepend=1)
    reached = np.cumsum(falls)
    middle = np.searchsorted(reached, [0.5 - TIE, 0.5 + TIE]) + 1
    return {
        **{f"R@{k}": float(reached[min(k, len(at)) - 1]) for k in KS},
        "median_rank": float(middle.mean()),
        "mean_rank": float(falls @ at),
        "MRR": float(falls @ (1 / at)),
    }


def retrieval_metrics(images: np.ndarray, texts: np.ndarray, articles: Sequence[str], seed: int) -> dict[str, Any]:
    """`rank_figures` of images asking for captions and of captions asking for images, with intervals; the pool."""
    found = zip(WAYS, ranks(images, texts), strict=True)
    return {"pool": len(images)} | {way: intervals(own, articles, rank_metrics, seed) for way, own in found}


def interval(
    values: np.ndarray, groups: Sequence[str], measure: Callable[[np.ndarray], float], seed: int, resamples: int = 1000
) -> dict[str, float]:
    """`measure(values)` with its 95 % percentile bootstrap interval, whole groups (articles) resampled together.

    Images of one article resemble each other; resampling single rows would claim too much
    (Field & Welsh 2007, cluster bootstrap).
    """
    return intervals(values, groups, lambda drawn: {"": measure(drawn)}, seed, resamples)[""]


def intervals(
    values: np.ndarray,
    groups: Sequence[str],
    measure: Callable[[np.ndarray], dict[str, float]],
    seed: int,
    resamples: int = 1000,
) -> dict[str, Any]:
    """The same for several figures of the same resamples, by name.

    A figure that is not defined (NaN) is None; resamples in which it is not defined are left out of its interval.
    """
    drawn = [measure(np.repeat(values, times, axis=0)) for times in resampled(groups, seed, resamples)]
    return percentile_ci(measure(values), drawn)


def resampled(groups: Sequence[str], seed: int, resamples: int = 1000) -> Iterator[np.ndarray]:
    """How often each row is in each resample of whole groups, i64 (n,)."""
    _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    rng, count = np.random.default_rng(seed), group.max() + 1
    for _ in range(resamples):
        yield np.bincount(rng.integers(0, count, count), minlength=count)[group]


def percentile_ci(values: dict[str, float], drawn: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Figures with the 2.5th and the 97.5th percentile of what resamples gave; None for one that is not defined."""
    samples = np.array([list(one.values()) for one in drawn], float).T
    found: dict[str, Any] = {}
    for (name, value), sample in zip(values.items(), samples, strict=True):
        if np.isnan(value):
            found[name] = None
            continue
        low, high = np.percentile(sample[~np.isnan(sample)], (2.5, 97.5))
        found[name] = {"value": float(value), "low": float(low), "high": float(high)}
    return found

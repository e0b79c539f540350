"""Retrieval metrics on plain matrices, with intervals. Pure numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

KS = (1, 5, 10)
_CHUNK = 512
_TIE = 1e-9  # equal vectors get products that differ by BLAS's rounding; in float64 that is far less than this


def ranks(queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Rank (1 is best) of candidate i for query i, i64 (n,), by dot product; ties count against the model.

    Memory is linear in n. With queries [[1, 0], [0, 1]] and candidates [[1, 0], [1, 0]] the ranks are [2, 2].
    Raises ValueError on unequal lengths or values that are not finite.
    """
    if queries.shape != candidates.shape:
        raise ValueError(f"queries {queries.shape} and candidates {candidates.shape} do not pair up")
    if not (np.isfinite(queries).all() and np.isfinite(candidates).all()):
        raise ValueError("vectors hold values that are not finite")
    found, exact = np.empty(len(queries), np.int64), candidates.T.astype(np.float64)
    for start in range(0, len(queries), _CHUNK):
        scores = queries[start : start + _CHUNK].astype(np.float64) @ exact
        own = scores[np.arange(len(scores)), np.arange(start, start + len(scores))]
        found[start : start + _CHUNK] = (scores >= own[:, None] - _TIE).sum(axis=1)
    return found


def recall_at(found: np.ndarray, k: int) -> float:
    """Share of ranks of at most k."""
    return float((found <= k).mean())


def both_ways(images: np.ndarray, texts: np.ndarray, articles: Sequence[str], seed: int) -> dict[str, Any]:
    """`retrieval_metrics` of pictures asking for captions and of captions asking for pictures, and the pool."""
    return {
        "pool": len(images),
        "image_to_text": retrieval_metrics(ranks(images, texts), articles, seed),
        "text_to_image": retrieval_metrics(ranks(texts, images), articles, seed),
    }


def retrieval_metrics(found: np.ndarray, articles: Sequence[str], seed: int) -> dict[str, Any]:
    """R@1, R@5, R@10 and the median rank, each with a 95 % interval."""
    measures: dict[str, Callable[[np.ndarray], float]] = {f"R@{k}": lambda r, k=k: recall_at(r, k) for k in KS}
    measures["median_rank"] = lambda r: float(np.median(r))
    return {name: interval(found, articles, measure, seed) for name, measure in measures.items()}


def interval(
    values: np.ndarray, groups: Sequence[str], measure: Callable[[np.ndarray], float], seed: int, resamples: int = 1000
) -> dict[str, float]:
    """`measure(values)` with its 95 % percentile bootstrap interval, whole groups (articles) resampled together.

    Pictures of one article resemble each other; resampling single rows would claim too much
    (Field & Welsh 2007, cluster bootstrap).
    """
    _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    order = np.argsort(group, kind="stable")
    members = np.split(values[order], np.cumsum(np.bincount(group))[:-1])
    rng = np.random.default_rng(seed)
    drawn = [
        measure(np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))]))
        for _ in range(resamples)
    ]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {"value": float(measure(values)), "low": float(low), "high": float(high)}

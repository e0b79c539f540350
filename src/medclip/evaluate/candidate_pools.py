"""Other pools than all pairs of a split: of a fixed size, without the query's own article, without repetitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medclip.metrics import WAYS, chance, percentile_ci, rank_metrics, ranks, resampled

COVERS = (
    "95 % bootstrap, 1000 resamples of whole articles and of draws: it covers which articles the split has and which "
    "pairs a draw took, for the mean over draws; a single draw scatters more (see draws)"
)


def fixed_pools(
    images: np.ndarray, texts: np.ndarray, articles: Sequence[str], size: int, draws: int, seed: int
) -> dict[str, Any]:
    """Figures over pools of `size` pairs drawn without replacement: means over `draws`, and those of every draw."""
    chosen = [np.sort(np.random.default_rng([seed, d]).choice(len(images), size, replace=False)) for d in range(draws)]
    found = [ranks(images[rows], texts[rows]) for rows in chosen]
    return {
        "pool": size,
        "draws": draws,
        "interval": COVERS,
        "chance": chance(np.full(1, size), np.ones(1, int)),
        **{way: over_draws([one[w] for one in found], chosen, articles, seed) for w, way in enumerate(WAYS)},
    }


def over_draws(
    found: Sequence[np.ndarray], chosen: Sequence[np.ndarray], articles: Sequence[str], seed: int, resamples: int = 1000
) -> dict[str, Any]:
    """Mean figures of draws, found[d] being the ranks i64 (size,) of the rows chosen[d] of the split.

    Articles and draws are crossed, so both are resampled at once (Owen 2007, pigeonhole bootstrap).
    """
    each = [rank_metrics(own) for own in found]
    picks = np.random.default_rng([seed, len(found)]).integers(0, len(found), (resamples, len(found)))
    drawn = []
    for times, picked in zip(resampled(articles, seed, resamples), picks, strict=True):
        again = {d: np.repeat(found[d], times[chosen[d]]) for d in set(picked.tolist())}
        told = {d: rank_metrics(own) for d, own in again.items() if len(own)}  # a small draw may be left with none
        if parts := [told[d] for d in picked.tolist() if d in told]:
            drawn.append(_mean(parts))
    of = percentile_ci(_mean(each), drawn)
    return {name: figure | {"draws": [one[name] for one in each]} for name, figure in of.items()}


def _mean(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in figures])) for name in figures[0]}


def article_disjoint(
    found: Sequence[np.ndarray], images: np.ndarray, texts: np.ndarray, articles: Sequence[str]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Ranks both ways where other candidates of the query's own article do not count, and the pool of each query.

    `found` are the ranks in the full pool. Figures of one article look alike and are told of alike: a neighbor from it
    is often no mistake. Before a query's own candidate stand as many of other articles as stand before it in all, less
    those of its own article, which are found by ranking each article's pairs by themselves.
    """
    _, group, sizes = np.unique(np.asarray(articles, dtype=str), return_inverse=True, return_counts=True)
    apart = [own.copy() for own in found]
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)[:-1])
    for rows in members:
        if len(rows) > 1:
            for own, inside in zip(apart, ranks(images[rows], texts[rows]), strict=True):
                own[rows] -= inside - 1
    return apart, len(images) - sizes[group] + 1


def duplicate_aware(
    images: np.ndarray, texts: np.ndarray, pictures: Sequence[str], captions: Sequence[str]
) -> dict[str, dict[str, np.ndarray]]:
    """Ranks both ways where repetitions are one: each distinct image and caption asks once and is found once.

    `pictures` and `captions` say by equal values what is the same. All captions that an image has anywhere are right
    for it, and all images of a caption for that caption, as in `ranks`; the vector of the first row stands for the
    others. Returns, for each way, `rows` (the first row of each query), `ranks`, `right` (how many candidates are right
    for it) and `pool`.
    """
    (first, image), (begin, text) = (
        np.unique(np.asarray(of, dtype=str), return_index=True, return_inverse=True)[1:] for of in (pictures, captions)
    )
    pairs = np.unique(np.stack([image, text], axis=1), axis=0)
    found = ranks(images[first], texts[begin], pairs)
    sides = zip(WAYS, (first, begin), found, pairs.T, (len(begin), len(first)), strict=True)
    return {
        way: {"rows": rows, "ranks": own, "right": np.bincount(asks), "pool": np.full(len(rows), pool)}
        for way, rows, own, asks, pool in sides
    }

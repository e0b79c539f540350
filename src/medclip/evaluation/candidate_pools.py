"""Other candidates than all pairs of a split: a fixed number, without the query's own article, without duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int, Num

from medclip.evaluation.results import Fact, Metric, metric_name, to_metric
from medclip.metrics import DIRECTIONS, Estimate, chance_metrics, percentile_ci, rank_metrics, ranks, resample_counts

CI_OVER_DRAWS = (
    "95 % bootstrap, 1000 resamples of whole articles and of draws: it covers which articles the split has and which "
    "pairs a draw took, for the mean over draws; a single draw scatters more (see draws)"
)


def fixed_pools(
    images: Num[np.ndarray, "n p"],
    texts: Num[np.ndarray, "n p"],
    articles: Sequence[str],
    size: int,
    num_draws: int,
    seed: int,
) -> tuple[list[Metric], dict[str, Fact]]:
    """Metrics among `size` pairs drawn without replacement: means over draws, and those of every draw."""
    draws = [
        np.sort(np.random.default_rng([seed, draw]).choice(len(images), size, replace=False))
        for draw in range(num_draws)
    ]
    ranks_by_draw = [ranks(images[rows], texts[rows]) for rows in draws]
    chance = chance_metrics(np.full(1, size), np.ones(1, int))
    metrics = []
    for i, direction in enumerate(DIRECTIONS):
        draw_ranks = [both[i] for both in ranks_by_draw]
        draw_metrics = list(map(rank_metrics, draw_ranks))
        for name, estimate in over_draws(draw_ranks, draws, articles, seed).items():
            metric = to_metric(metric_name("fixed_pool", direction, name), estimate, chance[name])
            metrics.append(replace(metric, draws=tuple(values[name] for values in draw_metrics)))
    facts = {"num_candidates": size, "num_draws": num_draws, "ci_method": CI_OVER_DRAWS}
    return metrics, {metric_name("fixed_pool", name): value for name, value in facts.items()}


def over_draws(
    ranks_of_draws: Sequence[Int[np.ndarray, " m"]],
    draws: Sequence[Int[np.ndarray, " m"]],
    articles: Sequence[str],
    seed: int,
    resamples: int = 1000,
) -> dict[str, Estimate]:
    """Mean rank metrics over draws, ranks_of_draws[d] being those of the rows draws[d] of the split.

    Articles and draws are crossed, so both are resampled at once (Owen 2007, pigeonhole bootstrap).
    """
    count = len(ranks_of_draws)
    picks = np.random.default_rng([seed, count]).integers(0, count, (resamples, count))
    samples = []
    for times, picked in zip(resample_counts(articles, seed, resamples), picks, strict=True):
        resampled = {d: np.repeat(ranks_of_draws[d], times[draws[d]]) for d in set(picked.tolist())}
        values = {d: rank_metrics(r) for d, r in resampled.items() if len(r)}  # a small draw may be left with none
        if parts := [values[d] for d in picked.tolist() if d in values]:
            samples.append(_mean(parts))
    return percentile_ci(_mean(list(map(rank_metrics, ranks_of_draws))), samples)


def _mean(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([values[name] for values in metrics])) for name in metrics[0]}


def article_disjoint(
    full: Sequence[Int[np.ndarray, " n"]],
    images: Num[np.ndarray, "n p"],
    texts: Num[np.ndarray, "n p"],
    articles: Sequence[str],
) -> tuple[list[Int[np.ndarray, " n"]], Int[np.ndarray, " n"]]:
    """Ranks in both directions without other candidates of the query's own article, and how many candidates are left.

    `full` are the ranks among all. Figures of one article look alike and are described alike: a neighbor from it is
    often no mistake. Before a query's own candidate stand as many of other articles as stand before it in all, less
    those of its own article, which are counted by ranking each article's pairs by themselves.
    """
    _, group, sizes = np.unique(np.asarray(articles, dtype=str), return_inverse=True, return_counts=True)
    disjoint = [full_ranks.copy() for full_ranks in full]
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)[:-1])
    for rows in members:
        if len(rows) > 1:
            for full_ranks, article_ranks in zip(disjoint, ranks(images[rows], texts[rows]), strict=True):
                full_ranks[rows] -= article_ranks - 1
    return disjoint, len(images) - sizes[group] + 1


@dataclass(frozen=True)
class Queries:
    """Distinct queries of one direction among distinct candidates."""

    rows: Int[np.ndarray, " q"]
    """The first row of each query."""
    ranks: Int[np.ndarray, " q"]
    num_relevant: Int[np.ndarray, " q"]
    num_candidates: int


def duplicate_aware(
    images: Num[np.ndarray, "n p"], texts: Num[np.ndarray, "n p"], image_names: Sequence[str], captions: Sequence[str]
) -> dict[str, Queries]:
    """Ranks by direction where duplicates are one: each distinct image and caption is one query and one candidate.

    Equal `image_names`, and equal `captions`, are duplicates. All captions that an image has anywhere are right for it,
    and all images of a caption for that caption, as in `ranks`; the vector of the first row stands for the others.
    """
    (first_image, image), (first_text, text) = (
        np.unique(np.asarray(names, dtype=str), return_index=True, return_inverse=True)[1:]
        for names in (image_names, captions)
    )
    pairs = np.unique(np.stack([image, text], axis=1), axis=0)
    to_text, to_image = ranks(images[first_image], texts[first_text], pairs)
    return {
        "image_to_text": Queries(first_image, to_text, np.bincount(pairs[:, 0]), len(first_text)),
        "text_to_image": Queries(first_text, to_image, np.bincount(pairs[:, 1]), len(first_image)),
    }

"""Other candidates than all of a split: a fixed number, or none of the query's own article."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int, Num

from medclip.errors import UserError
from medclip.evaluation.results import Fact
from medclip.metrics import (
    DIRECTIONS,
    DistinctPairs,
    Estimate,
    Queries,
    chance_metrics,
    is_one_group,
    percentile_ci,
    rank_metrics,
    rank_ranges,
    ranks,
    without_intervals,
)
from medclip.named_metrics import Metric, metric_name, to_metric
from medclip.progress import Advance
from medclip.resamples import by_name, resample_counts

CI_OVER_DRAWS = (
    "95 % bootstrap, 1000 resamples of whole articles and of draws: it covers which articles the split has and which "
    "pairs a draw took, for the mean over draws; a single draw scatters more (see draws)"
)


def draw_pools(
    image_ids: Int[np.ndarray, " n"], caption_ids: Int[np.ndarray, " n"], size: int, num_draws: int, seed: int
) -> list[Int[np.ndarray, " m"]]:
    """Rows of `size` pairs drawn without replacement, none of which share an image or a caption (equal ids).

    UserError where there are not so many.
    """
    draws = []
    for draw in range(num_draws):
        rng = np.random.default_rng([seed, draw])
        rows = rng.choice(len(image_ids), size, replace=False)
        if any(len(np.unique(ids[rows])) < size for ids in (image_ids, caption_ids)):
            others = np.setdiff1d(np.arange(len(image_ids)), rows)
            rows = _without_repeats(np.concatenate([rows, rng.permutation(others)]), image_ids, caption_ids, size)
        draws.append(np.sort(rows))
    return draws


def _without_repeats(order: np.ndarray, image_ids: np.ndarray, caption_ids: np.ndarray, size: int) -> np.ndarray:
    """The first `size` rows, in this order, that share neither image nor caption with one before."""
    images: set[int] = set()
    captions: set[int] = set()
    rows = []
    for row, image, caption in zip(order, image_ids[order].tolist(), caption_ids[order].tolist(), strict=True):
        if image not in images and caption not in captions and len(rows) < size:
            images.add(image)
            captions.add(caption)
            rows.append(row)
    if len(rows) < size:
        raise UserError(f"--num-candidates {size}: a draw has but {len(rows)} pairs that share no image or caption.")
    return np.array(rows)


def fixed_pools(
    images: Num[np.ndarray, "n p"],
    texts: Num[np.ndarray, "n p"],
    articles: Sequence[str],
    draws: Sequence[Int[np.ndarray, " m"]],
    seed: int,
) -> tuple[list[Metric], dict[str, Fact]]:
    """Metrics among the pairs of each draw (see `draw_pools`): means over draws, and those of every draw."""
    size, num_draws = len(draws[0]), len(draws)
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
    means = _mean(list(map(rank_metrics, ranks_of_draws)))
    if is_one_group(articles):
        return without_intervals(means)
    count = len(ranks_of_draws)
    picks = np.random.default_rng([seed, count]).integers(0, count, (resamples, count))
    samples = []
    for times, picked in zip(resample_counts(articles, seed, resamples), picks, strict=True):
        resampled = {d: np.repeat(ranks_of_draws[d], times[draws[d]]) for d in set(picked.tolist())}
        values = {d: rank_metrics(r) for d, r in resampled.items() if len(r)}  # a small draw may be left with none
        if parts := [values[d] for d in picked.tolist() if d in values]:
            samples.append(_mean(parts))
    return percentile_ci(means, by_name(samples), len(set(articles)), rank_ranges(len(draws[0])))


def _mean(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([values[name] for values in metrics])) for name in metrics[0]}


def rank_by_article(
    pairs: DistinctPairs, articles: Sequence[str], advance: Advance | None = None
) -> tuple[dict[str, Queries], dict[str, Queries]]:
    """The queries among all candidates, and the same without wrong candidates of their own article; by direction.

    Figures of one article look alike and are described alike: a neighbor from it is often no mistake. An image or a
    caption is of the article of its first row; `articles` are of all rows.
    """
    _, article = np.unique(np.asarray(articles, dtype=str), return_inverse=True)
    full = pairs.rank(advance, (article[pairs.image_rows], article[pairs.text_rows]))
    disjoint = {}
    for direction, side in pairs.sides().items():
        queries, right = full[direction], side.right
        own_articles, candidate_articles = article[side.query_rows], article[side.candidate_rows]
        same = own_articles[right[:, 0]] == candidate_articles[right[:, 1]]
        num_right = np.bincount(right[same, 0], minlength=len(queries.rows))
        num_wrong = np.bincount(candidate_articles, minlength=article.max() + 1)[own_articles] - num_right
        disjoint[direction] = replace(
            queries,
            ranks=queries.ranks - queries.ranking.num_ahead_in_group,
            num_candidates=queries.num_candidates - num_wrong,
        )
    return full, disjoint

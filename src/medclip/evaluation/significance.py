"""Paired comparison of two models on the same items: differences, intervals, p-values, verdicts. Pure numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Num

from medclip.metrics import KS, Names, is_one_group
from medclip.resamples import draw_block, medians_of

RESAMPLES = 10_000  # so that the least p-value times a hundred metrics is still below LEVEL
LEVEL = 0.05
MAX_NUMBERS = 1_000_000  # of a block of resamples, which bounds memory
ROUNDING = 1e-12

Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Of counts and swaps (b, articles): the differences (b,) with articles drawn so often, and with models swapped."""


class Verdict(StrEnum):
    """How another model compares with the baseline."""

    BETTER = "better"
    WORSE = "worse"
    WITHIN_NOISE = "within noise"


@dataclass(frozen=True)
class Statistic:
    """How a number is computed from the values of all items."""

    item_value: Callable[[np.ndarray], np.ndarray] | None
    """What it is the mean of; None: it is the median of the values themselves."""
    over_classes: bool = False
    """The mean is that of the means of classes, each counting as much as any other."""
    lower_is_better: bool = False
    ratio: bool = False
    """The mean is of logarithms: models differ by a factor."""


STATISTICS = {
    **{f"R@{k}": Statistic(lambda ranks, k=k: (ranks <= k).astype(float)) for k in KS},
    "MRR": Statistic(lambda ranks: 1 / ranks),
    "median_rank": Statistic(None, lower_is_better=True),
    "geometric_mean_rank": Statistic(np.log, lower_is_better=True, ratio=True),
    "mean": Statistic(lambda values: values),
    "mean_over_classes": Statistic(lambda values: values, over_classes=True),
}
"""By the name that a `Metric` gives; ranks count from 1, the best."""


@dataclass(frozen=True)
class Difference:
    """A statistic of two models: value − baseline, or value / baseline where it is a ratio."""

    baseline: float
    value: float
    difference: float
    low: float
    """NaN, as `high` is, where all items are of one article: nothing says how the difference varies."""
    high: float
    p: float
    """Two-sided, of no difference at all."""


def paired_differences(
    baseline: Num[np.ndarray, " n"],
    value: Num[np.ndarray, " n"],
    articles: Names,
    classes: Names,
    statistics: Sequence[Statistic],
    seed: int,
) -> list[Difference]:
    """Each statistic's difference between values of two models, row i of both being item i of its article and class.

    The interval is the 95 % percentile bootstrap of the difference, whole articles resampled for both models at once
    (Field & Welsh 2007). The p-value is Fisher's randomization test, which swaps the models within whole articles: with
    the few items that a weak model gets right the bootstrap's own is too small (four articles gained and none lost:
    0.037 in place of 0.125). Both are of RESAMPLES draws; equal values give exactly no difference and a p of 1, as does
    a single article.
    """
    _, group = np.unique(np.asarray(articles, dtype=str), return_inverse=True)
    _, label = np.unique(np.asarray(classes, dtype=str), return_inverse=True)
    changes = [_change(statistic, baseline, value, group, label) for statistic in statistics]
    blocks = [
        [change(counts, swap) for change in changes]
        for counts, swap in _draws(np.random.default_rng(seed), int(group.max()) + 1, len(group))
    ]
    differences = []
    for statistic, *parts in zip(statistics, *blocks, strict=True):
        resampled, swapped = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        before, after = (value_of(statistic, values, classes) for values in (baseline, value))
        ends = (math.nan, math.nan) if is_one_group(articles) else np.percentile(resampled, (2.5, 97.5))
        differences.append(_difference(statistic, before, after, ends, swapped))
    return differences


def value_of(statistic: Statistic, values: Num[np.ndarray, " n"], classes: Names) -> float:
    """The statistic of values of items of these classes; of a ratio, its logarithm."""
    if statistic.item_value is None:
        return float(np.median(values))
    item_values = statistic.item_value(values)
    if not statistic.over_classes:
        return float(item_values.mean())
    _, label = np.unique(np.asarray(classes, dtype=str), return_inverse=True)
    return float((np.bincount(label, item_values) / np.bincount(label)).mean())


def holm_adjust(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number, by Holm (1979).

    With a probability of 95 % none below 0.05 is there by chance, however the metrics depend on one another. A false
    discovery rate (Benjamini and Hochberg 1995) lets a twentieth of the claims be false, which suits a search among
    thousands and not the few metrics by which one model takes the place of another. With these very p-values: Boytsov,
    Belova and Westfall 2013.
    """
    values, order = np.asarray(p, dtype=float), np.argsort(p, kind="stable")
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return corrected.tolist()


def verdict(statistic: Statistic, difference: Difference, corrected: float) -> Verdict:
    """Better or worse than the baseline where both the interval and the corrected p-value say so."""
    none = 1 if statistic.ratio else 0
    if corrected > LEVEL or difference.low <= none <= difference.high:
        return Verdict.WITHIN_NOISE
    higher = difference.difference > none
    return Verdict.BETTER if higher != statistic.lower_is_better else Verdict.WORSE


def _change(
    statistic: Statistic, baseline: np.ndarray, value: np.ndarray, group: np.ndarray, label: np.ndarray
) -> Change:
    """Differences of a statistic of items whose articles are `group` (n,), of classes `label` (n,)."""
    if statistic.item_value is None:
        return _median_change(baseline, value, group)
    label = label if statistic.over_classes else np.zeros_like(label)
    shape = (group.max() + 1, label.max() + 1)
    cell = group * shape[1] + label
    gains = statistic.item_value(value) - statistic.item_value(baseline)
    sums = np.bincount(cell, gains, shape[0] * shape[1]).reshape(shape)
    sizes = np.bincount(cell, None, shape[0] * shape[1]).reshape(shape)

    def change(counts: np.ndarray, swap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights = counts.astype(float)
        with np.errstate(invalid="ignore"):  # a class that was not drawn has no mean
            resampled = np.nanmean((weights @ sums) / (weights @ sizes), axis=1)
        return resampled, (np.where(swap, -1.0, 1.0) @ (sums / sizes.sum(axis=0))).mean(axis=1)

    return change


def _median_change(baseline: np.ndarray, value: np.ndarray, group: np.ndarray) -> Change:
    before, after = (medians_of(values, group) for values in (baseline, value))
    narrow = baseline.astype(np.float32), value.astype(np.float32)

    def change(counts: np.ndarray, swap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        swapped = swap[:, group]
        models = np.where(swapped, *narrow), np.where(swapped, *narrow[::-1])
        return after(counts) - before(counts), np.subtract(*(np.median(model, axis=1) for model in models))

    return change


def _difference(
    statistic: Statistic, baseline: float, value: float, ends: Iterable[float], swapped: np.ndarray
) -> Difference:
    as_large = int((np.abs(swapped) >= abs(value - baseline) - ROUNDING).sum())
    p = (1 + as_large) / (1 + len(swapped))
    scale = math.exp if statistic.ratio else float
    low, high = map(scale, ends)
    return Difference(scale(baseline), scale(value), scale(value - baseline), low, high, p)


def _draws(rng: np.random.Generator, articles: int, items: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """RESAMPLES times, how often each article is drawn (i32) and whether it is swapped: (b, articles), in blocks."""
    size = max(1, MAX_NUMBERS // items)
    for start in range(0, RESAMPLES, size):
        shape = (min(size, RESAMPLES - start), articles)
        yield draw_block(rng, *shape).astype(np.int32), rng.integers(0, 2, shape, np.int8).astype(bool)

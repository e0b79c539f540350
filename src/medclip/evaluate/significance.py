"""Two models on the same items: by how much they differ, and whether that is more than noise. Pure numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medclip.metrics import KS

RESAMPLES = 10_000  # so that the least p-value times a hundred figures is still below LEVEL
LEVEL = 0.05
VERDICTS = ("better", "worse", "within noise")
_NUMBERS = 1_000_000  # of a block of resamples, which bounds memory
_ROUNDING = 1e-12

Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Of counts and swaps (b, articles): the differences (b,) with articles drawn so often, and with models swapped."""


@dataclass(frozen=True)
class Measure:
    """A number made of the values of all items."""

    name: str
    each: Callable[[np.ndarray], np.ndarray] | None
    """What it is the mean of; None: it is the median of the values themselves."""
    by_class: bool = False
    """The mean is that of the means of classes, each counting as much as any other."""
    lower_is_better: bool = False
    ratio: bool = False
    """The mean is of logarithms: models differ by a factor."""
    main: bool = False
    """What a model is judged by where nothing else is asked for."""


RANKS = (
    *(Measure(f"R@{k}", lambda ranks, k=k: (ranks <= k).astype(float), main=k == KS[-1]) for k in KS),
    Measure("MRR", lambda ranks: 1 / ranks),
    Measure("median_rank", None, lower_is_better=True),
    Measure("geometric_mean_rank", np.log, lower_is_better=True, ratio=True),
)
"""Of ranks from 1, the best."""
RANKED_AGAIN = replace(RANKS[len(KS) - 1], main=False)
"""Of the same items in another pool, or under a corruption."""
MEAN = Measure("", lambda values: values, main=True)
"""Of values of which more is better: right or wrong, or a score."""
BALANCED = Measure("", lambda values: values, by_class=True)


@dataclass(frozen=True)
class Difference:
    """A measure of two models: value − baseline, or value / baseline where the measure is a ratio."""

    baseline: float
    value: float
    difference: float
    low: float
    high: float
    p: float
    """Two-sided, of no difference at all."""


def paired(
    baseline: np.ndarray,
    value: np.ndarray,
    articles: Sequence[str],
    classes: Sequence[str],
    measures: Sequence[Measure],
    seed: int,
) -> list[Difference]:
    """Each measure's difference between values (n,) of two models, row i of both being item i of its article and class.

    The interval is the 95 % percentile bootstrap of the difference, whole articles resampled for both models at once
    (Field & Welsh 2007). The p-value is Fisher's randomization test, which swaps the models within whole articles: with
    the few items that a weak model gets right the bootstrap's own is too small (four articles gained and none lost:
    0.037 in place of 0.125). Both are of RESAMPLES draws; equal values give exactly no difference and a p of 1.
    """
    _, group = np.unique(np.asarray(articles, dtype=str), return_inverse=True)
    _, kind = np.unique(np.asarray(classes, dtype=str), return_inverse=True)
    changes = [_change(measure, baseline, value, group, kind) for measure in measures]
    drawn = [
        [change(counts, swap) for change in changes]
        for counts, swap in _draws(np.random.default_rng(seed), group.max() + 1, len(group))
    ]
    found = []
    for measure, *blocks in zip(measures, *drawn, strict=True):
        resampled, swapped = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        values = (value_of(measure, of, classes) for of in (baseline, value))
        found.append(_difference(measure, *values, resampled, swapped))
    return found


def value_of(measure: Measure, values: np.ndarray, classes: Sequence[str]) -> float:
    """The measure of values (n,) of items of these classes (n,)."""
    if measure.each is None:
        return float(np.median(values))
    each = measure.each(values)
    if not measure.by_class:
        return float(each.mean())
    _, kind = np.unique(np.asarray(classes, dtype=str), return_inverse=True)
    return float((np.bincount(kind, each) / np.bincount(kind)).mean())


def weighted_medians(values: np.ndarray, group: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The median of values (n,), those of article `group` (n,) being there so often, for each row of counts (b, g)."""
    order = np.argsort(values, kind="stable")
    ordered, upto = values[order], np.cumsum(counts[:, group[order]], axis=1, dtype=np.int32)
    total = upto[:, -1:]
    lower, upper = ((upto >= place).argmax(axis=1) for place in ((total + 1) // 2, total // 2 + 1))
    return (ordered[lower] + ordered[upper]) / 2


def holm_adjust(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number, by Holm (1979).

    With a probability of 95 % none below 0.05 is there by chance, however the figures depend on one another. A false
    discovery rate (Benjamini and Hochberg 1995) lets a twentieth of the claims be false, which suits a search among
    thousands and not the few figures by which one model takes the place of another. With these very p-values: Boytsov,
    Belova and Westfall 2013.
    """
    values, order = np.asarray(p, dtype=float), np.argsort(p, kind="stable")
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return corrected.tolist()


def verdict(measure: Measure, found: Difference, corrected: float) -> str:
    """One of VERDICTS: better or worse than the baseline where both the interval and the corrected p-value say so."""
    none = 1 if measure.ratio else 0
    if corrected > LEVEL or found.low <= none <= found.high:
        return "within noise"
    return "better" if (found.difference > none) != measure.lower_is_better else "worse"


def _change(measure: Measure, baseline: np.ndarray, value: np.ndarray, group: np.ndarray, kind: np.ndarray) -> Change:
    """Differences of a measure of items whose articles are `group` (n,), of classes `kind` (n,)."""
    if measure.each is None:
        return lambda counts, swap: _medians(baseline, value, group, counts, swap)
    kind = kind if measure.by_class else np.zeros_like(kind)
    shape = (group.max() + 1, kind.max() + 1)
    cell = group * shape[1] + kind
    sums, sizes = (
        np.bincount(cell, weights, shape[0] * shape[1]).reshape(shape)
        for weights in (measure.each(value) - measure.each(baseline), None)
    )

    def change(counts: np.ndarray, swap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        often = counts.astype(float)
        with np.errstate(invalid="ignore"):  # a class that was not drawn has no mean
            drawn = np.nanmean((often @ sums) / (often @ sizes), axis=1)
        return drawn, (np.where(swap, -1.0, 1.0) @ (sums / sizes.sum(axis=0))).mean(axis=1)

    return change


def _medians(
    baseline: np.ndarray, value: np.ndarray, group: np.ndarray, counts: np.ndarray, swap: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    one, other, swapped = baseline.astype(np.float32), value.astype(np.float32), swap[:, group]
    return (
        weighted_medians(value, group, counts) - weighted_medians(baseline, group, counts),
        np.median(np.where(swapped, one, other), axis=1) - np.median(np.where(swapped, other, one), axis=1),
    )


def _difference(
    measure: Measure, baseline: float, value: float, resampled: np.ndarray, swapped: np.ndarray
) -> Difference:
    low, high = np.percentile(resampled, (2.5, 97.5))
    found = [baseline, value, value - baseline, float(low), float(high)]
    as_large = int((np.abs(swapped) >= abs(value - baseline) - _ROUNDING).sum())
    p = (1 + as_large) / (1 + len(swapped))
    return Difference(*(float(np.exp(one)) if measure.ratio else one for one in found), p=p)


def _draws(rng: np.random.Generator, articles: int, items: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """RESAMPLES times, how often each article is drawn (i32) and whether it is swapped: (b, articles), in blocks."""
    size = max(1, _NUMBERS // items)
    for start in range(0, RESAMPLES, size):
        shape = (min(size, RESAMPLES - start), articles)
        drawn = rng.integers(0, articles, shape) + articles * np.arange(shape[0])[:, None]
        counts = np.bincount(drawn.ravel(), minlength=shape[0] * articles).reshape(shape)
        yield counts.astype(np.int32), rng.integers(0, 2, shape, np.int8).astype(bool)

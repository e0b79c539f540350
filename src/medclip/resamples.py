"""Resamples of whole groups of rows, many at once: how often each group is in each, and means and medians of its rows.

Rows are never repeated: what a resample has of a group is the group's, times how often it was drawn. No JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int, Num, UInt16

MAX_COUNTS = 2**18  # at once: 2 MB, which caches hold
MAX_CACHED_GROUPS = 2**13  # whose counts are 16 MB of 1,000 resamples
NUM_PARTS = 32  # of rows in order, one of which is looked at row by row

Counts = Int[np.ndarray, "b g"]
"""How often each group is in each of some resamples."""
Statistic = Callable[[Counts], Float64[np.ndarray, "b ..."]]
"""Numbers of each of some resamples."""


def number_groups(groups: Sequence[str] | np.ndarray) -> Int[np.ndarray, " n"]:
    """The number of each row's group, from 0, in the order of their names."""
    return np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]


def draw_counts(num_groups: int, seed: int, resamples: int) -> Iterator[Counts]:
    """How often each group is in each resample, in blocks; neither their size nor the cache changes a draw."""
    if num_groups > MAX_CACHED_GROUPS:
        yield from _draw(num_groups, seed, resamples)
    else:
        counts, size = _cached_counts(num_groups, seed, resamples), max(1, MAX_COUNTS // num_groups)
        yield from (counts[start : start + size].astype(int) for start in range(0, resamples, size))


@lru_cache(maxsize=1)
def _cached_counts(num_groups: int, seed: int, resamples: int) -> UInt16[np.ndarray, "r g"]:
    """All counts, none of which is above the number of groups: metrics of both directions are of the same draws."""
    return np.concatenate([counts.astype(np.uint16) for counts in _draw(num_groups, seed, resamples)])


def _draw(num_groups: int, seed: int, resamples: int) -> Iterator[Counts]:
    rng, size = np.random.default_rng(seed), max(1, MAX_COUNTS // num_groups)
    for start in range(0, resamples, size):
        yield draw_block(rng, min(size, resamples - start), num_groups)


def draw_block(rng: np.random.Generator, resamples: int, num_groups: int) -> Counts:
    """How often each group is in each of the next resamples."""
    drawn = rng.integers(0, num_groups, (resamples, num_groups)) + num_groups * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape)


def resample_counts(groups: Sequence[str] | np.ndarray, seed: int, resamples: int) -> Iterator[Int[np.ndarray, " n"]]:
    """How often each row is in each resample."""
    group = number_groups(groups)
    for counts in draw_counts(int(group.max()) + 1, seed, resamples):
        yield from counts[:, group]


def by_name(samples: Sequence[Mapping[str, float]]) -> dict[str, Float64[np.ndarray, " r"]]:
    """The numbers of all resamples for those of each."""
    return {name: np.array([sample[name] for sample in samples], float) for name in samples[0]}


def resample(
    statistics: Sequence[Statistic], num_groups: int, seed: int, resamples: int
) -> list[Float64[np.ndarray, "r ..."]]:
    """Each statistic of every resample."""
    blocks = [[measure(counts) for measure in statistics] for counts in draw_counts(num_groups, seed, resamples)]
    return [np.concatenate(of_blocks) for of_blocks in zip(*blocks, strict=True)]


def means_of(values: Num[np.ndarray, "n k"], group: Int[np.ndarray, " n"]) -> Statistic:
    """The mean of what is not NaN in each column; NaN where there is nothing."""
    valid = ~np.isnan(values)
    sums, sizes = _sums(np.where(valid, values, 0.0), group), _sums(valid.astype(float), group)

    def measure(counts: Counts) -> Float64[np.ndarray, "b k"]:
        weights = counts.astype(float)
        with np.errstate(invalid="ignore"):
            return (weights @ sums) / (weights @ sizes)

    return measure


def _sums(values: Num[np.ndarray, "n k"], group: Int[np.ndarray, " n"]) -> Float64[np.ndarray, "g k"]:
    return np.stack([np.bincount(group, column) for column in values.T], axis=1)


def medians_of(values: Num[np.ndarray, " n"], group: Int[np.ndarray, " n"]) -> Statistic:
    """The median, of two in the middle their mean.

    Rows in order are cut into parts. How many rows a resample has of each is one product; only the part that holds its
    middle is looked at row by row, and that is the same one or two for nearly all resamples.
    """
    order = np.argsort(values, kind="stable")
    ordered, group = values[order], group[order]
    size = -(-len(order) // NUM_PARTS)
    part = np.arange(len(order)) // size
    shape = (group.max() + 1, part[-1] + 1)
    sizes = np.bincount(group * shape[1] + part, minlength=shape[0] * shape[1]).reshape(shape).astype(float)

    def measure(counts: Counts) -> Float64[np.ndarray, " b"]:
        until = np.cumsum(counts.astype(float) @ sizes, axis=1)
        total = until[:, -1]

        def place(wanted: np.ndarray) -> np.ndarray:
            """The row that is the so-manieth of each resample."""
            places, in_part = np.empty(len(wanted), int), (until >= wanted[:, None]).argmax(axis=1)
            before = np.where(in_part, until[np.arange(len(wanted)), in_part - 1], 0)
            for number in np.unique(in_part):
                which, rows = np.flatnonzero(in_part == number), slice(number * size, (number + 1) * size)
                inside = np.cumsum(counts[np.ix_(which, group[rows])], axis=1)
                places[which] = rows.start + (inside >= (wanted - before)[which, None]).argmax(axis=1)
            return places

        return (ordered[place((total + 1) // 2)] + ordered[place(total // 2 + 1)]) / 2

    return measure

"""No match: an index seems to hold nothing that a text describes. Thresholds by the text's length. No JAX.

The mean of the five highest cosines lies below a threshold that texts of that length whose image is there fall below at
a stated rate (split conformal prediction, Vovk et al. 2005, within groups of words: Mondrian). A short text is vaguer
than a caption and has lower cosines whatever the index holds; as nobody wrote short texts for the validation images,
each caption stands in every group once: whole in that of its own length, cut to its first words in each below.

The rate holds for texts made so, over all of a group and not for each; an index of more images than validation had
falls below less often.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float64, Int

from medclip.random_pools import draw_pools, highest, pool_sizes

FALSE_NO_MATCH_RATE = 0.05
NUM_TOP = 5  # highest cosines whose mean tells no match: more images never lower it, as they would a mean of all
MAX_SMALL = 16  # images: another of so few changes the mean by much, so each number has its threshold
MIN_WORDS = (1, 4, 8, 16)  # of a text of each group; the next group begins where it ends
MIN_ORGAN_SIZE = 10  # texts and images of an organ, for it to be withheld


@dataclass(frozen=True)
class Threshold:
    """A mean of the highest cosines; below it an index of so many images has no match for a text of so many words."""

    min_words: int
    """One of MIN_WORDS."""
    num_images: int
    cosine: float


@dataclass(frozen=True)
class Withheld:
    """Texts of a length whose organ was left out of the pool, and the share of them that had no match."""

    min_words: int
    num_queries: int
    no_match_rate: float


@dataclass(frozen=True)
class Excerpt:
    """A caption or its first words."""

    row: int
    """Of the caption."""
    min_words: int
    """Its group."""
    text: str
    is_cut: bool


@dataclass(frozen=True)
class ExcerptCosines:
    """The cosines of t excerpts with n images, and what is known of these."""

    cosines: Float64[np.ndarray, "t n"]
    right: Bool[np.ndarray, "t n"]
    min_words: Int[np.ndarray, " t"]
    organs: Sequence[str]
    """That each excerpt names; "" for unknown."""
    image_organs: Sequence[str]
    """That each image shows."""

    def of_group(self, min_words: int) -> ExcerptCosines:
        """Those of one group."""
        rows = np.flatnonzero(self.min_words == min_words)
        organs = [self.organs[row] for row in rows.tolist()]
        return ExcerptCosines(self.cosines[rows], self.right[rows], self.min_words[rows], organs, self.image_organs)


def group_by_words(text: str) -> int:
    """The group of a text, by its number of words between spaces; a script without spaces has one."""
    return max(least for least in MIN_WORDS if least <= max(len(text.split()), 1))


def cut_captions(captions: Sequence[str]) -> list[Excerpt]:
    """Each caption, and for each group of shorter texts as many of its first words as a text of that has at most."""
    excerpts = []
    for row, caption in enumerate(captions):
        words, own = caption.split(), group_by_words(caption)
        for least, above in pairwise(MIN_WORDS):
            if least < own:
                excerpts.append(Excerpt(row, least, " ".join(words[: above - 1]), True))
        excerpts.append(Excerpt(row, own, caption, False))
    return excerpts


def is_no_match(
    thresholds: Sequence[Threshold], highest_cosines: Float64[np.ndarray, " h"], num_images: int, group: int
) -> bool | None:
    """Whether an index of so many images has no match for a text of a group, by its highest cosines, best first.

    None where there are no thresholds. A text longer than all that they are of is compared with the longest.
    """
    groups = [threshold.min_words for threshold in thresholds if threshold.min_words <= group]
    if not groups:
        return None
    own = [threshold for threshold in thresholds if threshold.min_words == max(groups)]
    sizes = [np.log(threshold.num_images) for threshold in own]
    limit = np.interp(np.log(num_images), sizes, [threshold.cosine for threshold in own])
    return bool(highest_cosines[:NUM_TOP].mean() < limit)


def fit_thresholds(excerpts: ExcerptCosines, seed: int) -> Iterator[Threshold]:
    """By length and number of images, ascending; none of a length with too few texts for the rate."""
    rng = np.random.default_rng(seed)
    for min_words in MIN_WORDS:
        group = excerpts.of_group(min_words)
        if FALSE_NO_MATCH_RATE * (len(group.cosines) + 1) < 1:
            continue
        for size in _threshold_sizes(group.cosines.shape[1]):
            pools = draw_pools(group.cosines, group.right, size, rng)
            statistics = [_mean_top(np.column_stack(pool)) for pool in pools]
            yield Threshold(min_words, size, _lowest(statistics))


def _threshold_sizes(num_images: int) -> list[int]:
    """Those of a threshold: up to MAX_SMALL every one."""
    return sorted({*range(1, min(MAX_SMALL, num_images) + 1), *pool_sizes(num_images)})


def withhold(thresholds: Sequence[Threshold], excerpts: ExcerptCosines) -> Iterator[Withheld]:
    """Search the texts about each organ of MIN_ORGAN_SIZE texts or more among the images of the others, by length."""
    image_organs = np.asarray(excerpts.image_organs)
    for min_words in sorted({threshold.min_words for threshold in thresholds}):
        group, no_match = excerpts.of_group(min_words), []
        organs = np.asarray(group.organs)
        for organ in sorted({*group.organs} - {""}):
            queries, others = np.flatnonzero(organs == organ), image_organs != organ
            if len(queries) >= MIN_ORGAN_SIZE and others.sum() >= MIN_ORGAN_SIZE:
                pool = highest(group.cosines[np.ix_(queries, others)], NUM_TOP)
                no_match += [is_no_match(thresholds, row, int(others.sum()), min_words) for row in pool]
        if no_match:
            yield Withheld(min_words, len(no_match), float(np.mean(no_match)))


def _lowest(statistics: Sequence[np.ndarray]) -> float:
    """The floor(rate (q + 1))-th lowest statistic of q texts, over all draws."""
    ascending = np.sort(np.concatenate(statistics))
    return float(ascending[int(FALSE_NO_MATCH_RATE * (len(statistics[0]) + 1) * len(statistics)) - 1])


def _mean_top(pool: np.ndarray) -> np.ndarray:
    """The mean of the highest NUM_TOP values of each row, or of as many as are not -inf."""
    top = highest(pool, NUM_TOP)
    return np.where(np.isinf(top), 0, top).sum(axis=1) / (~np.isinf(top)).sum(axis=1)

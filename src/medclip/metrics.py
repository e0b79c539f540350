"""Retrieval metrics of plain matrices and bootstrap intervals. No JAX."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Num

from medclip.dot_products import TIE_TOLERANCE, Ranking, rank_both
from medclip.progress import Advance
from medclip.resamples import by_name, means_of, medians_of, number_groups, resample, resample_counts

KS = (1, 5, 10)
DIRECTIONS: tuple[str, str] = ("image_to_text", "text_to_image")
RESAMPLES = 1000
CI_METHOD = "95 % bootstrap, 1000 resamples of whole articles; of a share that none of them changes, Clopper-Pearson"
SHARE = (0.0, 1.0)
ROUNDING = 1e-12  # relative, of sums in another order
CHANGE_OF_SHARE = (-1.0, 1.0)
MIN_UNCHANGED_MEDIAN = 6
"""With so many articles of one value more than half of all have it, at 95 %: 0.025^(1/6) > 1/2."""

Names = Sequence[str] | np.ndarray
"""A name for each row: its article, its class."""
Statistics = Callable[[np.ndarray], Mapping[str, float]]
"""Several numbers of rows (n, …), by name; NaN where one is not defined."""
Range = tuple[float, float]
"""The least and the largest value that a row can have, of a statistic that is the mean of them."""
NO_RANGES: Mapping[str, Range] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval, whose ends are NaN where nothing says how it varies, as of one article."""

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
    if pairs is None and len(images) != len(texts):
        raise ValueError(f"images {images.shape} and texts {texts.shape} do not pair up")
    pairs = np.repeat(np.arange(len(images))[:, None], 2, axis=1) if pairs is None else pairs
    to_text, to_image = rank_both(images, texts, pairs, advance=advance)
    return 1 + to_text.num_ahead, 1 + to_image.num_ahead


@dataclass(frozen=True, slots=True)
class Queries:
    """The distinct queries of one direction and their ranks among distinct candidates."""

    rows: Int[np.ndarray, " q"]
    """The first row of each query in the table of pairs."""
    ranks: Int[np.ndarray, " q"]
    num_relevant: Int[np.ndarray, " q"]
    """How many candidates are right for it."""
    num_candidates: Int[np.ndarray, " q"]
    ranking: Ranking
    """Of them among all distinct candidates."""

    def metrics(self, articles: Sequence[str], seed: int) -> dict[str, Estimate]:
        """`rank_metrics` with intervals; a query counts for the article of its first row, `articles` being (n,)."""
        groups = [articles[int(row)] for row in self.rows]
        return rank_estimates(self.ranks, groups, seed, int(self.num_candidates.max()))

    def chance(self) -> dict[str, float]:
        """The `rank_metrics` to expect of a random order."""
        return chance_metrics(self.num_candidates, self.num_relevant)

    def column(self, num_pairs: int) -> Float64[np.ndarray, " n"]:
        """The ranks as a column of the table of pairs: NaN in rows that repeat the query of an earlier one."""
        column = np.full(num_pairs, np.nan)
        column[self.rows] = self.ranks
        return column


class Side(NamedTuple):
    """One direction of retrieval: its queries, its candidates and which of them are right."""

    queries: Num[np.ndarray, "q p"]
    candidates: Num[np.ndarray, "c p"]
    right: Int[np.ndarray, "k 2"]
    """Row of a query and row of a candidate that is right for it."""
    query_rows: Int[np.ndarray, " q"]
    """The first row of each query in the table of pairs."""
    candidate_rows: Int[np.ndarray, " c"]


@dataclass(frozen=True)
class DistinctPairs:
    """The distinct images and captions of a table of pairs, and which of them belong together.

    Retrieval is of these, wherever it is measured: a repeated image or caption is one query and one candidate. All
    captions that an image has in any row are right for it, and all images of a caption for the caption. The vector of
    the first row stands for the others.
    """

    images: Num[np.ndarray, "i p"]
    texts: Num[np.ndarray, "t p"]
    pairs: Int[np.ndarray, "k 2"]
    """Row in `images` and row in `texts`."""
    image_rows: Int[np.ndarray, " i"]
    """The first row of each image in the table."""
    text_rows: Int[np.ndarray, " t"]

    @classmethod
    def of_rows(
        cls,
        images: Num[np.ndarray, "n p"],
        texts: Num[np.ndarray, "n p"],
        image_ids: Int[np.ndarray, " n"],
        caption_ids: Int[np.ndarray, " n"],
    ) -> DistinctPairs:
        """Those of a table whose ids are equal where its images, and where its captions, are (`duplicate_ids`)."""
        (image_rows, image), (text_rows, text) = _first_rows(image_ids), _first_rows(caption_ids)
        pairs = np.unique(np.stack([image, text], axis=1), axis=0)
        # without repeats nothing is copied, which would double the memory
        images = images if len(image_rows) == len(images) else images[image_rows]
        texts = texts if len(text_rows) == len(texts) else texts[text_rows]
        return cls(images, texts, pairs, image_rows, text_rows)

    def sides(self) -> dict[str, Side]:
        """Both directions, by name."""
        to_text = Side(self.images, self.texts, self.pairs, self.image_rows, self.text_rows)
        to_image = Side(self.texts, self.images, self.pairs[:, ::-1], self.text_rows, self.image_rows)
        return dict(zip(DIRECTIONS, (to_text, to_image), strict=True))

    def rank(
        self,
        advance: Advance | None = None,
        groups: tuple[Int[np.ndarray, " i"], Int[np.ndarray, " t"]] | None = None,
    ) -> dict[str, Queries]:
        """Ranks of both directions, by direction; `groups` are those of the images and of the texts, see `Ranking`.

        R@k is what CLIP_benchmark computes of images with several captions: from images to texts, the share of images
        with any of their captions among the first k. For example rows (A, a1), (A, a2) and (B, b1) with the vectors of
        the example of `ranks` give what is worked out there: ranks [2, 3] of two images among three captions, and
        [2, 1, 2] of three captions among two images. As rows of their own the two A would tie with each other: of five
        captions an image R@1 would be 0 from texts to images, and at most 1/5 back, even for a perfect model.
        """
        rankings = rank_both(self.images, self.texts, self.pairs, groups, advance)
        return {
            direction: Queries(
                side.query_rows,
                1 + ranking.num_ahead,
                np.bincount(side.right[:, 0]),
                np.full(len(side.queries), len(side.candidates)),
                ranking,
            )
            for (direction, side), ranking in zip(self.sides().items(), rankings, strict=True)
        }


def _first_rows(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each id, in order, and which of these each row repeats."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[inverse]


def merge_articles(articles: Sequence[str], image_ids: Int[np.ndarray, " n"]) -> list[str]:
    """The article of each row, articles that share an image being one, named after the first of them.

    What is resampled together must not be split: a table without articles has one for each caption of an image.
    """
    names = np.asarray(articles, dtype=str)
    _, article = np.unique(names, return_inverse=True)
    _, first, image = np.unique(image_ids, return_index=True, return_inverse=True)
    if (article == article[first][image]).all():  # no image is in two articles
        return names.tolist()
    from scipy.sparse import coo_array  # a tenth of a second of imports, which searches need not
    from scipy.sparse.csgraph import connected_components

    num_articles, size = article.max() + 1, article.max() + image.max() + 2
    links = coo_array((np.ones(len(names)), (article, num_articles + image)), shape=(size, size))
    _, component = connected_components(links, directed=False)
    _, first, merged = np.unique(component[article], return_index=True, return_inverse=True)
    return names[first][merged].tolist()


def recall_at_k(ranks: Int[np.ndarray, ...], k: int) -> float:
    """Share of ranks of at most k."""
    return float(np.count_nonzero(ranks <= k) / ranks.size)


def sums_and_counts(values: Num[np.ndarray, "n k"]) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """The sum of what is not NaN in each column, and how much that is; as `sum`, which takes three times as long."""
    valid = ~np.isnan(values)
    return np.einsum("nk->k", np.where(valid, values, 0.0)), np.einsum("nk->k", valid, dtype=float)


def mean_of_directions(values: Num[np.ndarray, "n 2"]) -> float:
    """The mean over both directions of the mean over queries: of what is not NaN in each column."""
    sums, counts = sums_and_counts(values)
    with np.errstate(invalid="ignore"):  # without a query it is NaN
        return float((sums * counts[::-1]).sum() / (2 * counts.prod()))  # rounded once where sums are whole


def hits_at_k(ranks: Num[np.ndarray, ...], k: int) -> Float64[np.ndarray, ...]:
    """1 where a rank is at most k, 0 where it is larger, NaN where it is."""
    return np.where(np.isnan(ranks), np.nan, ranks <= k)


def max_candidates(both: Mapping[str, Queries]) -> int:
    """How many candidates a query has, in the direction with more of them."""
    return max(int(queries.num_candidates.max()) for queries in both.values())


def rank_metrics(ranks: Int[np.ndarray, " n"]) -> dict[str, float]:
    """R@1, R@5, R@10, median, mean and geometric mean rank, and MRR, the mean of 1/rank."""
    return {
        **{f"R@{k}": recall_at_k(ranks, k) for k in KS},
        "median_rank": float(np.median(ranks)),
        "mean_rank": float(ranks.mean()),
        "geometric_mean_rank": float(np.exp(np.log(ranks).mean())),
        "MRR": float((1 / ranks).mean()),
    }


def rank_ranges(num_candidates: int) -> dict[str, Range]:
    """The ranges of the `rank_metrics` that are means, among so many candidates: of no more than k all are found."""
    recalls: dict[str, Range] = {f"R@{k}": (1.0, 1.0) if k >= num_candidates else SHARE for k in KS}
    return recalls | {"mean_rank": (1.0, float(num_candidates)), "MRR": (1 / num_candidates, 1.0)}


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


def estimate(
    values: Num[np.ndarray, "n ..."],
    groups: Names,
    statistic: Callable[[np.ndarray], float],
    seed: int,
    range_: Range | None = None,
) -> Estimate:
    """`statistic(values)` with its 95 % percentile bootstrap interval, whole groups (articles) resampled together.

    Images of one article resemble each other; resampling single rows would claim too much
    (Field & Welsh 2007, cluster bootstrap).
    """
    ranges = {"": range_} if range_ else NO_RANGES
    return estimates(values, groups, lambda rows: {"": statistic(rows)}, seed, ranges)[""]


def estimates(
    values: Num[np.ndarray, "n ..."],
    groups: Names,
    statistics: Statistics,
    seed: int,
    ranges: Mapping[str, Range] = NO_RANGES,
    resamples: int = RESAMPLES,
) -> dict[str, Estimate]:
    """The same for several statistics of the same resamples, by name; `ranges` are those of means.

    A statistic that is not defined (NaN) is absent; resamples in which it is not defined are left out of its interval.
    """
    if is_one_group(groups):
        return without_intervals(statistics(values))
    resampled = [statistics(np.repeat(values, counts, axis=0)) for counts in resample_counts(groups, seed, resamples)]
    return percentile_ci(statistics(values), by_name(resampled), len(set(map(str, groups))), ranges)


def mean_estimates(
    columns: Mapping[str, Num[np.ndarray, " n"]], groups: Names, seed: int, ranges: Mapping[str, Range] = NO_RANGES
) -> dict[str, Estimate]:
    """`estimates` of the mean of what is not NaN in each column, in a fraction of its time."""
    values = np.stack(list(columns.values()), axis=1)
    sums, counts = sums_and_counts(values)
    with np.errstate(invalid="ignore"):
        means = dict(zip(columns, (sums / counts).tolist(), strict=True))
    if is_one_group(groups):
        return without_intervals(means)
    group = number_groups(groups)
    num_groups = int(group.max()) + 1
    (resampled,) = resample([means_of(values, group)], num_groups, seed, RESAMPLES)
    return percentile_ci(means, dict(zip(columns, resampled.T, strict=True)), num_groups, ranges)


def rank_estimates(ranks: Int[np.ndarray, " n"], groups: Names, seed: int, num_candidates: int) -> dict[str, Estimate]:
    """`estimates` of the `rank_metrics`, in a fraction of its time."""
    values = rank_metrics(ranks)
    if is_one_group(groups):
        return without_intervals(values)
    group = number_groups(groups)
    num_groups = int(group.max()) + 1
    items = {f"R@{k}": ranks <= k for k in KS} | {
        "mean_rank": ranks, "geometric_mean_rank": np.log(ranks), "MRR": 1 / ranks
    }  # fmt: skip
    statistics = means_of(np.stack(list(items.values()), axis=1), group), medians_of(ranks, group)
    means, medians = resample(statistics, num_groups, seed, RESAMPLES)
    samples = dict(zip(items, means.T, strict=True))
    samples |= {"median_rank": medians, "geometric_mean_rank": np.exp(samples["geometric_mean_rank"])}
    return percentile_ci(values, samples, num_groups, rank_ranges(num_candidates))


def is_one_group(groups: Names) -> bool:
    """Whether all rows are of one group, which resampling would give again and again."""
    return len(set(map(str, groups))) == 1


def without_intervals(values: Mapping[str, float]) -> dict[str, Estimate]:
    """Values that nothing says how they vary; undefined ones are left out."""
    return {name: Estimate(float(value), math.nan, math.nan) for name, value in values.items() if not np.isnan(value)}


def percentile_ci(
    values: Mapping[str, float],
    resampled: Mapping[str, Float64[np.ndarray, " r"]],
    num_groups: int,
    ranges: Mapping[str, Range],
) -> dict[str, Estimate]:
    """Values with the 2.5th and the 97.5th percentile of the resamples; undefined ones are left out.

    Where these are one, an interval without width would claim to be certain: see `unchanged_ends`.
    """
    result = {}
    for name, value in values.items():
        if np.isnan(value):
            continue
        sample = resampled[name]
        low, high = np.percentile(sample[~np.isnan(sample)], (2.5, 97.5))
        if high - low <= ROUNDING * max(1, abs(value)):
            low, high = unchanged_ends(name, value, num_groups, ranges.get(name))
        result[name] = Estimate(float(value), float(low), float(high))
    return result


def unchanged_ends(name: str, value: float, num_groups: int, range_: Range | None) -> Range:
    """The 95 % interval of a value that resamples do not change, as where all are right or none is.

    If a share q of all articles has this value, all n have it with probability q^n: below q = 0.025^(1/n) that is less
    than 2.5 % (Clopper and Pearson 1934; with articles as their number, Korn and Graubard 1998). The rest lies in the
    range of the mean. A median is the same if q is above one half. Of other statistics, as an AUROC of 1 (Obuchowski
    and Lieber 2002), resampling says nothing, and the ends are NaN.
    """
    if range_ is not None:
        share = 0.025 ** (1 / num_groups)
        low, high = range_
        return share * value + (1 - share) * low, share * value + (1 - share) * high
    is_median = name.startswith("median") and num_groups >= MIN_UNCHANGED_MEDIAN
    return (value, value) if is_median else (math.nan, math.nan)

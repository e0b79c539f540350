"""Retrieval metrics are what their definitions say of ranks (test_ranks); intervals hold what they should."""

import math
import warnings
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from medclip.metrics import (
    CHANGE_OF_SHARE,
    DIRECTIONS,
    DistinctPairs,
    Estimate,
    chance_metrics,
    estimate,
    estimates,
    hits_at_k,
    mean_estimates,
    mean_of_directions,
    merge_articles,
    rank_estimates,
    rank_metrics,
    rank_ranges,
    ranks,
    recall_at_k,
)
from medclip.named_metrics import format_interval, to_metric
from support.handmade_results import RANKS_EXAMPLE, by_hand


def mean(values):
    return float(values.mean())


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(1, 30))
def test_recall_is_the_share_of_ranks_up_to_k(values, k):
    assert recall_at_k(np.array(values), k) == pytest.approx(sum(r <= k for r in values) / len(values))


def test_figures_of_ranks():
    wanted = {
        "R@1": 0.25,
        "R@5": 0.5,
        "R@10": 0.75,
        "median_rank": 5.5,
        "mean_rank": 8,
        "geometric_mean_rank": (1 * 4 * 7 * 20) ** (1 / 4),
        "MRR": (1 + 0.25 + 1 / 7 + 0.05) / 4,
    }
    assert rank_metrics(np.array([1, 4, 7, 20])) == pytest.approx(wanted)


@pytest.mark.parametrize(("pool", "right"), [([5], [1]), ([30], [1]), ([30], [3]), ([30, 12, 4, 40], [1, 2, 4, 1])])
def test_chance_is_what_random_orders_give(pool, right):
    rng, trials = np.random.default_rng(0), 40_000
    own = np.concatenate(
        [rng.random((trials, n)).argsort(axis=1)[:, :r].min(axis=1) + 1 for n, r in zip(pool, right, strict=True)]
    )
    result = chance_metrics(np.array(pool), np.array(right))
    # Five standard errors of a share of 1/2 over as many trials, and of a rank with the spread of 1 … 40.
    for name, value in rank_metrics(own).items():
        assert result[name] == pytest.approx(value, abs=0.013 if name[0] in "RM" else 0.51), name
    if right == [1]:
        n = pool[0]
        assert result == pytest.approx(
            {f"R@{k}": min(1, k / n) for k in (1, 5, 10)}
            | {"median_rank": (n + 1) / 2, "mean_rank": (n + 1) / 2, "MRR": sum(1 / r for r in range(1, n + 1)) / n}
            | {"geometric_mean_rank": math.factorial(n) ** (1 / n)}
        )


@st.composite
def rows_of_pairs(draw):
    """Rows with an image and a caption each, out of five; equal names have equal vectors."""
    n, p = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    sides = []
    for _ in range(2):
        ids = draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
        vectors = np.reshape(draw(st.lists(st.integers(-2, 2), min_size=5 * p, max_size=5 * p)), (5, p))
        sides.append((np.array(ids), vectors))
    return sides


@given(rows_of_pairs())
def test_repeated_images_and_captions_are_one(sides):
    """By brute force: any right candidate will do, and each wrong one counts once."""
    (image_ids, image_vectors), (caption_ids, text_vectors) = sides
    distinct = DistinctPairs.of_rows(image_vectors[image_ids], text_vectors[caption_ids], image_ids, caption_ids)
    both = distinct.rank()
    assert tuple(both) == DIRECTIONS
    pairs = set(zip(image_ids.tolist(), caption_ids.tolist(), strict=True))
    cases = (
        (image_ids, image_vectors, caption_ids, text_vectors),
        (caption_ids, text_vectors, image_ids, image_vectors),
    )
    for direction, (query_names, queries, candidate_names, candidates) in zip(DIRECTIONS, cases, strict=True):
        own = both[direction]
        assert own.rows.tolist() == [query_names.tolist().index(name) for name in dict.fromkeys(query_names.tolist())]
        pool = sorted(set(candidate_names.tolist()))
        for row, rank, num_relevant, num_candidates in zip(
            own.rows, own.ranks, own.num_relevant, own.num_candidates, strict=True
        ):
            query = query_names[row]
            right = {i for i, c in enumerate(pool) if ((query, c) if query_names is image_ids else (c, query)) in pairs}
            assert (num_relevant, num_candidates) == (len(right), len(pool))
            assert rank == by_hand(queries[query], candidates[pool], right)
        column = own.column(len(query_names))
        assert np.isnan(column).sum() == len(query_names) - len(own.rows)
        assert np.array_equal(column[own.rows], own.ranks)


def test_without_repeats_ranks_are_those_of_rows_in_order():
    images, texts = np.random.default_rng(0).standard_normal((2, 50, 4))
    both = DistinctPairs.of_rows(images, texts, np.arange(50), np.arange(50)).rank()
    for own, expected in zip(both.values(), ranks(images, texts), strict=True):
        assert np.array_equal(own.ranks, expected)
        assert own.rows.tolist() == list(range(50))
        assert own.chance() == chance_metrics(np.full(1, 50), np.ones(1, int))
        articles = [str(i // 2) for i in range(50)]
        assert_equal(own.metrics(articles, 0), estimates(expected, articles, rank_metrics, 0, rank_ranges(50)))


def assert_equal(result, wanted):
    """Estimates to rounding, in the same order."""
    assert list(result) == list(wanted)
    for name, one in wanted.items():
        assert astuple(result[name]) == pytest.approx(astuple(one), rel=1e-12, nan_ok=True)


@settings(max_examples=8)  # each resamples 1,000 times
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5)), min_size=1, max_size=80))
def test_ranks_and_means_of_resamples_are_those_of_their_rows_repeated(rows):
    values, articles = np.array([r for r, _ in rows]), [f"{a}" for _, a in rows]
    wanted = estimates(values, articles, rank_metrics, 3, rank_ranges(30))
    assert_equal(rank_estimates(values, articles, 3, 30), wanted)
    columns = np.stack([values, np.where(values > 20, np.nan, values)], axis=1).astype(float)

    def means(rows):
        with warnings.catch_warnings(action="ignore"):  # of nothing but NaN
            return {"all": float(rows[:, 0].mean()), "some": float(np.nanmean(rows[:, 1]))}

    measured = mean_estimates(dict(zip(("all", "some"), columns.T, strict=True)), articles, 3, {"all": (1.0, 30.0)})
    assert_equal(measured, estimates(columns, articles, means, 3, {"all": (1.0, 30.0)}))


def recall_of_clip_benchmark(scores, positive_pairs, k):
    """The share of rows with at least one positive among the k highest: what its `recall_at_k` > 0 averages."""
    top = np.argsort(-scores, axis=1)[:, :k]
    return float(np.mean([positive_pairs[i, row].any() for i, row in enumerate(top)]))


def test_five_captions_of_an_image_give_what_clip_benchmark_gives():
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(40), 5)
    images, texts = rng.standard_normal((40, 8)), rng.standard_normal((200, 8))
    texts += images[owner]
    order = rng.permutation(200)  # rows of an image need not lie together
    both = DistinctPairs.of_rows(images[owner[order]], texts[order], owner[order], order).rank()
    positive = owner[:, None] == np.arange(40)
    for k in (1, 5, 10):
        hits = [hits_at_k(both[direction].column(200), k) for direction in DIRECTIONS]
        expected = [recall_of_clip_benchmark(images @ texts.T, positive.T, k)]
        expected.append(recall_of_clip_benchmark(texts @ images.T, positive, k))
        assert [np.nanmean(column) for column in hits] == pytest.approx(expected)
        assert mean_of_directions(np.stack(hits, axis=1)) == pytest.approx(np.mean(expected))
    assert (len(both["image_to_text"].ranks), len(both["text_to_image"].ranks)) == (40, 200)


def test_a_perfect_model_is_perfect_with_five_captions_an_image():
    owner = np.repeat(np.arange(6), 5)
    both = DistinctPairs.of_rows(np.eye(6)[owner], np.eye(6)[owner], owner, np.arange(30)).rank()
    assert all((own.ranks == 1).all() for own in both.values())
    assert both["image_to_text"].chance()["R@1"] == pytest.approx(1 / 6)
    assert both["text_to_image"].chance()["R@1"] == pytest.approx(1 / 6)
    as_rows = ranks(np.eye(6)[owner], np.eye(6)[owner])
    assert [recall_at_k(own, 1) for own in as_rows] == [0, 0]  # each ties with four of its own


def test_the_example_of_distinct_pairs():
    images, texts, pairs = RANKS_EXAMPLE
    both = DistinctPairs.of_rows(images[pairs[:, 0]], texts[pairs[:, 1]], pairs[:, 0], pairs[:, 1]).rank()
    assert [own.ranks.tolist() for own in both.values()] == [[2, 3], [2, 1, 2]]


def test_articles_that_share_an_image_are_one():
    articles = ["d", "b", "a", "b", "c", "e"]
    assert merge_articles(articles, np.array([0, 1, 2, 3, 2, 5])) == ["d", "b", "a", "b", "a", "e"]
    assert merge_articles(articles, np.arange(6)) == articles
    assert merge_articles(articles, np.array([0, 1, 1, 3, 3, 0])) == ["d", "b", "b", "b", "b", "d"]


def test_each_direction_counts_as_much_as_the_other():
    values = np.array([[1, 1], [np.nan, 0], [0, 0], [np.nan, 0]])
    assert mean_of_directions(values) == (1 / 2 + 1 / 4) / 2
    assert np.isnan(mean_of_directions(np.array([[np.nan, 1.0]])))


@settings(max_examples=8)  # each resamples 1,000 times
@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from("abcd")), min_size=1, max_size=30), st.integers(0, 9))
def test_every_value_lies_in_the_range_of_its_measure(rows, seed):
    values, articles = np.array([r for r, _ in rows]), [a for _, a in rows]
    assume(len({*articles}) > 1)
    result = estimates(values, articles, rank_metrics, seed, rank_ranges(30))
    assert {name: m.value for name, m in result.items()} == rank_metrics(values)
    assert not any(np.isnan(result[name].low) for name in rank_ranges(30))
    for name, m in result.items():
        if np.isnan(m.low):  # a rank that no resample changes
            continue
        rounding = 1e-12 if name == "geometric_mean_rank" else 0  # exp(log 30) is not 30
        assert (1 if "rank" in name else 0) <= m.low <= m.high <= (30 + rounding if "rank" in name else 1)


def test_an_interval_is_that_of_whole_articles_drawn_again():
    rng = np.random.default_rng(3)
    values, articles = rng.integers(1, 50, 60), np.array([f"{i // 4}" for i in range(60)])
    members = [values[articles == name] for name in np.unique(articles)]
    draws = np.random.default_rng(7)
    drawn = [np.median(np.concatenate([members[g] for g in draws.integers(0, 15, 15)])) for _ in range(1000)]
    low, high = np.percentile(drawn, (2.5, 97.5))
    assert estimates(values, articles, rank_metrics, 7)["median_rank"] == Estimate(np.median(values), low, high)


def test_the_interval_holds_the_value_and_follows_the_seed():
    values, groups = np.random.default_rng(0).random(200), [f"{i // 2}" for i in range(200)]
    first = estimate(values, groups, mean, seed=1)
    assert first.low < first.value == mean(values) < first.high
    assert estimate(values, groups, mean, seed=1) == first
    assert estimate(values, groups, mean, seed=2) != first


@pytest.mark.parametrize("num_articles", [2, 5, 6, 40])
@pytest.mark.parametrize("rank", [1, 20])
def test_where_no_resample_changes_a_share_its_interval_is_exact(num_articles, rank):
    """All right, or none: the bootstrap has no width there, and three right of three are no proof of 100 %."""
    articles = [f"{i // 3}" for i in range(3 * num_articles)]
    result = estimates(np.full(len(articles), rank), articles, rank_metrics, 0, rank_ranges(200))
    exact = binomtest(num_articles if rank == 1 else 0, num_articles).proportion_ci(method="exact")
    for name in ("R@1", "R@5", "R@10"):
        assert (result[name].low, result[name].high) == pytest.approx((exact.low, exact.high))
    q = 0.025 ** (1 / num_articles)  # of all articles at least, whose other ranks are from 1 to 200
    assert astuple(result["mean_rank"]) == pytest.approx((rank, q * rank + (1 - q), q * rank + (1 - q) * 200))
    assert np.isnan(result["geometric_mean_rank"].low)
    # 97.5 % that more than half of all articles have this rank: of five the median may be another
    assert np.isnan(result["median_rank"].low) == (num_articles < 6)


def test_a_mean_that_no_resample_changes_reaches_to_the_ends_of_its_range():
    """At most 1 - q of all articles have another value, q^3 = 0.025; each of theirs lies between -1 and 1."""
    q = 0.025 ** (1 / 3)
    fall = estimate(np.full(3, -0.5), list("abc"), mean, 0, CHANGE_OF_SHARE)
    assert (fall.low, fall.high) == pytest.approx((-0.5 * q - (1 - q), -0.5 * q + (1 - q)))


def test_what_is_found_among_fewer_than_k_is_certain():
    result = estimates(np.array([1, 1, 1, 4]), list("abcd"), rank_metrics, 0, rank_ranges(5))
    assert [astuple(result[name]) for name in ("R@5", "R@10")] == [(1, 1, 1)] * 2
    assert result["R@1"].low < 0.75


def test_a_median_of_many_equal_ranks_is_certain():
    result = estimates(np.r_[np.ones(95, int), np.full(5, 30)], np.arange(100), rank_metrics, 0, rank_ranges(100))
    assert result["median_rank"] == Estimate(1.0, 1.0, 1.0)


def test_one_article_gives_no_interval():
    """Drawn again and again it is always the same: an interval without width would claim to be certain."""
    result = estimates(np.arange(10), ["one"] * 10, lambda rows: {"mean": mean(rows), "never": math.nan}, 0)
    assert list(result) == ["mean"] and result["mean"].value == 4.5
    metric = to_metric("mean", result["mean"])
    assert (metric.value, metric.low, metric.high, format_interval(metric)) == (4.5, None, None, "")


def test_a_statistic_that_is_not_defined_is_absent():
    def measure(rows):
        return {"never": float("nan"), "at times": mean(rows) if rows.max() == 9 else float("nan")}

    result = estimates(np.arange(10.0), list("abcdefghij"), measure, 0)
    assert "never" not in result
    assert result["at times"].value == 4.5 < result["at times"].high


def test_the_order_of_rows_changes_no_interval():
    rng = np.random.default_rng(0)
    values, groups = rng.integers(0, 2, 60).astype(float), np.array([f"{i % 17}" for i in range(60)])
    order = rng.permutation(60)
    shuffled = estimate(values[order], groups[order], mean, 0)
    assert astuple(shuffled) == pytest.approx(astuple(estimate(values, groups, mean, 0)))  # sums in another order


def test_images_of_one_article_are_not_counted_as_independent():
    values = np.repeat(np.random.default_rng(0).integers(0, 2, 40), 10).astype(float)

    def width(groups):
        result = estimate(values, groups, mean, 0)
        return result.high - result.low

    alone, together = width([f"{i}" for i in range(400)]), width([f"{i // 10}" for i in range(400)])
    assert together == pytest.approx(alone * 10**0.5, rel=0.15)  # 1,000 resamples give each bound within about 7 %


@pytest.mark.slow
def test_about_95_of_100_intervals_hold_the_truth():
    rng, trials = np.random.default_rng(0), 250
    articles, alone = [f"{i // 3}" for i in range(180)], [f"{i}" for i in range(180)]

    def shares(rows):
        return {"share": float(rows[:, 0].mean()), "median": float(np.median(rows[:, 1]))}

    held = {"share": 0, "median": 0, "articles ignored": 0}
    for trial in range(trials):
        truth_of_article = rng.beta(2, 2, 60).repeat(3)  # rows of an article resemble each other; the mean is 0.5
        level = rng.standard_normal(60).repeat(3) + rng.standard_normal(180)  # and the median is 0
        rows = np.stack([rng.random(180) < truth_of_article, level], axis=1).astype(float)
        result = estimates(rows, articles, shares, trial, resamples=200)
        held["share"] += result["share"].low <= 0.5 <= result["share"].high
        held["median"] += result["median"].low <= 0 <= result["median"].high
        ignored = estimates(rows, alone, shares, trial, resamples=100)["median"]
        held["articles ignored"] += ignored.low <= 0 <= ignored.high
    # Three standard errors of a share of 0.95 over 250 trials are 0.041; 60 groups cost about 0.01.
    assert 0.90 < held["share"] / trials < 0.991
    assert 0.90 < held["median"] / trials < 0.991
    assert held["articles ignored"] / trials < 0.90  # the test can tell

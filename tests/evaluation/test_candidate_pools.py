"""Other pools, against brute force and exact expectation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from medclip.errors import UserError
from medclip.evaluation.candidate_pools import draw_pools, fixed_pools, over_draws, rank_by_article
from medclip.metrics import DIRECTIONS, DistinctPairs, Estimate, rank_metrics, ranks
from support.handmade_results import by_hand


@st.composite
def labeled_pairs(draw):
    """Pairs of small whole numbers with an article, an image and a caption each; equal names have equal vectors."""
    n, p = draw(st.integers(1, 10)), draw(st.integers(1, 3))
    names = {what: draw(st.lists(st.sampled_from("abcde"), min_size=n, max_size=n)) for what in ("article", "i", "t")}
    values = {
        what: {name: draw(st.lists(st.integers(-2, 2), min_size=p, max_size=p)) for name in "abcde"} for what in "it"
    }
    images, texts = (np.array([values[what][name] for name in names[what]]) for what in "it")
    return images, texts, names["article"], names["i"], names["t"]


def numbers(names):
    return np.array([sorted(set(names)).index(name) for name in names])


@given(labeled_pairs())
def test_wrong_neighbors_of_the_query_s_article_do_not_count(case):
    images, texts, articles, image_names, captions = case
    pairs = DistinctPairs.of_rows(images, texts, numbers(image_names), numbers(captions))
    _, disjoint = rank_by_article(pairs, articles)
    sides = ((image_names, images, captions, texts), (captions, texts, image_names, images))
    for direction, (query_names, queries, candidate_names, candidates) in zip(DIRECTIONS, sides, strict=True):
        own = disjoint[direction]
        first = [candidate_names.index(name) for name in dict.fromkeys(candidate_names)]  # the row of each candidate
        for row, rank, num_candidates in zip(own.rows, own.ranks, own.num_candidates, strict=True):
            right = {candidate_names[j] for j in range(len(query_names)) if query_names[j] == query_names[row]}
            left = [j for j in first if candidate_names[j] in right or articles[j] != articles[row]]
            good = {place for place, j in enumerate(left) if candidate_names[j] in right}
            assert (rank, num_candidates) == (by_hand(queries[row], candidates[left], good), len(left))


def test_without_repeats_or_articles_nothing_changes():
    images, texts = np.random.default_rng(0).standard_normal((2, 50, 4))
    pairs = DistinctPairs.of_rows(images, texts, np.arange(50), np.arange(50))
    _, disjoint = rank_by_article(pairs, [f"{i:02}" for i in range(50)])
    for own, expected in zip(disjoint.values(), ranks(images, texts), strict=True):
        assert np.array_equal(own.ranks, expected)
        assert (own.num_candidates == 50).all()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=12), st.integers(0, 9))
def test_no_two_pairs_of_a_draw_share_an_image_or_a_caption(ids, seed):
    image_ids, caption_ids = np.array(ids).T
    try:
        draws = draw_pools(image_ids, caption_ids, 3, 4, seed)
    except UserError:  # of a draw that takes a pair in the middle, (0, 0), one of (0, 1) and (1, 0) remains
        return
    for rows in draws:
        assert len(set(rows.tolist())) == len(set(image_ids[rows])) == len(set(caption_ids[rows])) == 3


def test_a_draw_of_more_than_there_are_distinct_is_refused():
    ids = np.repeat(np.arange(4), 5)
    assert [len(rows) for rows in draw_pools(ids, np.arange(20), 4, 2, 0)] == [4, 4]
    with pytest.raises(UserError, match="--num-candidates 5: a draw has but 4 pairs that share no image or caption"):
        draw_pools(ids, np.arange(20), 5, 2, 0)


def test_without_repeats_a_draw_is_that_of_numpy():
    for draw, rows in enumerate(draw_pools(np.arange(60), np.arange(60), 20, 3, 7)):
        assert np.array_equal(rows, np.sort(np.random.default_rng([7, draw]).choice(60, 20, replace=False)))


def pools_of(images, texts, articles, size, num_draws, seed):
    rows = np.arange(len(images))
    return fixed_pools(images, texts, articles, draw_pools(rows, rows, size, num_draws, seed), seed)


def metrics_of(*arguments):
    metrics, facts = pools_of(*arguments)
    assert facts["fixed_pool/num_candidates"] == arguments[3]
    return {metric.name.removeprefix("fixed_pool/"): metric for metric in metrics}


@pytest.mark.slow
def test_a_fixed_pool_gives_what_is_expected_of_all_pools_of_its_size():
    """Of r - 1 better candidates among n - 1, a pool of m has a hypergeometric number among its other m - 1."""
    rng, draws = np.random.default_rng(0), 16
    images = rng.standard_normal((60, 8))
    texts = images + rng.standard_normal((60, 8))
    result = metrics_of(images, texts, [f"{i}" for i in range(60)], 20, draws, 0)
    for direction, full in zip(("image_to_text", "text_to_image"), ranks(images, texts), strict=True):
        for k in (1, 5):
            wanted = hypergeom(59, full - 1, 19).cdf(k - 1).mean()
            metric = result[f"{direction}/R@{k}"]
            assert metric.value == pytest.approx(np.mean(metric.draws))
            assert metric.value == pytest.approx(wanted, abs=4 * np.std(metric.draws, ddof=1) / draws**0.5)


def test_a_pool_of_all_pairs_is_the_full_pool_in_every_draw():
    images, texts = np.random.default_rng(0).standard_normal((2, 30, 4))
    result = metrics_of(images, texts, [f"{i // 2}" for i in range(30)], 30, 3, 0)
    for direction, full in zip(("image_to_text", "text_to_image"), ranks(images, texts), strict=True):
        for name, value in rank_metrics(full).items():
            metric = result[f"{direction}/{name}"]
            assert metric.draws == (value,) * 3
            assert metric.low <= metric.value <= metric.high


@pytest.mark.slow
def test_draws_differ_and_follow_the_seed():
    images, texts = np.random.default_rng(0).standard_normal((2, 60, 4))
    first, again, other = (pools_of(images, texts, list("ab") * 30, 20, 3, seed) for seed in (0, 0, 1))
    assert first == again != other
    (mean_rank,) = (metric for metric in first[0] if metric.name == "fixed_pool/image_to_text/mean_rank")
    assert len(set(mean_rank.draws)) == 3


def test_one_article_gives_no_interval():
    draws = [np.arange(3), np.arange(1, 4)]
    result = over_draws([np.array([1, 2, 3])] * 2, draws, ["one"] * 4, seed=0)
    assert result["R@1"].value == pytest.approx(1 / 3) and np.isnan(result["R@1"].low)


def test_a_draw_that_a_resample_leaves_empty_is_passed_over():
    draws = [np.array([0, 1]), np.array([2, 3])]
    result = over_draws([np.array([1, 2]), np.array([2, 1])], draws, list("abcd"), 0)
    assert result["R@1"] == Estimate(0.5, 0.0, 1.0)


@pytest.mark.slow
def test_about_95_of_100_intervals_hold_the_truth_of_pools():
    """Articles and pairs are drawn anew each time, so the truth is the mean over both; candidates change with them."""
    rng, trials, size = np.random.default_rng(0), 120, 40
    articles = [f"{i // 3}" for i in range(150)]

    def sample():
        subjects = 0.7 * rng.standard_normal((50, 1, 16)) + rng.standard_normal((50, 3, 16))
        blur = rng.uniform(0.8, 2.4, (50, 1, 1)) * rng.standard_normal((50, 3, 16))  # articles are clear or not
        return subjects.reshape(-1, 16), (subjects + blur).reshape(-1, 16)

    def ranks_of(images, texts, rows):
        return ranks(images[rows], texts[rows])[0]

    def one_draw():
        return ranks_of(*sample(), rng.choice(150, size, replace=False))

    truth = np.mean([list(rank_metrics(one_draw()).values()) for _ in range(1000)], axis=0)
    held = np.zeros(len(truth))
    for trial in range(trials):
        images, texts = sample()
        chosen = [rng.choice(150, size, replace=False) for _ in range(4)]
        own = [ranks_of(images, texts, rows) for rows in chosen]
        measured = over_draws(own, chosen, articles, trial, resamples=100)
        held += [m.low <= t <= m.high for m, t in zip(measured.values(), truth, strict=True)]
    # Three standard errors of a share of 0.95 over 120 trials are 0.060.
    assert (held / trials > 0.89).all(), held / trials

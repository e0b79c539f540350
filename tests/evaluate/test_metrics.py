"""Retrieval metrics are what their definitions say, ties and bad values included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medclip.evaluate.metrics import interval, ranks, recall_at, retrieval_metrics


@st.composite
def matrices(draw):
    """Queries and candidates of small whole numbers: their products are exact in float32, and often tie."""
    n, p = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    values = st.lists(st.integers(-2, 2), min_size=n * p, max_size=n * p)
    return tuple(np.array(draw(values), np.float32).reshape(n, p) for _ in range(2))


def mean(values):
    return float(values.mean())


@given(matrices())
def test_ranks_equal_a_count_by_hand(pair):
    queries, candidates = pair
    for i, rank in enumerate(ranks(queries, candidates)):
        scores = [float(np.dot(queries[i], candidate)) for candidate in candidates]
        better = sum(score > scores[i] for score in scores)
        tied = sum(score == scores[i] for j, score in enumerate(scores) if j != i)
        assert rank == 1 + better + tied


def test_ranks_do_not_depend_on_the_chunk():
    queries, candidates = np.random.default_rng(0).integers(-3, 4, (2, 1500, 4)).astype(np.float32)
    scores = queries @ candidates.T
    wanted = (scores >= np.diagonal(scores)[:, None]).sum(axis=1)
    assert np.array_equal(ranks(queries, candidates), wanted)


def test_a_perfect_model_has_rank_one_everywhere():
    assert (ranks(np.eye(20), np.eye(20)) == 1).all()


def test_a_reversed_model_has_the_last_rank_everywhere():
    assert (ranks(np.eye(20), -np.eye(20)) == 20).all()


def test_a_collapsed_model_gains_nothing():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((1, 128)).astype(np.float32)
    for n in range(2, 70):  # every width that the kernels' edges may see
        queries = rng.standard_normal((n, 128)).astype(np.float32)
        assert (ranks(queries, np.repeat(one, n, axis=0)) == n).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_is_refused(bad, side):
    both = [np.eye(3), np.eye(3)]
    both[side][1, 2] = bad
    with pytest.raises(ValueError, match="not finite"):
        ranks(*both)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="do not pair up"):
        ranks(np.eye(3), np.eye(3)[:2])


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(1, 30))
def test_recall_is_the_share_of_ranks_up_to_k(found, k):
    assert recall_at(np.array(found), k) == pytest.approx(sum(r <= k for r in found) / len(found))


@settings(max_examples=8)  # each resamples 4,000 times
@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from("abcd")), min_size=1, max_size=30), st.integers(0, 9))
def test_every_value_lies_in_the_range_of_its_measure(rows, seed):
    found, articles = np.array([r for r, _ in rows]), [a for _, a in rows]
    measured = retrieval_metrics(found, articles, seed)
    assert list(measured) == ["R@1", "R@5", "R@10", "median_rank"]
    assert measured["median_rank"]["value"] == np.median(found)
    for name, m in measured.items():
        assert m["low"] <= m["high"]
        if name.startswith("R@"):
            assert m["value"] == recall_at(found, int(name[2:]))
            assert 0 <= m["low"] <= m["high"] <= 1


def test_the_interval_holds_the_value_and_follows_the_seed():
    values, groups = np.random.default_rng(0).random(200), [f"{i // 2}" for i in range(200)]
    first = interval(values, groups, mean, seed=1)
    assert first["low"] < first["value"] == mean(values) < first["high"]
    assert interval(values, groups, mean, seed=1) == first
    assert interval(values, groups, mean, seed=2) != first


def test_the_order_of_rows_changes_no_interval():
    rng = np.random.default_rng(0)
    values, groups = rng.integers(0, 2, 60).astype(float), np.array([f"{i % 17}" for i in range(60)])
    order = rng.permutation(60)
    shuffled = interval(values[order], groups[order], mean, 0)
    assert shuffled == pytest.approx(interval(values, groups, mean, 0))  # sums in another order


def test_pictures_of_one_article_are_not_counted_as_independent():
    values = np.repeat(np.random.default_rng(0).integers(0, 2, 40), 10).astype(float)

    def width(groups):
        found = interval(values, groups, mean, 0)
        return found["high"] - found["low"]

    alone, together = width([f"{i}" for i in range(400)]), width([f"{i // 10}" for i in range(400)])
    assert together == pytest.approx(alone * 10**0.5, rel=0.15)  # 1,000 resamples give each bound within about 7 %


@pytest.mark.slow
def test_about_95_of_100_intervals_hold_the_truth():
    rng, trials, held = np.random.default_rng(0), 400, 0
    groups = [f"{i // 3}" for i in range(180)]
    for trial in range(trials):
        truth_of_article = rng.beta(2, 2, 60).repeat(3)  # rows of an article resemble each other; the mean is 0.5
        found = interval((rng.random(180) < truth_of_article).astype(float), groups, mean, trial, resamples=400)
        held += found["low"] <= 0.5 <= found["high"]
    # Three standard errors of a share of 0.95 over 400 trials are 0.033; 60 groups cost about 0.01.
    assert 0.90 < held / trials < 0.99

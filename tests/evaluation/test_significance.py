"""Differences between models are exact where they are known, and noise is called noise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from medclip.evaluation import significance as module
from medclip.evaluation.significance import (
    STATISTICS,
    holm_adjust,
    paired_differences,
    value_of,
    verdict,
)
from support.handmade_results import articles_of

MEAN, BALANCED = STATISTICS["mean"], STATISTICS["mean_over_classes"]
BY_NAME = {name: statistic for name, statistic in STATISTICS.items() if statistic not in (MEAN, BALANCED)}
RANKS = list(BY_NAME.values())


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(module, "RESAMPLES", 1000)


def alone(n):
    return [f"{i}" for i in range(n)]


def differences(one, other, articles, statistics=RANKS, classes=None):
    return paired_differences(np.asarray(one), np.asarray(other), articles, classes or [""] * len(one), statistics, 0)


@settings(max_examples=10)
@given(st.lists(st.tuples(st.integers(1, 50), st.sampled_from("abcde")), min_size=1, max_size=40))
def test_equal_models_differ_by_exactly_nothing(rows):
    ranks = np.array([rank for rank, _ in rows])
    articles = [article for _, article in rows]
    for statistic, one in zip(RANKS, differences(ranks, ranks, articles), strict=True):
        none = 1 if statistic.ratio else 0
        ends = (np.nan if len(set(articles)) == 1 else none,) * 2
        np.testing.assert_equal((one.difference, one.low, one.high, one.p), (none, *ends, 1))
        assert verdict(statistic, one, holm_adjust([one.p])[0]) == "within noise"


def test_differences_are_those_of_the_measures_themselves():
    one, other = np.array([1, 4, 9, 20, 100, 3]), np.array([1, 6, 12, 10, 50, 2])
    by_name = dict(zip(BY_NAME, differences(one, other, alone(6)), strict=True))
    assert by_name["R@1"].difference == 0
    assert by_name["R@5"].difference == pytest.approx(2 / 6 - 3 / 6)
    assert by_name["R@10"].difference == pytest.approx(4 / 6 - 4 / 6)
    assert by_name["MRR"].difference == pytest.approx((1 / other).mean() - (1 / one).mean())
    assert (by_name["median_rank"].baseline, by_name["median_rank"].value) == (6.5, 8)
    assert by_name["geometric_mean_rank"].baseline == pytest.approx(np.prod(one) ** (1 / 6))
    assert by_name["geometric_mean_rank"].difference == pytest.approx((np.prod(other) / np.prod(one)) ** (1 / 6))


def test_a_planted_difference_is_found_and_has_its_sign():
    rng = np.random.default_rng(0)
    one = rng.integers(1, 301, 300)
    other = np.maximum(1, one // 20)
    for statistic, difference in zip(RANKS, differences(one, other, articles_of(300)), strict=True):
        assert verdict(statistic, difference, difference.p) == "better"
    back = dict(zip(BY_NAME, differences(other, one, articles_of(300)), strict=True))
    assert verdict(BY_NAME["R@10"], back["R@10"], back["R@10"].p) == "worse"
    assert back["geometric_mean_rank"].low > 1.5


def test_models_that_change_places_change_the_sign():
    rng = np.random.default_rng(1)
    one, other = rng.integers(1, 40, (2, 60))
    for statistic, forth, back in zip(
        RANKS, differences(one, other, alone(60)), differences(other, one, alone(60)), strict=True
    ):
        if statistic.ratio:
            assert forth.difference == pytest.approx(1 / back.difference)
            assert (forth.low, forth.high) == pytest.approx((1 / back.high, 1 / back.low))
        else:
            assert forth.difference == pytest.approx(-back.difference)
            assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))
        assert forth.p == back.p


def test_few_gains_are_judged_as_the_exact_test_judges_them():
    one, other = np.zeros(200), np.r_[np.ones(4), np.zeros(196)]
    (difference,) = differences(one, other, alone(200), [MEAN])
    assert difference.low > 0  # the bootstrap alone would call it a difference
    assert difference.p == pytest.approx(
        0.125, abs=0.04
    )  # the sign test: 2 / 2^4; three standard errors of 1,000 draws
    assert verdict(MEAN, difference, difference.p) == "within noise"


def test_gains_within_one_article_are_one_gain():
    one, other = np.zeros(100), np.r_[np.ones(10), np.zeros(90)]
    (difference,) = differences(one, other, articles_of(100, 10), [MEAN])
    assert difference.p > 0.9
    assert difference.low == 0


@pytest.mark.parametrize("n", [1, 2])
def test_very_few_items_prove_nothing(n):
    for difference in differences([50] * n, [1] * n, alone(n)):
        assert difference.p > 0.3


def test_balanced_accuracy_is_the_mean_over_classes():
    rng = np.random.default_rng(0)
    classes = rng.choice(list("abc"), 300, p=[0.8, 0.15, 0.05])
    called = [np.where(rng.random(300) < share, classes, "a") for share in (0.2, 0.7)]
    correct = [(one == classes).astype(float) for one in called]
    (difference,) = differences(*correct, alone(300), [BALANCED], classes.tolist())
    wanted = [balanced_accuracy_score(classes, one) for one in called]
    assert [value_of(BALANCED, one, classes) for one in correct] == pytest.approx(wanted)
    assert difference.difference == pytest.approx(wanted[1] - wanted[0])
    assert 0 < difference.low < difference.difference < difference.high
    assert difference.p < 0.01


def test_a_class_that_a_resample_misses_spoils_nothing():
    classes = ["rare"] + ["common"] * 9
    (difference,) = differences(np.zeros(10), np.ones(10), alone(10), [BALANCED], classes)
    assert (difference.difference, difference.low, difference.high) == (1, 1, 1)


def test_holm_corrects_as_published():
    # R's p.adjust(c(.01, .04, .03, .005), "holm")
    assert holm_adjust([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_adjust([0.5, 0.9]) == [1, 1]
    assert holm_adjust([]) == []


def test_the_same_seed_gives_the_same_interval():
    one, other = np.random.default_rng(0).integers(1, 30, (2, 50))
    first = paired_differences(one, other, alone(50), [""] * 50, RANKS, 3)
    assert paired_differences(one, other, alone(50), [""] * 50, RANKS, 3) == first
    assert paired_differences(one, other, alone(50), [""] * 50, RANKS, 4) != first


def simulate(rng, gain):
    """Whether two models hit each of 180 items in 60 articles: items of an article resemble each other."""
    article = rng.normal(0, 1, 60).repeat(3)
    item = rng.normal(0, 1, 180)
    return [(article + item + rng.normal(0, 1, 180) + shift > 0).astype(float) for shift in (0, gain)]


@pytest.mark.slow
def test_intervals_hold_the_truth_and_alike_models_are_called_alike(monkeypatch):
    monkeypatch.setattr(module, "RESAMPLES", 400)
    rng, articles, trials = np.random.default_rng(0), articles_of(180, 3), 400
    truth = float(np.mean([np.subtract(*simulate(rng, 0.6)[::-1]).mean() for _ in range(4000)]))
    held = alarms = 0
    for _ in range(trials):
        (better,) = differences(*simulate(rng, 0.6), articles, [MEAN])
        (same,) = differences(*simulate(rng, 0), articles, [MEAN])
        held += better.low <= truth <= better.high
        alarms += verdict(MEAN, same, same.p) != "within noise"
    # Three standard errors of a share of 0.95 over 400 trials are 0.033; 60 articles cost the interval about 0.01.
    assert 0.90 < held / trials < 0.985
    assert alarms / trials < 0.05 + 0.033

"""Graded retrieval equals scikit-learn's metrics, and counts ties against the model."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from medclip.evaluation.graded_relevance import (
    Concepts,
    average_precision,
    gain,
    grade,
    grade_estimates,
    ideal_gain,
    merge_sets,
)
from medclip.metrics import Estimate

CT, CHEST, LUNG, MASS = "C0040405", "C0817096", "C0024109", "C0577559"
SETS = [[CT, CHEST], [CT, CHEST, LUNG], [], [MASS], [CT, CHEST, CT], [LUNG, MASS]]


def grade_pairs(images, texts, sets):
    """Grades from images to texts where row i of both, with set i, is a pair."""
    own = np.repeat(np.arange(len(sets))[:, None], 2, axis=1)
    return grade(images, texts, list(map(frozenset, sets)), Concepts(sets), own)


def test_relevance_is_the_jaccard_index_of_sets():
    concepts = Concepts(SETS)
    assert concepts.relevance({CT, CHEST}).tolist() == pytest.approx([1, 2 / 3, 0, 0, 1, 0])
    assert concepts.relevance({LUNG, MASS}).tolist() == pytest.approx([0, 1 / 4, 0, 1 / 2, 0, 1])


def test_the_concepts_of_a_repeated_image_are_those_of_all_its_rows():
    assert merge_sets([[CT], [CHEST, CT], [], [LUNG]], np.array([0, 0, 1, 0])) == [{CT, CHEST, LUNG}, set()]


def test_every_caption_of_an_image_is_wholly_relevant_to_it():
    """Image A has captions 0 (CT) and 1 (chest), B has 2 (CT): A's concepts are both, and 2 shares one of two."""
    images, texts = np.array([[1.0, 0], [0, 1.0]]), np.array([[0.5, 0.5], [0.6, 0.5], [0.7, 0.9]])
    own = np.array([[0, 0], [0, 1], [1, 2]])
    grades = grade(images, texts, [frozenset({CT, CHEST}), frozenset({CT})], Concepts([[CT], [CHEST], [CT]]), own)
    # A finds 2, 1, 0: relevances 1/2, 1, 1, of which all are at least 1/2
    dcg, best = 1 / 2 + 1 / np.log2(3) + 1 / 2, 1 + 1 / np.log2(3) + 1 / 4
    assert grades[0] == pytest.approx([dcg / best, 1, 5 / 6 * (1 + 1 / np.log2(3) + 1 / 2) / best, 1])
    # B finds 2 first, then both others tied: 0 (CT) is relevant, and stands behind 1 (chest), which is not
    assert grades[1, :2] == pytest.approx([(1 + 1 / 2) / (1 + 1 / np.log2(3)), (1 + 2 / 3) / 2])


def test_a_case_by_hand():
    images = np.array([[1.0, 0], [0, 1.0]] + [[0.0, 0.0]] * 4)
    texts = np.array([[0.1, 0], [0.3, 0], [0.2, 0], [0, 0.5], [0.4, 0], [0, 0.1]])
    # Image 0 finds texts 4, 1, 2, 0, and then 3 and 5 at zero: relevances 1, 2/3, 0, 1, 0, 0.
    dcg, best = 1 + 2 / 3 / np.log2(3) + 1 / np.log2(5), 1 + 1 / np.log2(3) + 2 / 3 / 2
    grades = grade_pairs(images, texts, SETS)
    assert grades[0, 0] == pytest.approx(dcg / best)
    assert grades[0, 1] == pytest.approx((1 / 1 + 2 / 2 + 3 / 4) / 3)  # 4, 1 and 0 have a relevance of at least 1/2
    assert np.isnan(grades[2]).all()  # asks nothing: it has no concepts
    assert not np.isnan(grades[[0, 1, 3, 4, 5]]).any()


@pytest.mark.parametrize("n", [1, 4, 10, 11, 300])
def test_equal_to_scikit_learn_where_nothing_ties(n):
    rng = np.random.default_rng(n)
    scores, relevance = rng.permutation(n) / n, rng.choice([0, 0.25, 0.5, 1], n)
    relevance[0] = 1
    if n > 1:  # scikit-learn refuses a single candidate
        wanted = ndcg_score(relevance[None], scores[None], k=10)
        assert gain(scores, relevance) / ideal_gain(relevance) == pytest.approx(wanted)
    assert average_precision(scores, relevance >= 0.5) == pytest.approx(
        average_precision_score(relevance >= 0.5, scores)
    )


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0, 0.5, 1])), min_size=2, max_size=6))
def test_of_tied_candidates_the_least_relevant_comes_first(rows):
    scores, relevance = (np.array(column, float) for column in zip(*rows, strict=True))
    discounts = 1 / np.log2(np.arange(2, len(rows) + 2))
    orders = [list(o) for o in permutations(range(len(rows))) if (np.diff(scores[list(o)]) <= 0).all()]
    assert gain(scores, relevance) == pytest.approx(min(relevance[order] @ discounts for order in orders))
    if (relevance >= 0.5).any():
        wanted = average_precision_score(relevance >= 0.5, scores)
        assert average_precision(scores, relevance >= 0.5) == pytest.approx(wanted)


def test_a_collapsed_model_has_no_more_than_its_ties_allow():
    rng = np.random.default_rng(0)
    same = np.repeat(rng.standard_normal((1, 64)), 40, axis=0)
    grades = grade_pairs(rng.standard_normal((40, 64)), same, [[CT]] * 10 + [[MASS]] * 30)
    assert (grades[:10, 0] == 0).all()  # thirty irrelevant ones stand before
    assert grades[:10, 1] == pytest.approx(np.full(10, 0.25))


@pytest.mark.slow
def test_chance_is_what_random_orders_give():
    rng = np.random.default_rng(0)
    sets = [[CT, CHEST], [CT], [CHEST], [MASS, CT]] * 5 + [[LUNG]] * 10 + [[]] * 5
    grades = [grade_pairs(rng.standard_normal((35, 3)), rng.standard_normal((35, 3)), sets) for _ in range(400)]
    means = np.nanmean(grades, axis=1)
    error = means[:, :2].std(axis=0) / 400**0.5
    assert (np.abs(means[:, :2].mean(axis=0) - means[0, 2:]) < 4 * error).all()  # four standard errors


def test_only_queries_with_concepts_count():
    grades = np.array([[0.5, 0.4, 0.1, 0.2], [np.nan] * 4, [1.0, 0.8, 0.3, 0.2]])
    measured, chance = grade_estimates(grades, ["a", "b", "c"], 0)
    assert measured["nDCG@10"] == Estimate(0.75, 0.5, 1.0)
    assert measured["mAP"].value == pytest.approx(0.6)
    assert chance == pytest.approx({"nDCG@10": 0.2, "mAP": 0.2})

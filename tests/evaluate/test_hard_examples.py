"""The pairs that are confused most, and neighbors, against what a loop finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medclip.evaluate import hard_examples
from medclip.evaluate.hard_examples import MisrankedPair, confused, examples, nearest


def test_the_widest_margin_comes_first_and_the_sure_pair_not_at_all():
    images = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    texts = np.array([[0.6, 0.8, 0], [1.0, 0, 0], [0, 0, 1.0]])
    assert confused(images, texts, ["a", "b", "c"], 9) == [
        MisrankedPair("b", "a", pytest.approx(0), pytest.approx(0.8)),
        MisrankedPair("a", "b", pytest.approx(0.6), pytest.approx(1)),
    ]
    assert [pair.margin for pair in confused(images, texts, ["a", "b", "c"], 1)] == [pytest.approx(0.8)]


def test_pairs_that_are_all_told_apart_confuse_nothing():
    assert confused(np.eye(4), np.eye(4), list("abcd"), 3) == []


def test_a_tie_is_no_confusion():
    one = np.array([[1.0, 0], [1.0, 0]])
    assert confused(one, one, ["a", "b"], 3) == []


@settings(max_examples=25)
@given(st.integers(1, 12), st.integers(1, 15), st.booleans(), st.integers(0, 99))
def test_neighbors_are_those_of_a_full_sort(n, k, own, seed):
    rng = np.random.default_rng(seed)
    queries, candidates = rng.standard_normal((2, n, 3))
    found, scores = nearest(queries, candidates, k, own)
    for i in range(n):
        all_of_them = [(-queries[i] @ candidates[j], j) for j in range(n) if own or j != i]
        wanted = sorted(all_of_them)[:k]
        assert found[i].tolist() == [j for _, j in wanted]
        np.testing.assert_allclose(scores[i], [-score for score, _ in wanted])


def test_chunks_change_nothing(monkeypatch):
    vectors = np.random.default_rng(0).standard_normal((23, 4))
    whole = nearest(vectors, vectors, 5, own=False)
    monkeypatch.setattr(hard_examples, "_CHUNK", 7)
    for one, other in zip(whole, nearest(vectors, vectors, 5, own=False), strict=True):
        np.testing.assert_allclose(one, other)


def test_examples_name_pairs_both_ways_and_the_closest_pictures():
    images = np.array([[1.0, 0], [0.6, 0.8], [0.8, 0.6]])
    texts = np.array([[0, 1.0], [1.0, 0], [0.8, 0.6]])
    told = examples(images, texts, ["a", "b", "c"], 2)
    assert [(one["id"], one["other"]) for one in told["most_confused"]["image_to_text"]] == [("a", "b"), ("b", "c")]
    assert told["most_confused"]["image_to_text"][0] == {"id": "a", "other": "b", "own_score": 0, "other_score": 1}
    assert [(one["id"], one["other"]) for one in told["nearest_pictures"]] == [("b", "c"), ("c", "b")]
    assert told["nearest_pictures"][0]["score"] == pytest.approx(0.96)
    assert examples(images[:1], texts[:1], ["a"], 2)["nearest_pictures"] == []

"""Figures of classes are scikit-learn's, with ties, classes that do not occur and one class alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    recall_score,
    roc_auc_score,
)

from medclip.evaluate.classification_metrics import FIGURES, any_of, auroc, f1, one_of, predicted, recall, shares


@st.composite
def cases(draw):
    """Probabilities with few distinct values (so with ties) and true classes, some of which may not occur."""
    n, k = draw(st.integers(2, 14)), draw(st.integers(2, 4))
    scores = draw(st.lists(st.integers(0, 3), min_size=n * k, max_size=n * k))
    truth = draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))
    return np.array(scores, float).reshape(n, k) / 4, np.array(truth)


@given(cases())
def test_shares_are_scikit_learns(case):
    scores, truth = case
    k, occur = scores.shape[1], np.unique(truth)
    chosen = scores.argmax(axis=1)
    found = shares(np.eye(k, dtype=bool)[chosen], np.eye(k, dtype=bool)[truth])
    over = {"labels": occur, "average": "macro", "zero_division": 0}
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, chosen))
    assert found["balanced_accuracy"] == pytest.approx(recall_score(truth, chosen, **over))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, chosen, **over))


@given(cases())
def test_the_area_of_a_class_is_scikit_learns_or_not_defined(case):
    scores, truth = case
    areas = auroc(scores, np.eye(scores.shape[1], dtype=bool)[truth])
    for c, area in enumerate(areas):
        if 0 < (truth == c).sum() < len(truth):
            assert area == pytest.approx(roc_auc_score(truth == c, scores[:, c]))
        else:
            assert np.isnan(area)


@given(cases())
def test_findings_are_scikit_learns(case):
    scores, truth = case
    there = np.eye(scores.shape[1], dtype=bool)[truth] | (scores > 0.7)
    called = scores > 0.5
    for c, (share, found) in enumerate(zip(f1(called, there), recall(called, there), strict=True)):
        if there[:, c].any():
            assert share == pytest.approx(f1_score(there[:, c], called[:, c], zero_division=0))
            assert found == pytest.approx(recall_score(there[:, c], called[:, c]))
        else:
            assert np.isnan(share)
            assert np.isnan(found)


@given(cases())
def test_a_tie_goes_against_the_model(case):
    scores, truth = case
    right = predicted(scores, truth) == truth
    for row, true, one in zip(scores, truth, right, strict=True):
        assert one == all(row[true] > other for c, other in enumerate(row) if c != true)


def names(articles):
    return [f"{a}" for a in articles]


def test_a_collapsed_model_gains_nothing():
    truth = np.arange(30) % 3
    found = one_of(np.full((30, 3), 1 / 3), truth, "abc", names(range(30)), 0)
    assert found["accuracy"]["value"] == found["macro_f1"]["value"] == 0
    assert found["auroc"]["value"] == 0.5


def test_planted_classes_are_all_right_and_shuffled_ones_at_chance():
    rng, truth = np.random.default_rng(0), np.arange(240) % 3
    planted, articles = np.eye(3)[truth] * 4 + rng.normal(size=(240, 3)) * 0.1, names(np.arange(240) // 2)
    whole = one_of(planted, truth, "abc", articles, 0)
    assert {whole[name]["low"] for name in FIGURES} == {1.0}
    shuffled = one_of(rng.permutation(planted), truth, "abc", articles, 0)
    for name, chance in (("accuracy", 1 / 3), ("balanced_accuracy", 1 / 3), ("macro_f1", 1 / 3), ("auroc", 0.5)):
        assert shuffled[name]["low"] < chance < shuffled[name]["high"]


def test_what_is_said_of_classes():
    truth = np.array([0, 0, 0, 1, 1, 3])
    scores = np.array([[9, 1, 0, 0], [9, 1, 0, 0], [1, 9, 0, 0], [0, 9, 0, 1], [9, 0, 0, 1], [0, 0, 9, 1]]) / 10
    found = one_of(scores, truth, ["ct", "mri", "nuclear", "xray"], names(range(6)), 0)
    assert found["confusion"] == confusion_matrix(truth, scores.argmax(axis=1), labels=range(4)).tolist()
    assert (found["chance"], found["majority"]) == (0.25, {"class": "ct", "accuracy": 0.5})
    assert found["classes"]["nuclear"] == {"pictures": 0, "auroc": None}
    assert found["classes"]["mri"]["auroc"]["value"] == pytest.approx(roc_auc_score(truth == 1, scores[:, 1]))
    assert found["accuracy"]["value"] == 3 / 6


def test_one_class_alone_has_no_area():
    found = one_of(np.full((4, 2), 0.5), np.zeros(4, int), "ab", names(range(4)), 0)
    assert found["auroc"] is None
    assert found["classes"]["a"]["auroc"] is None


def test_findings_say_prevalence_and_skip_what_never_occurs():
    rng = np.random.default_rng(0)
    there = rng.random((60, 3)) < (0.5, 0.2, 0)
    scores = np.clip(there * 0.4 + rng.random((60, 3)) * 0.6, 0, 1)
    found = any_of(scores, there, ["effusion", "mass", "hernia"], names(range(60)), 0)
    assert found["threshold"] == 0.5
    assert found["classes"]["mass"]["prevalence"] == there[:, 1].mean()
    assert found["classes"]["hernia"] == {"pictures": 0, "prevalence": 0.0, "auroc": None, "f1": None}
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(there[:, :2], scores[:, :2]))
    assert found["macro_f1"]["value"] == pytest.approx(f1_score(there[:, :2], scores[:, :2] > 0.5, average="macro"))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    scores = np.full((4, 2), 0.5)
    scores[1, 1] = bad
    with pytest.raises(ValueError, match="not finite"):
        one_of(scores, np.array([0, 1, 0, 1]), "ab", names(range(4)), 0)
    with pytest.raises(ValueError, match="not finite"):
        any_of(scores, np.eye(2, dtype=bool)[[0, 1, 0, 1]], "ab", names(range(4)), 0)

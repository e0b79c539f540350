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

from medclip.evaluation.classification_metrics import (
    MACRO_METRICS,
    accuracy_metrics,
    auroc,
    confusions,
    exclusive_facts,
    exclusive_metrics,
    f1,
    majority_facts,
    multilabel_facts,
    multilabel_metrics,
    predict,
    recall,
)


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
    values = accuracy_metrics(np.eye(k, dtype=bool)[chosen], np.eye(k, dtype=bool)[truth])
    over = {"labels": occur, "average": "macro", "zero_division": 0}
    assert values["accuracy"] == pytest.approx(accuracy_score(truth, chosen))
    assert values["balanced_accuracy"] == pytest.approx(recall_score(truth, chosen, **over))
    assert values["macro_f1"] == pytest.approx(f1_score(truth, chosen, **over))


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
    present = np.eye(scores.shape[1], dtype=bool)[truth] | (scores > 0.7)
    called = scores > 0.5
    for c, (f1_score_of, recall_of) in enumerate(zip(f1(called, present), recall(called, present), strict=True)):
        if present[:, c].any():
            assert f1_score_of == pytest.approx(f1_score(present[:, c], called[:, c], zero_division=0))
            assert recall_of == pytest.approx(recall_score(present[:, c], called[:, c]))
        else:
            assert np.isnan(f1_score_of)
            assert np.isnan(recall_of)


@given(cases())
def test_a_tie_goes_against_the_model(case):
    scores, truth = case
    right = predict(scores, truth) == truth
    for row, true, correct in zip(scores, truth, right, strict=True):
        assert correct == all(row[true] > other for c, other in enumerate(row) if c != true)


def names(articles):
    return [f"{a}" for a in articles]


def by_name(metrics):
    return {metric.name: metric for metric in metrics}


def test_a_collapsed_model_gains_nothing():
    truth = np.arange(30) % 3
    metrics = by_name(exclusive_metrics(np.full((30, 3), 1 / 3), truth, "abc", names(range(30)), 0))
    assert metrics["accuracy"].value == metrics["macro_f1"].value == 0
    assert metrics["auroc"].value == 0.5


def test_one_answer_for_all_is_no_certain_balanced_accuracy():
    """It is 1/3 in every resample but the few that miss the class of that answer."""
    truth = np.arange(12) % 3
    metrics = by_name(exclusive_metrics(np.tile([0.8, 0.1, 0.1], (12, 1)), truth, "abc", names(range(12)), 0))
    balanced = metrics["balanced_accuracy"]
    assert (balanced.value, balanced.low, balanced.high) == (pytest.approx(1 / 3), None, None)


@pytest.mark.slow
def test_planted_classes_are_all_right_and_shuffled_ones_at_chance():
    rng, truth = np.random.default_rng(0), np.arange(240) % 3
    planted, articles = np.eye(3)[truth] * 4 + rng.normal(size=(240, 3)) * 0.1, names(np.arange(240) // 2)
    whole = by_name(exclusive_metrics(planted, truth, "abc", articles, 0))
    assert {whole[name].value for name in MACRO_METRICS} == {1.0}
    assert whole["accuracy"].low == pytest.approx(0.025 ** (1 / 120))  # all of 120 articles (Clopper and Pearson)
    assert {whole[name].low for name in MACRO_METRICS[1:]} == {None}
    shuffled = by_name(exclusive_metrics(rng.permutation(planted), truth, "abc", articles, 0))
    for name, chance in (("accuracy", 1 / 3), ("balanced_accuracy", 1 / 3), ("macro_f1", 1 / 3), ("auroc", 0.5)):
        assert shuffled[name].low < chance < shuffled[name].high
        assert shuffled[name].chance == (None if name == "macro_f1" else chance)


def test_what_is_known_of_classes():
    truth, classes = np.array([0, 0, 0, 1, 1, 3]), ["ct", "mri", "nuclear", "xray"]
    scores = np.array([[9, 1, 0, 0], [9, 1, 0, 0], [1, 9, 0, 0], [0, 9, 0, 1], [9, 0, 0, 1], [0, 0, 9, 1]]) / 10
    metrics = by_name(exclusive_metrics(scores, truth, classes, names(range(6)), 0))
    counts = confusion_matrix(truth, scores.argmax(axis=1), labels=range(4)).tolist()
    assert [list(row) for row in confusions(scores, truth, classes, "x").counts] == counts
    assert metrics["accuracy"].chance == 0.25
    assert majority_facts(truth, truth, classes) == {"majority/class": "ct", "majority/accuracy": 0.5}
    assert exclusive_facts(truth, classes)["classes/nuclear/num_images"] == 0
    assert metrics["classes/nuclear/auroc"].value is None
    assert metrics["classes/mri/auroc"].value == pytest.approx(roc_auc_score(truth == 1, scores[:, 1]))
    assert metrics["accuracy"].value == 3 / 6


def test_one_class_alone_has_no_area():
    metrics = by_name(exclusive_metrics(np.full((4, 2), 0.5), np.zeros(4, int), "ab", names(range(4)), 0))
    assert metrics["auroc"].value is None
    assert metrics["classes/a/auroc"].value is None


def test_a_column_is_named_by_the_metrics_that_are_means_of_it():
    scores, truth = np.eye(2)[[0, 1, 1]], np.array([0, 1, 1])
    metrics = exclusive_metrics(scores, truth, "ab", names(range(3)), 0, ("part",), "part/correct")
    named = {metric.name: (metric.statistic, metric.role) for metric in metrics if metric.column == "part/correct"}
    assert named == {
        "part/accuracy": ("mean", "gated"),
        "part/balanced_accuracy": ("mean_over_classes", "compared"),
    }


def test_findings_have_a_prevalence_and_those_that_never_occur_no_score():
    rng, classes = np.random.default_rng(0), ["effusion", "mass", "hernia"]
    present = rng.random((60, 3)) < (0.5, 0.2, 0)
    scores = np.clip(present * 0.4 + rng.random((60, 3)) * 0.6, 0, 1)
    metrics = by_name(multilabel_metrics(scores, present, classes, names(range(60)), 0))
    facts = multilabel_facts(present, classes)
    assert facts["threshold"] == 0.5
    assert facts["classes/mass/prevalence"] == present[:, 1].mean()
    assert (facts["classes/hernia/num_images"], facts["classes/hernia/prevalence"]) == (0, 0.0)
    assert metrics["classes/hernia/auroc"].value is metrics["classes/hernia/f1"].value is None
    assert metrics["auroc"].value == pytest.approx(roc_auc_score(present[:, :2], scores[:, :2]))
    assert metrics["macro_f1"].value == pytest.approx(f1_score(present[:, :2], scores[:, :2] > 0.5, average="macro"))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    scores = np.full((4, 2), 0.5)
    scores[1, 1] = bad
    with pytest.raises(ValueError, match="not finite"):
        exclusive_metrics(scores, np.array([0, 1, 0, 1]), "ab", names(range(4)), 0)
    with pytest.raises(ValueError, match="not finite"):
        multilabel_metrics(scores, np.eye(2, dtype=bool)[[0, 1, 0, 1]], "ab", names(range(4)), 0)

"""Calibration error by its definition, the curve beside scikit-learn's, temperatures that undo a known one."""

import numpy as np
import pytest
import sklearn
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version
from scipy.special import softmax
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from medclip.evaluation.calibration import calibration, cross_scaled, ece, temperature


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=1, max_size=40))
def test_the_error_is_its_definition(rows):
    wanted = 0.0
    for b in range(1, 16):  # of 30ths the b-th bin holds 2b - 1 and 2b, the first one 0 as well
        own = [(confidence / 30, right) for confidence, right in rows if max(1, (confidence + 1) // 2) == b]
        wanted += abs(sum(right - confidence for confidence, right in own)) / len(rows)
    assert ece(
        np.array([confidence / 30 for confidence, _ in rows]), np.array([r for _, r in rows], float)
    ) == pytest.approx(wanted)


def sample(n, heat, seed=0):
    """Logits of which softmax(logits / heat) are the true probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 4)) * 2
    truth = np.array([rng.choice(4, p=p) for p in softmax(logits, axis=1)])
    return logits * heat, truth


def test_the_curve_is_scikit_learns():
    logits, truth = sample(400, 1)
    correct = logits.argmax(axis=1) == truth
    _, _, (raw, _) = calibration(logits, truth, correct, [f"{i}" for i in range(400)], 0)
    accuracy, confidence = calibration_curve(correct, softmax(logits, axis=1).max(axis=1), n_bins=15)
    assert [one.accuracy for one in raw.bins] == pytest.approx(accuracy)
    assert [one.confidence for one in raw.bins] == pytest.approx(confidence)
    assert sum(one.num_images for one in raw.bins) == 400


@pytest.mark.parametrize("heat", [0.2, 1.0, 5.0])
def test_a_temperature_is_found_again_and_makes_the_error_small(heat):
    logits, truth = sample(3000, heat)
    assert temperature(logits, truth) == pytest.approx(heat, rel=0.1)
    correct = logits.argmax(axis=1) == truth
    scaled, _ = cross_scaled(logits, truth, [f"{i // 3}" for i in range(3000)])
    raw, after = (ece(softmax(scores, axis=1).max(axis=1), correct) for scores in (logits, scaled))
    assert after < 0.04
    assert heat == 1 or raw > 3 * after


@pytest.mark.skipif(Version(sklearn.__version__) < Version("1.8"), reason="scikit-learn 1.8 brought temperatures")
def test_the_temperature_is_scikit_learns():
    logits, truth = sample(500, 3)
    identity = LogisticRegression().fit(logits, truth)  # a linear classifier that passes the logits on
    identity.coef_, identity.intercept_ = np.eye(4), np.zeros(4)
    theirs = CalibratedClassifierCV(FrozenEstimator(identity), method="temperature").fit(logits, truth)
    ours = softmax(logits / temperature(logits, truth), axis=1)
    assert ours == pytest.approx(theirs.predict_proba(logits), abs=1e-3)
    assert log_loss(truth, ours) <= log_loss(truth, theirs.predict_proba(logits)) + 1e-7


def test_no_article_is_measured_with_a_temperature_that_it_taught():
    logits, truth = sample(200, 2)
    articles = [f"{i // 10}" for i in range(200)]
    scaled, temperatures = cross_scaled(logits, truth, articles)
    assert len(temperatures) == 5
    ratio = (logits / scaled)[:, 0]
    for heat in temperatures:
        own = np.isclose(ratio, heat, rtol=1e-9)
        assert heat == pytest.approx(temperature(logits[~own], truth[~own]))
    assert all(len(set(np.round(ratio[i : i + 10], 9))) == 1 for i in range(0, 200, 10))


def test_one_article_teaches_nothing():
    logits, truth = sample(20, 1)
    metrics, facts, curves = calibration(logits, truth, truth == 0, ["same"] * 20, 0)
    assert [metric.name for metric in metrics] == ["calibration/raw/ece"]
    assert [curve.name for curve in curves] == ["raw"]
    assert "calibration/temperature" not in facts


def test_a_model_that_is_always_right_has_a_finite_temperature():
    logits = np.eye(3)[np.arange(9) % 3] * 5
    assert 0 < temperature(logits, np.arange(9) % 3) < 1

"""Probabilities where the right values are known: by the generating distribution, or by hand; the file."""

import dataclasses
import json
import math

import numpy as np
import pytest

from medclip.errors import UserError
from medclip.match_calibration import (
    CALIBRATION_FILE,
    Calibration,
    ValidationRecall,
    fit_calibration,
    read_calibration,
    write_calibration,
)
from medclip.no_match import ExcerptCosines, Threshold, Withheld

RECALL = ValidationRecall(value=0.28, low=0.25, high=0.31, chance=0.015, num_images=656, num_captions=650)
BY_HAND = Calibration(
    model_sha256="a" * 64,
    data_sha256="b" * 64,
    recall_at_10=RECALL,
    scale=2.0,
    share_slope=0.5,
    chance_slope=0.25,
    intercept=0.1,
    false_no_match_rate=0.05,
    thresholds=(Threshold(1, 1, 0.1), Threshold(1, 100, 0.3), Threshold(4, 100, 0.2)),
    withheld=(Withheld(1, 100, 0.4), Withheld(4, 90, 0.5)),
)


def fit(cosines, right=None, seed=0):
    """A calibration of pairs (i, i), or of `right` ones."""
    right = np.eye(len(cosines), dtype=bool) if right is None else right
    names = [""] * cosines.shape[1]
    excerpts = ExcerptCosines(cosines, right, np.ones(len(cosines), int), names[: len(cosines)], names)
    return fit_calibration(cosines, right, excerpts, RECALL, "", "", seed)


def gaussian_cosines(num_queries, num_images, seed, mean=0.3, deviation=0.12):
    """Wrong cosines of mean 0, right ones (on the diagonal) of another, both normal: the ratio of their densities is
    exp(mean / deviation² c) up to a factor, so the scale is known and the shares are the very probabilities."""
    cosines = np.random.default_rng(seed).normal(0, deviation, (num_queries, num_images))
    cosines[np.arange(num_queries), np.arange(num_queries)] += mean
    return cosines


def predict(calibration, cosines, own, k):
    """Of each row of cosines: the probability that its own column is among the first k, and whether it is."""
    highest, n = -np.sort(-cosines, axis=1), cosines.shape[1]
    probabilities = [
        calibration.probabilities(row[:k], np.ones(k, int), calibration.log_total(row, row, n), n)[-1]
        for row in highest
    ]
    hits = (cosines >= cosines[np.arange(len(cosines)), own][:, None]).sum(axis=1) <= k
    return np.array(probabilities), hits


def test_by_hand():
    """Cosines 0.9, 0.5 and 0.1 at scale 2; the second hit stands for two images of the four."""
    highest = np.array([0.9, 0.5, 0.5, 0.1])
    log_total = BY_HAND.log_total(highest, np.float32(highest), 4)
    total = math.exp(1.8) + 2 * math.exp(1) + math.exp(0.2)
    assert log_total == pytest.approx(math.log(total))
    shares, chances = [math.exp(1.8) / total, (math.exp(1.8) + 2 * math.exp(1)) / total], [1 / 4, 3 / 4]
    lines = [
        0.5 * math.log(share / (1 - share)) + 0.25 * math.log(chance / (1 - chance)) + 0.1
        for share, chance in zip(shares, chances, strict=True)
    ]
    probabilities = BY_HAND.probabilities(np.array([0.9, 0.5, 0.1]), np.array([1, 2, 1]), log_total, 4)
    assert probabilities == pytest.approx([*(1 / (1 + math.exp(-line)) for line in lines), 1])


@pytest.mark.parametrize("seed", [0, 1])
def test_the_scale_is_that_of_the_distribution(seed):
    calibration = fit(gaussian_cosines(400, 400, seed))
    assert calibration.scale == pytest.approx(0.3 / 0.12**2, rel=0.15)


@pytest.fixture(scope="module")
def calibration_of_500():
    return fit(gaussian_cosines(500, 500, 0))


@pytest.mark.parametrize("num_images", [60, 500, pytest.param(3000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("k", [1, 10])
def test_probabilities_carry_over_to_an_index_of_another_size(calibration_of_500, num_images, k):
    """Calibrated on 500 images; 1,000 searches of fewer and of more."""
    cosines = np.random.default_rng(1).normal(0, 0.12, (1000, num_images))
    cosines[:, 0] += 0.3
    probabilities, hits = predict(calibration_of_500, cosines, 0, k)
    assert probabilities.mean() == pytest.approx(hits.mean(), abs=0.035)  # 2 points beside the error of 1,000 searches
    for low, high in ((0, 0.3), (0.3, 0.7), (0.7, 1)):
        inside = (probabilities >= low) & (probabilities < high)
        if inside.sum() > 200:
            assert probabilities[inside].mean() == pytest.approx(hits[inside].mean(), abs=0.08)


def test_a_sample_stands_for_the_rest_of_an_index():
    cosines = -np.sort(-np.random.default_rng(0).normal(0, 0.12, (50, 40_000)), axis=1)
    calibration = dataclasses.replace(BY_HAND, scale=20.8)
    for row in cosines:
        exact = calibration.log_total(row, row, len(row))
        sampled = calibration.log_total(row[:26], np.float32(row[::10]), len(row))
        assert sampled == pytest.approx(exact, abs=0.05)


def test_a_model_that_knows_nothing_gets_what_chance_gives():
    cosines = np.random.default_rng(0).normal(0, 0.1, (400, 400))
    calibration = fit(cosines)
    probabilities, _ = predict(calibration, np.random.default_rng(1).normal(0, 0.1, (200, 400)), 0, 10)
    assert probabilities == pytest.approx(np.full(200, 10 / 400), abs=0.02)


def test_a_model_that_never_errs_is_nearly_certain_and_never_wholly():
    calibration = fit(np.eye(60))
    probabilities, _ = predict(calibration, np.eye(60), np.arange(60), 1)
    assert (probabilities > 0.95).all() and (probabilities < 1).all()


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("equal", [0.3, 0.7])  # as float32 the one is above itself, the other below
@pytest.mark.parametrize("num_below", [0, 60])
def test_equal_cosines_are_no_evidence(equal, num_below, every):
    """As a collapsed model gives them; the sample is of all images or of every third."""
    calibration = dataclasses.replace(BY_HAND, scale=50.0, share_slope=1.0, chance_slope=0.0, intercept=0.0)
    cosines = np.repeat([equal, -0.9], [900, num_below])
    log_total = calibration.log_total(cosines[:26], np.float32(cosines[::every]), len(cosines))
    (*_, probability) = calibration.probabilities(cosines[:5], np.ones(5, int), log_total, len(cosines))
    assert probability == pytest.approx(5 / 900, rel=1e-5)


def test_of_several_right_images_one_is_enough():
    cosines = gaussian_cosines(300, 300, 0)
    twice = np.hstack([cosines, cosines])  # every image once more
    right = np.hstack([np.eye(300, dtype=bool)] * 2)
    calibration = fit(twice, right)
    assert calibration.scale == pytest.approx(fit(cosines).scale, rel=1e-3)


def test_near_chance_is_less_than_twice_what_chance_gives():
    assert not RECALL.is_near_chance
    assert dataclasses.replace(RECALL, low=0.0299).is_near_chance
    assert dataclasses.replace(RECALL, chance=10 / 12, value=1.0, low=1.0).is_near_chance  # of so few, all are found


def test_a_file_gives_back_what_was_written(tmp_path):
    write_calibration(tmp_path, BY_HAND)
    assert read_calibration(tmp_path, BY_HAND.model_sha256) == BY_HAND
    without = dataclasses.replace(BY_HAND, withheld=(), thresholds=())
    write_calibration(tmp_path, without)
    assert read_calibration(tmp_path, BY_HAND.model_sha256) == without


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "has no calibration.json"),
        ("{", "damaged"),
        ("[]", "not an object"),
        ("{}", "of another version of medclip: delete it, then .* --resume"),
        ({"format": 1}, "of another version of medclip: delete it, then .* --resume"),
        ({"format": None}, "of another version"),
        ({"scale": "many"}, "damaged"),
        ({"scale": float("nan")}, "damaged"),
        ({"share_slope": None}, "damaged"),
        ({"thresholds": 3}, "damaged"),
        ({"thresholds": [{"min_words": 1, "num_images": 0, "cosine": 0.5}]}, "damaged"),
        ({"thresholds": [{"num_images": 5, "cosine": 0.5}]}, "damaged"),
        ({"thresholds": [{"min_words": 1, "num_images": 5, "cosine": cosine} for cosine in (0.5, 0.6)]}, "damaged"),
        ({"thresholds": [{"min_words": least, "num_images": 5, "cosine": 0.5} for least in (4, 1)]}, "damaged"),
        ({"recall_at_10": {"value": 1}}, "damaged"),
        ({"recall_at_10": dataclasses.asdict(RECALL) | {"low": "low"}}, "damaged"),
        ({"withheld": [{"num_queries": 1}]}, "damaged"),
        ({"withheld": "none"}, "damaged"),
        ({"thresholds": [{"min_words": 1, "num_images": 10**30, "cosine": 0.5}]}, "damaged"),
        ({"scale": 1e300}, "damaged"),
        ({"intercept": BY_HAND.intercept + 1}, "not as it was written"),
        ({"model_sha256": "c" * 64}, "of other weights"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, text, message):
    if isinstance(text, dict):
        write_calibration(tmp_path, BY_HAND)
        text = json.dumps(json.loads((tmp_path / CALIBRATION_FILE).read_text()) | text)
    if text is not None:
        (tmp_path / CALIBRATION_FILE).write_text(text)
    with pytest.raises(UserError, match=message):
        read_calibration(tmp_path, BY_HAND.model_sha256)

"""Probes: planted features are all told apart, shuffled ones at chance; choices are made on training rows alone."""

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from medclip.cli.evaluation_tables import evaluation_tables
from medclip.cli.format import screen
from medclip.encode.encoder import embed_pixels, jax_backend
from medclip.errors import UserError
from medclip.evaluation.compare import compare
from medclip.evaluation.config import EvalConfig, LabelConfig
from medclip.evaluation.probe import (
    STRENGTHS,
    article_folds,
    draw_shots,
    evaluate_probe,
    fit_neighbors,
    fit_regression,
    mean_over_draws,
)
from medclip.evaluation.report import write_report
from medclip.evaluation.results import Kind, read_results
from medclip.metrics import estimate
from medclip.model.towers import l2_normalize, project
from support.labels import split_rows, write_table


def make_features(n=120, classes=3, apart=4.0, seed=0):
    """Features (n, 6) whose first numbers say the class, in articles of two images."""
    rng, truth = np.random.default_rng(seed), np.arange(n) % classes
    values = rng.normal(size=(n, 6)) + apart * np.eye(6)[truth]
    return values.astype(np.float32), truth, np.array([f"{i // 2}" for i in range(n)])


@pytest.mark.parametrize("learn", [fit_regression, fit_neighbors])
def test_planted_features_are_told_apart_and_those_that_say_nothing_are_not(learn):
    features, truth, articles = make_features(apart=12)
    new, wanted, _ = make_features(apart=12, seed=1)
    assert (learn(features, truth, articles, 0).predict(new) == wanted).all()
    features, truth, articles = make_features(apart=0)
    new, wanted, groups = make_features(n=300, apart=0, seed=1)
    right = (learn(features, truth, articles, 0).predict(new) == wanted).astype(float)
    share = estimate(right, groups, lambda rows: float(rows.mean()), 0)
    assert share.low < 1 / 3 < share.high


def test_c_is_the_one_that_does_best_on_held_out_articles():
    features, truth, articles = make_features(apart=1)
    right = {}
    for c in STRENGTHS:
        scores = []
        for rest, part in article_folds(truth, articles, 0):
            scale = StandardScaler().fit(features[rest])
            classifier = LogisticRegression(C=c, max_iter=2000).fit(scale.transform(features[rest]), truth[rest])
            scores.append(classifier.score(scale.transform(features[part]), truth[part]))
        right[c] = np.mean(scores)
    chosen = fit_regression(features, truth, articles, 0).named_steps["logisticregression"].C
    assert right[chosen] == max(right.values())


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=2, max_size=40), st.integers(0, 5))
def test_no_article_is_on_both_sides(rows, seed):
    truth, articles = np.array([c for c, _ in rows]), np.array([f"{a}" for _, a in rows])
    for rest, part in article_folds(truth, articles, seed):
        assert not set(articles[rest]) & set(articles[part])
        assert len(np.unique(truth[rest])) > 1
        assert len(part)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 20), st.integers(0, 9))
def test_so_many_of_each_class_are_drawn(truth, shots, seed):
    truth = np.array(truth)
    rows = draw_shots(truth, shots, seed)
    assert len(set(rows)) == len(rows)
    for c in np.unique(truth):
        assert (truth[rows] == c).sum() == min(shots, (truth == c).sum())
    assert np.array_equal(rows, draw_shots(truth, shots, seed))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_the_interval_over_draws_is_students(values):
    result = mean_over_draws(values)
    if len(set(values)) == 1:  # equal draws say nothing of how others differ
        assert result.value == pytest.approx(values[0]) and np.isnan([result.low, result.high]).all()
        return
    error = np.std(values, ddof=1) / len(values) ** 0.5
    low, high = t.interval(0.95, len(values) - 1, np.mean(values), error) if error else (np.mean(values),) * 2
    assert astuple(result) == pytest.approx((np.mean(values), max(0, low), min(1, high)))


def test_features_are_those_before_the_projection(model):
    side = model.config.vision.image_size
    pixels = np.random.default_rng(0).integers(0, 255, (3, side, side, 3), dtype=np.uint8)
    pools = jax_backend(model).image_features(pixels)
    assert pools.shape == (3, model.config.vision.hidden_size)
    wanted = l2_normalize(project(model.params, pools, model.config.vision))
    assert embed_pixels(model, pixels) == pytest.approx(np.asarray(wanted), abs=1e-6)


@pytest.fixture(scope="module")
def probe(run, tmp_path_factory):
    """A probe of the tiny model: dark and bright images, and two of a class that no training image has."""
    at = tmp_path_factory.mktemp("probed")
    rows = [*split_rows(train=8), "middle_1.jpg,middle,test", "middle_2.jpg,middle,test", "dark_99.jpg,dark,train"]
    folder = write_table(at / "set", rows)
    (folder / "images" / "dark_99.jpg").write_bytes(b"no image")
    return evaluate_probe(EvalConfig(model=str(run), data=str(folder), out=at), LabelConfig(), num_draws=2), at


def test_both_classifiers_beside_chance_majority_and_random_weights(probe, capsys, monkeypatch):
    monkeypatch.setattr(screen, "width", 200)
    results, _ = probe
    facts = results.facts
    assert (facts["num_images"], results["logistic_regression/accuracy"].chance) == (10, 1 / 3)
    counts = {name: facts[f"trained_on/classes/{name}"] for name in results.below("trained_on", "classes")}
    assert counts == {"bright": 8, "dark": 8, "middle": 0}
    assert facts["trained_on/excluded/image unreadable"] == 1
    matrix = results.confusion_matrices[0]
    assert (matrix.name, matrix.labels[2], matrix.counts[2][2]) == ("logistic_regression", "middle", 0)  # not learnt
    assert results["logistic_regression/classes/middle/auroc"].value == 0.5
    assert results.below("few_shot") == ["1", "4", "16"]
    assert results.below("random_weights", "nearest_neighbors") == results.below("nearest_neighbors")
    for table in evaluation_tables(results):
        screen.print(table)
    shown = capsys.readouterr().out
    for words in ("random weights", "most frequent", "4 a class, 2 draws", "logistic regression"):
        assert words in shown


def test_the_record_has_every_image(probe):
    results, at = probe
    read, items = read_results(at, Kind.PROBE)
    assert read == results
    rows = items.to_pylist()
    assert len(rows) == 10
    for name in ("logistic_regression", "nearest_neighbors"):
        assert np.mean([row[f"{name}/correct"] for row in rows]) == results[f"{name}/accuracy"].value
    assert all((row["label"] == row["predicted"]) == row["logistic_regression/correct"] for row in rows)


def test_two_probes_are_compared_image_by_image(probe):
    _, at = probe
    names = {row.name for row in compare([at, at]).rows if row.contrasts}
    classifiers = ("logistic_regression", "nearest_neighbors")
    assert names == {f"{name}/{metric}" for name in classifiers for metric in ("accuracy", "balanced_accuracy")}
    assert "logistic regression" in write_report(at).read_text(encoding="utf-8")


def test_one_class_to_learn_from_is_refused(run, tmp_path):
    folder = write_table(tmp_path / "set", [*split_rows(("dark",)), "bright_1.jpg,bright,test"])
    with pytest.raises(UserError, match="one class only"):
        evaluate_probe(EvalConfig(model=str(run), data=str(folder)), LabelConfig())

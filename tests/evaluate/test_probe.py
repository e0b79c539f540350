"""Probes: planted features are all told apart, shuffled ones at chance; choices are made on training rows alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from medclip.cli.tables.classes import show_probe
from medclip.cli.tables.parts import screen
from medclip.encode.encoder import embed_pixels, pixel_features
from medclip.errors import UserError
from medclip.evaluate import probe
from medclip.evaluate.compare import compare
from medclip.evaluate.config import EvalConfig
from medclip.evaluate.labeled import LabelConfig
from medclip.evaluate.probe import STRENGTHS, drawn, evaluate_probe, fitted, neighbors, over_draws
from medclip.evaluate.report import write_report
from medclip.evaluate.results import read_results
from medclip.metrics import interval
from medclip.model.towers import l2_normalize, project
from support.labels import split_rows, write_table


def features(n=120, classes=3, apart=4.0, seed=0):
    """Features (n, 6) whose first numbers say the class, in articles of two images."""
    rng, truth = np.random.default_rng(seed), np.arange(n) % classes
    made = rng.normal(size=(n, 6)) + apart * np.eye(6)[truth]
    return made.astype(np.float32), truth, np.array([f"{i // 2}" for i in range(n)])


@pytest.mark.parametrize("learn", [fitted, neighbors])
def test_planted_features_are_told_apart_and_those_that_say_nothing_are_not(learn):
    made, truth, articles = features(apart=12)
    asked, of, _ = features(apart=12, seed=1)
    assert (learn(made, truth, articles, 0).predict(asked) == of).all()
    made, truth, articles = features(apart=0)
    asked, of, groups = features(n=300, apart=0, seed=1)
    right = (learn(made, truth, articles, 0).predict(asked) == of).astype(float)
    about = interval(right, groups, lambda drawn: float(drawn.mean()), 0)
    assert about["low"] < 1 / 3 < about["high"]


def test_c_is_the_one_that_does_best_on_held_out_articles():
    made, truth, articles = features(apart=1)
    right = {}
    for c in STRENGTHS:
        scores = []
        for rest, part in probe._folds(truth, articles, 0):
            scale = StandardScaler().fit(made[rest])
            one = LogisticRegression(C=c, max_iter=2000).fit(scale.transform(made[rest]), truth[rest])
            scores.append(one.score(scale.transform(made[part]), truth[part]))
        right[c] = np.mean(scores)
    chosen = fitted(made, truth, articles, 0).named_steps["logisticregression"].C
    assert right[chosen] == max(right.values())


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=2, max_size=40), st.integers(0, 5))
def test_no_article_is_on_both_sides(rows, seed):
    truth, articles = np.array([c for c, _ in rows]), np.array([f"{a}" for _, a in rows])
    for rest, part in probe._folds(truth, articles, seed):
        assert not set(articles[rest]) & set(articles[part])
        assert len(np.unique(truth[rest])) > 1
        assert len(part)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 20), st.integers(0, 9))
def test_so_many_of_each_class_are_drawn(truth, shots, seed):
    truth = np.array(truth)
    rows = drawn(truth, shots, seed)
    assert len(set(rows)) == len(rows)
    for c in np.unique(truth):
        assert (truth[rows] == c).sum() == min(shots, (truth == c).sum())
    assert np.array_equal(rows, drawn(truth, shots, seed))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_the_interval_over_draws_is_students(values):
    found = over_draws(values)
    error = np.std(values, ddof=1) / len(values) ** 0.5
    low, high = t.interval(0.95, len(values) - 1, np.mean(values), error) if error else (np.mean(values),) * 2
    assert found == pytest.approx({"value": np.mean(values), "low": max(0, low), "high": min(1, high)})


def test_features_are_those_before_the_projection(model):
    side = model.config.vision.image_size
    pixels = np.random.default_rng(0).integers(0, 255, (3, side, side, 3), dtype=np.uint8)
    pools = pixel_features(model, pixels)
    assert pools.shape == (3, model.config.vision.hidden_size)
    wanted = l2_normalize(project(model.params, pools, model.config.vision))
    assert embed_pixels(model, pixels) == pytest.approx(np.asarray(wanted), abs=1e-6)


@pytest.fixture(scope="module")
def found(run, tmp_path_factory):
    """A probe of the tiny model: dark and bright images, and two of a class that no training image has."""
    at = tmp_path_factory.mktemp("probed")
    rows = [*split_rows(train=8), "middle_1.jpg,middle,test", "middle_2.jpg,middle,test", "dark_99.jpg,dark,train"]
    folder = write_table(at / "set", rows)
    (folder / "images" / "dark_99.jpg").write_bytes(b"no image")
    return evaluate_probe(EvalConfig(model=str(run), data=str(folder), out=at), LabelConfig(), seeds=2), at


def test_both_classifiers_beside_chance_majority_and_random_weights(found, capsys, monkeypatch):
    monkeypatch.setattr(screen, "width", 120)
    said, _ = found
    assert (said["pictures"], said["chance"]) == (10, 1 / 3)
    assert said["trained_on"]["classes"] == {"bright": 8, "dark": 8, "middle": 0}
    assert said["trained_on"]["left_out"] == {"image unreadable": 1}
    regression = said["logistic_regression"]
    assert regression["confusion"][2][2] == 0  # what was never learnt is never called
    assert regression["classes"]["middle"]["auroc"]["value"] == 0.5
    assert set(said["few_shot"]) == {"1", "4", "16"}
    assert said["random_weights"]["nearest_neighbors"].keys() == said["nearest_neighbors"].keys()
    show_probe(said)
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("random weights", "majority", "4 a class, 2 draws", "logistic regression"))


def test_the_record_has_every_picture(found):
    said, at = found
    read, items = read_results(at, "probe")
    assert read == said
    rows = items.to_pylist()
    assert len(rows) == 10
    for name in ("logistic_regression", "nearest_neighbors"):
        assert np.mean([row[f"correct_{name}"] for row in rows]) == said[name]["accuracy"]["value"]
    assert all((row["label"] == row["predicted"]) == row["correct_logistic_regression"] for row in rows)


def test_two_probes_are_compared_picture_by_picture(found):
    _, at = found
    names = {row.name for row in compare([at, at]).rows if row.kind}
    classifiers = ("logistic_regression", "nearest_neighbors")
    assert names == {f"{name} / {what}" for name in classifiers for what in ("accuracy", "balanced_accuracy")}
    assert "logistic regression" in write_report(at).read_text(encoding="utf-8")


def test_one_class_to_learn_from_is_refused(run, tmp_path):
    folder = write_table(tmp_path / "set", [*split_rows(("dark",)), "bright_1.jpg,bright,test"])
    with pytest.raises(UserError, match="one class only"):
        evaluate_probe(EvalConfig(model=str(run), data=str(folder)), LabelConfig())

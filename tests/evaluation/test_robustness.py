"""Retrieval of corrupted images is plain retrieval of other images, compared pair by pair."""

import numpy as np
import pytest

from medclip.evaluation.config import EvalConfig
from medclip.evaluation.corruptions import CORRUPTIONS, Corruption
from medclip.evaluation.results import Kind, read_results
from medclip.evaluation.retrieval import evaluate_retrieval
from medclip.evaluation.robustness import K, evaluate_robustness, measure, pair_columns
from medclip.metrics import DIRECTIONS

CHOSEN = (
    next(corruption for corruption in CORRUPTIONS if corruption.name == "contrast"),
    Corruption("same", lambda image, *_: image, (1, 2, 3), "{}"),
)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("robust")


@pytest.fixture(scope="module")
def results(run, data, out):
    return evaluate_robustness(EvalConfig(model=str(run), data=str(data), out=out), CHOSEN)


def ends(metric):
    return metric.value, metric.low, metric.high


def test_clean_images_are_retrieved_as_by_plain_retrieval(results, run, data):
    plain = evaluate_retrieval(EvalConfig(model=str(run), data=str(data)))
    for direction in DIRECTIONS:
        assert ends(results[f"clean/{direction}/R@10"]) == ends(plain[f"{direction}/R@10"])


def test_a_corruption_that_changes_nothing_costs_nothing(results):
    for severity in "123":
        for name in ("R@10_change", "cosine_change"):
            assert results[f"corruptions/same/{severity}/{name}"].value == pytest.approx(0, abs=1e-6)
        assert ends(results[f"corruptions/same/{severity}/R@10"]) == ends(results["clean/R@10"])


def test_every_item_of_every_severity_is_kept_and_adds_up(results, out):
    read, table = read_results(out, Kind.ROBUSTNESS)
    assert read == results
    assert len(table) == 12
    assert {metric.column for metric in results.metrics} - {None} == set(table.column_names) - {"id", "article"}
    assert results.below("corruptions") == [corruption.name for corruption in CHOSEN]
    for corruption in CHOSEN:
        for severity, setting in zip("123", corruption.settings, strict=True):
            path = f"corruptions/{corruption.name}/{severity}"
            assert results.facts[f"{path}/setting"] == setting
            assert results[f"{path}/cosine"].value == pytest.approx(table.column(f"{path}/cosine").to_numpy().mean())
            hits = [table.column(f"{path}/{direction}/rank").to_numpy() <= K for direction in DIRECTIONS]
            assert results[f"{path}/R@10"].value == pytest.approx(np.mean(hits))
    assert results.facts["worst"] in {corruption.name for corruption in CHOSEN}


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    texts = np.linalg.qr(rng.standard_normal((40, 40)))[0].astype(np.float32)
    ids = np.arange(40), np.arange(40)
    clean, far = pair_columns(texts, texts, ids), pair_columns(-texts, texts, ids)
    metrics = {metric.name: metric for metric in measure(("x",), far, clean, [f"{i}" for i in range(40)], 0)}
    assert ends(metrics["x/cosine_change"]) == pytest.approx((-2, -2, -2))  # each by the same, but for rounding
    assert metrics["x/R@10"].value == 0
    alike = 0.025 ** (1 / 40)  # of 40 articles that all fall by 1, the share of all that do
    assert ends(metrics["x/R@10_change"]) == pytest.approx((-1, -1, 1 - 2 * alike))


def test_a_repeated_image_is_one():
    """Two images with twenty captions each, of which all fit: the first half of them, 20, the second, 2."""
    owner = np.repeat(np.arange(2), 20)
    images, texts = np.eye(2, dtype=np.float32)[owner], np.eye(2, dtype=np.float32)[owner]
    columns = pair_columns(images, texts, (owner, np.arange(40)))
    assert np.flatnonzero(~np.isnan(columns["image_to_text/rank"])).tolist() == [0, 20]
    metrics = {m.name: m for m in measure(("x",), columns, columns, [f"{i}" for i in range(40)], 0)}
    assert [metrics[f"x/{name}R@10"].value for name in ("", "image_to_text/", "text_to_image/")] == [1, 1, 1]
    assert metrics["x/R@10_change"].value == 0

"""Retrieval of corrupted images is plain retrieval of other images, compared pair by pair."""

import numpy as np
import pytest

from medclip.evaluate import robustness
from medclip.evaluate.config import EvalConfig
from medclip.evaluate.corruptions import CORRUPTIONS, Corruption
from medclip.evaluate.results import read_results
from medclip.evaluate.retrieval import evaluate_retrieval
from medclip.evaluate.robustness import evaluate_robustness, judged, measured

WAYS = ("image_to_text", "text_to_image")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("robust")


@pytest.fixture(scope="module")
def results(run, data, out):
    kept = {"contrast": CORRUPTIONS["contrast"], "same": Corruption(lambda picture, *_: picture, (1, 2, 3), "{}")}
    with pytest.MonkeyPatch.context() as patch:
        for module in ("corruptions", "robustness"):
            patch.setattr(f"medclip.evaluate.{module}.CORRUPTIONS", kept)
        return evaluate_robustness(EvalConfig(model=str(run), data=str(data), out=out))


def test_clean_pictures_are_retrieved_as_by_plain_retrieval(results, run, data):
    plain = evaluate_retrieval(EvalConfig(model=str(run), data=str(data)))
    for way in WAYS:
        assert results["clean"][way] == plain[way]["R@10"]


def test_a_corruption_that_changes_nothing_costs_nothing(results):
    for said in results["corruptions"]["same"]["severities"]:
        for name in ("change", "cosine_change"):
            assert said[name] == pytest.approx({"value": 0, "low": 0, "high": 0}, abs=1e-6)
        assert said["R@10"] == results["clean"]["R@10"]


def test_every_item_of_every_severity_is_kept_and_adds_up(results, out):
    said, table = read_results(out, "robustness")
    assert said == results
    rows = table.to_pylist()
    assert len(rows) == 12 * 7
    for name, about in results["corruptions"].items():
        assert [one["severity"] for one in about["severities"]] == [1, 2, 3]
        for one in about["severities"]:
            own = [row for row in rows if (row["corruption"], row["severity"]) == (name, one["severity"])]
            assert one["cosine"]["value"] == pytest.approx(np.mean([row["cosine"] for row in own]))
            hits = [row[f"rank_{way}"] <= robustness.K for row in own for way in WAYS]
            assert one["R@10"]["value"] == pytest.approx(np.mean(hits))
    assert results["worst"] in results["corruptions"]


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    texts = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    clean, far = judged(texts, texts), judged(-texts, texts)
    said = measured(far, clean, [f"{i}" for i in range(40)], 0)
    assert said["cosine_change"] == pytest.approx({"value": -2, "low": -2, "high": -2})  # each by the same: no spread
    assert said["R@10"]["value"] == 0
    assert said["change"] == pytest.approx({"value": -1, "low": -1, "high": -1})

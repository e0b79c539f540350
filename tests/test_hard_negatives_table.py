"""The summary of benchmarks/hard_negatives.py: shares of foils told, worked out by hand, also where all are told."""

import json

import numpy as np
import pytest

from medclip.evaluation.results import Kind, Results, write_results
from medclip.named_metrics import metric_name
from support import handmade_results
from support.benchmarks import load_benchmark

BENCHMARK = load_benchmark("hard_negatives")


def write_run(folder, correct, articles):
    """The evaluations of a run that has every test of these items."""
    columns = {f"{metric_name('tests', test)}/correct": np.array(correct, float) for test in BENCHMARK.TESTS}
    items = {"id": [f"item {i}" for i in range(len(correct))], "article": articles}
    results = Results(kind=Kind.COMPOSITIONALITY, metrics=(), facts={}, provenance=handmade_results.PROVENANCE)
    write_results(folder / "evaluation", results, items | columns)
    ranks = np.arange(1, len(correct) + 1)
    handmade_results.retrieval(folder / "evaluation", ranks, ranks, articles=articles)


def summarize(out):
    """As it is written: strictly JSON, in which NaN is nothing."""
    return json.loads(json.dumps(BENCHMARK.summarize(out, [0]), allow_nan=False))


def test_where_all_foils_are_told_the_interval_is_that_of_as_many_articles(tmp_path):
    """Two articles: 0.025 ** (1 / 2); none told: the same from below."""
    for name, value in (("with", 1), ("without", 0)):
        write_run(tmp_path / f"{name}-0", [value, value, value, np.nan], ["a", "a", "b", "b"])
    summary = summarize(tmp_path)
    for test in BENCHMARK.TESTS:
        assert summary[test]["with"] == pytest.approx([1, 0.025**0.5, 1], abs=5e-5)
        assert summary[test]["without"] == pytest.approx([0, 0, 1 - 0.025**0.5], abs=5e-5)


def test_of_one_article_there_is_no_interval(tmp_path):
    for name in ("with", "without"):
        write_run(tmp_path / f"{name}-0", [1, 0, 1, 1], ["a"] * 4)
    summary = summarize(tmp_path)
    assert summary["plane"]["with"] == [0.75, None, None]
    change = summary["seed 0"]["text_to_image/R@10"]
    assert (change["value"], change["low"], change["high"]) == (1, None, None)

"""Results survive their file exactly; damaged files are refused; tables hold every metric."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.atomic_io import sha256, write_with_checksum
from medclip.errors import UserError
from medclip.evaluation.result_tables import result_tables
from medclip.evaluation.results import (
    ITEMS_HASH,
    ConfusionMatrix,
    Kind,
    MisrankedPair,
    NearestImage,
    ReliabilityBin,
    ReliabilityCurve,
    Results,
    read_results,
)
from medclip.named_metrics import Metric, format_interval, format_value, metric_name, name_parts, to_words
from support.handmade_results import PROVENANCE, classes, metric, retrieval

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(max_size=5)
SHARES = st.none() | st.floats(0, 1)


@st.composite
def results(draw):
    """Any results, names with slashes and tildes included."""
    names = draw(st.lists(st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=2), max_size=8))
    # a place of its own for each name: one must not be the path to another
    paths = [metric_name(*parts[:-1], f"{place} {parts[-1]}") for place, parts in enumerate(names)]
    paths = [f"x{place}/{path}" if draw(st.booleans()) else f"x/{path}" for place, path in enumerate(paths)]
    split = draw(st.integers(0, len(paths)))
    metrics = [
        Metric(
            name=name,
            value=draw(SHARES),
            low=draw(SHARES),
            high=draw(SHARES),
            chance=draw(SHARES),
            column=draw(st.none() | TEXTS),
            statistic=draw(st.none() | st.sampled_from(["R@10", "mean"])),
            role=draw(st.sampled_from(["gated", "compared", "reported"])),
            draws=tuple(draw(st.lists(NUMBERS, max_size=3))),
        )
        for name in paths[:split]
    ]
    facts = {name: draw(st.integers() | NUMBERS | TEXTS | st.lists(TEXTS).map(tuple)) for name in paths[split:]}
    pair = st.builds(MisrankedPair, TEXTS, TEXTS, TEXTS, NUMBERS, NUMBERS)
    curve = st.builds(
        ReliabilityCurve,
        TEXTS,
        st.lists(st.builds(ReliabilityBin, NUMBERS, st.integers(), NUMBERS, NUMBERS)).map(tuple),
    )
    matrix = st.builds(
        ConfusionMatrix, TEXTS, st.lists(TEXTS).map(tuple), st.lists(st.lists(st.integers()).map(tuple)).map(tuple)
    )
    origin = {"model": None, "data": draw(st.none() | TEXTS), "seed": draw(st.integers(0)), "split": None}
    return Results(
        kind=draw(st.sampled_from([*Kind])),
        provenance=replace(PROVENANCE, **origin, embeddings_sha256=tuple(draw(st.lists(TEXTS, max_size=2)))),
        metrics=tuple(metrics),
        facts=facts,
        confusion_matrices=tuple(draw(st.lists(matrix, max_size=2))),
        reliability_curves=tuple(draw(st.lists(curve, max_size=2))),
        misranked_pairs=tuple(draw(st.lists(pair, max_size=2))),
        nearest_images=tuple(draw(st.lists(st.builds(NearestImage, TEXTS, TEXTS, NUMBERS), max_size=2))),
    )


@given(results())
def test_results_survive_json_exactly(original):
    assert Results.from_json(json.loads(json.dumps(original.to_json()))) == original


@given(st.lists(st.text(), min_size=1))
def test_a_name_is_its_path(parts):
    assert name_parts(metric_name(*parts)) == parts


@pytest.mark.parametrize(
    ("metrics", "facts"),
    [
        (("a", "a"), ()),
        (("a", "a/b"), ()),
        (("a/b", "a"), ()),
        (("a",), ("a",)),
        (("a",), ("a/b",)),
        (("a/b",), ("a",)),
    ],
)
def test_names_that_exclude_each_other_are_refused(metrics, facts):
    with pytest.raises(ValueError, match="a"):
        Results(
            kind=Kind.PROBE,
            metrics=tuple(metric(name, 0.5) for name in metrics),
            facts=dict.fromkeys(facts, 1),
            provenance=PROVENANCE,
        )


def test_metrics_are_looked_up_by_name_and_path(tmp_path):
    own, _ = read_results(retrieval(tmp_path, [1, 2], [1, 20]), Kind.RETRIEVAL)
    assert own["text_to_image/R@10"].value == 0.5
    assert own.get("text_to_image", "R@10") == own["text_to_image/R@10"]
    assert own.get("text_to_image", "R@7") is None
    assert own.below() == ["image_to_text", "text_to_image", "num_candidates"]
    assert "R@1" in own.below("image_to_text")
    with pytest.raises(KeyError):
        own["R@10"]


@pytest.mark.parametrize(
    "change", [{"kind": "other"}, {"seed": ...}, {"text_to_image": {"R@1": {"value": 1, "low": 0, "high": 1, "x": 2}}}]
)
def test_a_document_of_another_form_is_refused(tmp_path, change):
    path = retrieval(tmp_path, [1, 2], [1, 20]) / "retrieval.json"
    document = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: value for name, value in document.items() if value is not ...}))
    with pytest.raises(UserError, match="does not hold results of retrieval"):
        read_results(tmp_path, Kind.RETRIEVAL)


def rewrite(path, change):
    document = {name: value for name, value in json.loads(path.read_text()).items() if name != "checksum"}
    change(document)
    write_with_checksum(path, document)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["text_to_image"]["R@10"].update(chance="0.5"),
        lambda d: d["text_to_image"]["R@10"].update(draws=["x"]),
        lambda d: d["text_to_image"]["R@10"].update(role="none"),
        lambda d: d["text_to_image"]["R@10"].update(column=3),
        lambda d: d.update(num_candidates=[[4]]),
        lambda d: d.update(seed="0"),
        lambda d: d.update(embeddings_sha256=[1]),
        lambda d: d.update(kind="zero-shot"),
        lambda d: d.update(reliability_curves=[{"name": "x", "bins": [{}]}]),
        lambda d: d.update(misranked_pairs=[{"query": 1}]),
    ],
)
def test_results_of_another_type_are_refused(tmp_path, change):
    rewrite(retrieval(tmp_path, [1, 2], [1, 20]) / "retrieval.json", change)
    with pytest.raises(UserError, match="does not hold results of retrieval"):
        read_results(tmp_path, Kind.RETRIEVAL)


@pytest.mark.parametrize(
    ("names", "values", "words"),
    [
        (["id", "text_to_image/rank"], ["a", "1"], "holds no numbers"),
        (["id", "text_to_image/rank", "text_to_image/rank"], ["a", 1, 2], "two columns of one name"),
    ],
)
def test_items_that_cannot_be_compared_are_refused(tmp_path, names, values, words):
    path = retrieval(tmp_path, [1, 2], [1, 20]) / "retrieval.arrow"
    table = pa.table([[value] for value in values], names=names)
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    rewrite(path.with_suffix(".json"), lambda document: document.update({ITEMS_HASH: sha256(path)}))
    with pytest.raises(UserError, match=words):
        read_results(tmp_path, Kind.RETRIEVAL)


def test_a_number_that_changed_is_damage(tmp_path):
    path = retrieval(tmp_path, [1, 2], [1, 20]) / "retrieval.json"
    document = json.loads(path.read_text())
    document["text_to_image"]["R@10"]["value"] += 0.25
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match="is not as it was written"):
        read_results(tmp_path, Kind.RETRIEVAL)


def test_results_do_not_go_with_the_items_of_another_evaluation(tmp_path):
    half, whole = retrieval(tmp_path / "half", [1], [1]), retrieval(tmp_path / "whole", [1, 2], [1, 20])
    (whole / "retrieval.arrow").write_bytes((half / "retrieval.arrow").read_bytes())
    with pytest.raises(UserError, match="is not the file whose hash is recorded"):
        read_results(whole, Kind.RETRIEVAL)


def test_tables_hold_every_metric(tmp_path):
    retrieval(tmp_path, [1, 2, 30, 4], [9, 11, 3, 1])
    classes(tmp_path, ["ct", "mri", "ct", "us"], [1, 0, 1, 0])
    for kind in (Kind.RETRIEVAL, Kind.ZERO_SHOT):
        own, _ = read_results(tmp_path, kind)
        cells = {
            cell.name for table in result_tables(own) for row in table.rows for cell in row if isinstance(cell, Metric)
        }
        assert cells == {metric.name for metric in own.metrics}


def test_numbers_are_formatted_for_people():
    def form(name, value):
        return format_value(metric(name, 0.5), value)

    assert form("x/R@10", 0.1234) == "12.3\u00a0%"
    assert form("x/median_rank", 1234.5) == "1,234.5"
    assert form("x/median_rank", 216.0) == "216"
    assert [form("accuracy", value) for value in (None, float("nan"), float("inf"))] == ["–"] * 3
    assert format_interval(metric("accuracy", 0.5, 0.25, 1.0)) == "25.0–100.0"
    assert format_interval(metric("R@10_change", -0.1, -0.2, 0.1)) == "−20.0 to 10.0"
    assert format_interval(metric("accuracy", None)) == ""
    assert to_words("text_to_image/median_rank") == "text→image · median rank"

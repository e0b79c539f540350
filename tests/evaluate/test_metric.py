"""Figures are found wherever they stand, with their names and what stands beside them."""

import math

import pytest

from medclip.evaluate.metric import figures, form, form_interval, groups, judged_by, siblings, told_apart, words
from support.handmade_results import figure

SAID = {
    "pool": 10,
    "chance": {"R@10": 1.0, "MRR": 0.3},
    "text_to_image": {"R@10": figure(0.5, 0.4, 0.6), "MRR": figure(0.2)},
    "image_to_text": {"R@10": figure(0.7), "MRR": figure(0.1)},
    "accuracy": figure(0.5),
    "by_group": {"organ": {"worst": "lung", "groups": {"lung": {"n": 4, "R@10": figure(0.1)}}}},
    "few": {"pool": 3, "chance": 0.25, "deep": {"accuracy": figure(0.3), "auroc": None, "f1": figure(None)}},
    "list": [{"severity": 3, "R@10": figure(0.9)}, {"R@10": figure(0.8)}, 7, None],
    "numbers": [1, 2],
    "not one": {"value": True, "low": 0, "high": 1},
}


def test_every_figure_has_its_path_as_its_name():
    assert {name: one["value"] for name, one in figures(SAID).items()} == {
        "accuracy": 0.5,
        "text_to_image / R@10": 0.5,
        "text_to_image / MRR": 0.2,
        "image_to_text / R@10": 0.7,
        "image_to_text / MRR": 0.1,
        "by_group / organ / groups / lung / R@10": 0.1,
        "few / deep / accuracy": 0.3,
        "few / deep / f1": None,
        "list / 3 / R@10": 0.9,
        "list / 1 / R@10": 0.8,
    }


@pytest.mark.parametrize("said", [None, 3, "x", [], {}, figure(1.0), {"a": [[1]]}])
def test_where_there_are_none_none_are_found(said):
    assert figures(said) == {}


def test_chance_is_the_nearest_and_of_what_it_is_chance_of():
    found = {group.path: group for group in groups(SAID)}
    assert found["text_to_image",].chance("MRR") == 0.3
    assert found["text_to_image",].context["pool"] == 10
    assert found["by_group", "organ", "groups", "lung"].chance("text_to_image / R@10") == 1.0
    deep = found["few", "deep"]
    assert (deep.chance("accuracy"), deep.chance("f1"), deep.chance("auroc")) == (0.25, None, 0.5)
    assert deep.context["pool"] == 3


def test_neighbors_with_the_same_figures_make_a_table():
    tables = [[group.path for group in of] for of in siblings(groups(SAID))]
    assert [("text_to_image",), ("image_to_text",)] in tables
    assert [()] in tables
    severities = {"c": {kind: {"levels": [{"severity": s, "x": figure(0.1)} for s in (1, 2)]} for kind in "ab"}}
    (table,) = siblings(groups(severities))
    assert told_apart([group.path for group in table]) == ["a / 1", "a / 2", "b / 1", "b / 2"]


def test_what_a_group_is_judged_by():
    found = {group.path: judged_by(group) for group in groups(SAID)}
    assert found["text_to_image",] == "R@10"
    assert found[()] == "accuracy"


def test_numbers_are_read_as_people_read_them():
    assert form("x / R@10", 0.1234) == "12.3\u00a0%"
    assert form("x / median_rank", 1234.5) == "1,234.5"
    assert form("x / median_rank", 216.0) == "216"
    assert [form("accuracy", value) for value in (None, math.nan, math.inf)] == ["–"] * 3
    assert form_interval("accuracy", figure(0.5, 0.25, 1.0)) == "25.0–100.0"
    assert form_interval("accuracy", {"value": 1.0, "low": None, "high": None}) == ""
    assert words("text_to_image / median_rank") == "text→image · median rank"

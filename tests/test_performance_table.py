"""The page of performance is the tables of what was recorded."""

import json
import re

import numpy as np
import pytest

from support.benchmarks import ROOT, load_benchmark

BENCHMARK = load_benchmark("performance")
NAMES = ("peers", "clock", "growth", "origins")
ORIGIN = {"machine": "2 × toy", "load": 1.5, "commit": "c0ffee0", "versions": {"torch": "2"}}


def comparison(ratios, goal=2.0, peer="theirs", part="search", **fields):
    line = {"part": part, "work": "a task", "peer": peer, "ratios": ratios, "cost": "processor time", "goal": goal}
    return line | {"checked": "rows", "limit": "1 GB", "command": f"performance.py {part}", "origin": ORIGIN} | fields


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A page without tables."""
    marks = [f"{BENCHMARK.START.format(name)}\n{BENCHMARK.END.format(name)}" for name in NAMES]
    path = tmp_path / "performance.md"
    path.write_text("before\n" + "\n".join(marks) + "\nafter\n", encoding="utf-8")
    monkeypatch.setattr(BENCHMARK, "PAGE", path)
    monkeypatch.setattr(BENCHMARK, "LINES", tmp_path / "performance.jsonl")
    return path


def test_a_ratio_is_its_median_with_its_range_and_says_whether_the_goal_was_reached(page):
    for line in (comparison([1.5, 4.0, 2.5]), comparison([1.0, 1.8, 1.9], peer="others"), comparison([3.0], None, "x")):
        BENCHMARK.keep(line)
    BENCHMARK.write_page()
    rows = [line for line in page.read_text("utf-8").splitlines() if line.startswith("| a task |")]
    assert [re.findall(r"\*\*([\d.]+)\*\* \((.+?)\)", row) for row in rows] == [
        [("2.50", "1.50–4.00, 3 rounds")], [("1.80", "1.00–1.90, 3 rounds")], [("3.00", "one round")]
    ]  # fmt: skip
    assert ["2: reached" in rows[0], "2: **missed**" in rows[1], "| – |" in rows[2]] == [True] * 3
    assert "| search | 2 × toy | 1.5 | `c0ffee0` | torch 2 |" in page.read_text("utf-8")


def test_a_time_by_the_clock_is_its_median_beside_its_limit(page):
    for work, seconds in (("quick", [0.3, 0.5, 0.1]), ("slow", [2.5, 2.0, 1.0])):
        line = {"part": "clock", "work": work, "seconds": seconds, "limit_s": 2.0, "command": "performance.py clock"}
        BENCHMARK.keep(line | {"origin": ORIGIN})
    BENCHMARK.write_page()
    text = page.read_text("utf-8")
    assert "| quick | **0.30** (0.10–0.50, 3 runs) | below 2: reached | `performance.py clock` |" in text
    assert "| slow | **2.00** (1.00–2.50, 3 runs) | below 2: **missed** | `performance.py clock` |" in text


def test_a_later_measurement_takes_the_place_of_the_one_before_and_parts_stay_in_order(page):
    for line in (comparison([1.0]), comparison([9.0], part="help"), comparison([5.0]), comparison([7.0], cost="MB")):
        BENCHMARK.keep(line)
    lines = [json.loads(line) for line in BENCHMARK.LINES.read_text("utf-8").splitlines()]
    assert [(line["part"], line["cost"], line["ratios"]) for line in lines] == [
        ("help", "processor time", [9.0]), ("search", "processor time", [5.0]), ("search", "MB", [7.0])
    ]  # fmt: skip


def test_a_part_names_every_commit_and_load_that_its_rows_were_measured_at(page):
    for peer, load, commit in (("a", 9.5, "c0ffee0"), ("b", 12, "beef123+changes"), ("c", 3, "c0ffee0")):
        BENCHMARK.keep(comparison([1.0], peer=peer, origin=ORIGIN | {"load": load, "commit": commit}))
    BENCHMARK.write_page()
    assert "| search | 2 × toy | 3–12 | `c0ffee0`; `beef123+changes` | torch 2 |" in page.read_text("utf-8")


@pytest.mark.parametrize("mark", ["", "+changes"])
def test_a_commit_says_where_files_differed_from_it(monkeypatch, mark):
    monkeypatch.setattr(BENCHMARK, "source_commit", lambda: "c0ffee0" + 33 * "1" + mark)
    assert BENCHMARK.short_commit() == "c0ffee0" + mark


def test_an_exponent_is_that_of_the_power_law():
    sizes = [10, 20, 40, 80]
    assert BENCHMARK.exponent(sizes, 3 * np.array(sizes, float) ** 2) == pytest.approx(2)
    assert BENCHMARK.exponent(sizes, np.sqrt(sizes)) == pytest.approx(0.5)


def test_the_page_is_of_the_recorded_lines(page):
    published = (ROOT / "docs" / "performance.md").read_text("utf-8")
    page.write_text(published, "utf-8")
    BENCHMARK.LINES.write_text((ROOT / "docs" / "performance.jsonl").read_text("utf-8"), "utf-8")
    BENCHMARK.write_page()
    assert page.read_text("utf-8") == published

"""The page of faults is the table of what was recorded, and names tests that exist."""

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINES = [json.loads(line) for line in (ROOT / "docs" / "reliability.jsonl").read_text("utf-8").splitlines()]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_the_table_is_of_the_recorded_lines():
    table = PAGE.partition("<!-- faults")[2].partition("<!-- end of faults")[0]
    rows = re.findall(r"^\| (.+?) \| ([\d,]+) \|", table, re.M)
    assert rows == [(line["fault"], f"{line['times']:,}") for line in LINES]
    assert len(rows) > 50 and not any(line["failures"] for line in LINES)


def test_each_row_names_the_command_that_repeats_it():
    for words in (shlex.split(line["command"]) for line in LINES):
        assert words[:2] == ["python", "benchmarks/soak.py"]
        assert all(value.isdecimal() for flag, value in pairwise(words) if flag in ("--times", "--seconds", "--seed"))


def test_the_tests_that_it_names_exist():
    names = re.findall(r"\]\(\.\./(tests/[\w/.]+)\)", PAGE)
    assert len(names) > 10 and all((ROOT / name).exists() for name in names)

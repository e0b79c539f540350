"""The page of faults is the table of what was recorded, and names tests that exist."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_the_table_is_of_the_recorded_lines():
    lines = [json.loads(line) for line in (ROOT / "docs" / "reliability.jsonl").read_text("utf-8").splitlines()]
    table = PAGE.partition("<!-- faults")[2].partition("<!-- end of faults")[0]
    rows = re.findall(r"^\| (.+?) \| ([\d,]+) \|", table, re.M)
    assert rows == [(line["fault"], f"{line['times']:,}") for line in lines]
    assert len(rows) > 50 and not any(line["failures"] for line in lines)


def test_the_tests_that_it_names_exist():
    names = re.findall(r"\]\(\.\./(tests/[\w/.]+)\)", PAGE)
    assert len(names) > 10 and all((ROOT / name).exists() for name in names)

"""The page of inputs that people have names, in each row, a test that exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_row_names_a_test_that_exists():
    rows = [
        line for line in (ROOT / "docs/inputs.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")
    ]
    tests = [re.search(r"\[(test_\w+)\]\(\.\./(tests/[\w/]+\.py)\) \|$", row) for row in rows if " | test |" not in row]
    assert len(tests) > 80
    for test in tests:
        assert f"def {test[1]}(" in (ROOT / test[2]).read_text(encoding="utf-8"), test[0]

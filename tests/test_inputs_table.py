"""The page of inputs that people have: each row names a test that exists, and quotes the words of today."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.benchmarks import ROOT, load_benchmark
from support.input_runs import Checkout, Run, run_of

ROWS = [
    re.split(r" (?<!\\)\| ", line.removeprefix("| ").removesuffix(" |"))
    for line in (ROOT / "docs/inputs.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| input |")
]
QUOTATION = re.compile("×|exit code|“|{")


def test_every_row_names_a_test_that_exists():
    tests = [re.fullmatch(r"\[(test_\w+)\]\(\.\./(tests/[\w/]+\.py)\)", test) for _, _, _, test in ROWS]
    assert len(tests) > 80
    for test in tests:
        assert f"def {test[1]}(" in (ROOT / test[2]).read_text(encoding="utf-8"), test[0]


@dataclass(frozen=True)
class ThisProcess(Checkout):
    """This checkout, whose commands run in the process of the test."""

    call: Callable[..., tuple[int, str, str]]
    patch: pytest.MonkeyPatch

    def run(self, folder: Path, command: str, *flags: str, out: str = "") -> Run:
        self.patch.chdir(folder)
        self.patch.setenv("XDG_CONFIG_HOME", str(folder))
        code, output, error = self.call(*command.split(), *flags, *(["--out", out] if out else []))
        return run_of(code, error + output, folder / (out or "none"))


@pytest.mark.slow
def test_what_the_page_quotes_is_what_the_commands_say_now(medclip, monkeypatch):
    from medclip import progress
    from medclip.cli.format import screen

    for console in (progress.console, screen):
        monkeypatch.setattr(console, "width", 2000)
    inputs = load_benchmark("inputs")
    checkout = ThisProcess(ROOT, medclip, monkeypatch)
    rows = {row.name: row for rows in inputs.SECTIONS.values() for row in rows()}
    page = {name: now for name, _, now, _ in ROWS if "written by hand" not in name}
    assert page.keys() == rows.keys()
    quoting = [name for name, now in page.items() if QUOTATION.search(now)]
    assert len(quoting) > 20
    assert {name: inputs.result_of(rows[name], checkout) for name in quoting} == {name: page[name] for name in quoting}

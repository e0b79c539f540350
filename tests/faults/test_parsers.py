"""Every parser of what comes from elsewhere: it reads what it is for, and refuses in a sentence what fuzzing found.

`crashes/PARSER/…` are inputs that ended otherwise once; benchmarks/soak.py adds to them.
"""

from pathlib import Path

import pytest

from support.parsers import PARSERS, fuzz_once

CRASHES = Path(__file__).parent / "crashes"
KEPT = sorted(path for path in CRASHES.glob("*/*") if path.is_file())


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_reads_its_own_file_and_refuses_halves_of_it(name, tmp_path):
    parser = PARSERS[name]
    parser.make(tmp_path)
    content = (tmp_path / parser.file).read_bytes()
    assert fuzz_once(parser, tmp_path, content) == ""
    for half in (content[: len(content) // 2], content[len(content) // 2 :], b"", b"\0" * 64, b"\xff\xfe[{<"):
        fuzz_once(parser, tmp_path, half)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_crashed_a_parser_is_refused_in_a_sentence(path, tmp_path):
    parser = PARSERS[path.parent.name]
    parser.make(tmp_path)
    sentence = fuzz_once(parser, tmp_path, path.read_bytes())
    assert "\n" not in sentence and "Traceback" not in sentence

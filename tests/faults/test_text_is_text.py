"""Ids, captions and paths are text: on a terminal they are neither markup nor commands."""

import json
import logging

import pytest
from rich.table import Table
from rich.text import Text

from medclip.atomic_io import write_json
from medclip.cli.format import Output
from medclip.data.prepare import write_notice
from medclip.errors import UserError, WorkError
from medclip.plain_text import PlainFormatter, printable
from medclip.progress import console, progress
from support.handmade_datasets import dataset, row

CONTROLS = "".join(map(chr, [*range(9), *range(11, 32), *range(127, 160), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F),
                             *range(0x2066, 0x206A), 0xD800, 0xDCFF, 0xDFFF]))  # fmt: skip
HOSTILE = ("[/x]", "[bold]x[/bold]", "[link=file:///etc]x[/link]", ":skull:", "\x1b[2J\x1b]0;title\x07", "\x9b31m",
           "a\rb", "a\b\b", "\u202egpj.exe", "\u2066x", "\udcff", "\x7f")  # fmt: skip


def assert_plain(output: str) -> None:
    """Whether it holds nothing that a terminal obeys: of rich's own sequences none, as it is not a terminal."""
    assert not set(output) & set(CONTROLS)


def test_every_control_character_is_written_as_json_does() -> None:
    for character in CONTROLS:
        shown = printable(f"a{character}b")
        assert shown.isprintable()
        assert json.loads(f'"{shown}"') == f"a{character}b"


def test_other_text_stays_as_it_is() -> None:
    text = 'Röntgen – "thorax" 胸部 לב قلب می\u200cخواهم 👩\u200d⚕️ \\u001b <b>\n\tx'
    assert printable(text) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_a_table(capsys, text) -> None:
    table = Table(text, title=text)
    table.add_row(text)
    Output(table=True).show({}, [table, text, Text(text)])
    shown = capsys.readouterr().out
    assert_plain(shown)
    assert shown.count(printable(text)) >= 4
    assert len({len(line) for line in shown.splitlines() if line[0] in "┃│┏└"}) == 1


@pytest.mark.parametrize("text", HOSTILE)
def test_json_on_a_terminal_is_plain_and_means_the_same(capsys, text) -> None:
    Output(json=True).show([{"id": text}], [])
    shown = capsys.readouterr().out
    assert_plain(shown)
    assert json.loads(shown) == {"id": text}


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress(capsys, monkeypatch, text, is_terminal) -> None:
    monkeypatch.setattr(console, "_force_terminal", is_terminal)
    monkeypatch.setattr(console, "width", 200)
    with progress(f"copy {text}", 2, text) as advance:
        advance(loss=1.0)
        advance(loss=1.0)
    console.print(text)
    shown = capsys.readouterr().err
    assert printable(text) in shown
    if is_terminal:  # rich moves the cursor itself
        assert not any(part in shown for part in ("\x1b[2J", "\x1b]", "\7", "\x9b", "\u202e", "\u2066", "\udcff"))
    else:
        assert_plain(shown)


@pytest.mark.parametrize("text", [*HOSTILE, "a\nmedclip: all is well"])
@pytest.mark.parametrize("kind", [UserError, WorkError, OSError])
def test_an_error_is_one_plain_line(medclip, monkeypatch, text, kind) -> None:
    def fail(words):
        raise kind(f"{text} is not a dataset.")

    monkeypatch.setattr("medclip.cli.main.run", fail)
    code, out, err = medclip("info", "x")
    assert (code, out) == (2 if kind is UserError else 1, "")
    assert err == f"medclip: {printable(text.replace(chr(10), ' '))} is not a dataset.\n"


@pytest.mark.parametrize(
    "words", [("info", "a", "X"), ("search", "--index", "a", "--group-by", "X"), ("info", "--X"), ("X",), ("info", "X"),
              ("serve", "--index", "a", "--port", "X"), ("info", "a", "--config", "X")]
)  # fmt: skip
@pytest.mark.parametrize("text", [text for text in HOSTILE if text != "\udcff"])
def test_what_is_wrong_with_a_command_is_plain(medclip, words, text) -> None:
    code, out, err = medclip(*(word.replace("X", text) for word in words))
    assert code == 2
    assert_plain(out + err)
    assert "Traceback" not in err


def test_a_log_is_plain() -> None:
    record = logging.LogRecord(
        "medclip.model", logging.WARNING, "", 0, "%s has no tokenizer", ("".join(HOSTILE),), None
    )
    assert_plain(PlainFormatter("%(message)s").format(record))
    assert isinstance(PlainFormatter(), logging.Formatter)


def test_a_log_is_plain_also_where_a_library_sets_up_logging_as_it_is_imported(medclip, monkeypatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])  # of the tests themselves

    def work(words) -> None:
        logging.basicConfig()  # as Orbax does
        logging.getLogger("medclip.encode").warning("%s has no tokenizer", "\x1b[2J")
        logging.getLogger("medclip.encode").warning("%s has no tokenizer", "\x1b[2J")
        logging.getLogger("absl").error("metadata of a state that is cut, which the run tells itself")

    monkeypatch.setattr("medclip.cli.main.run", work)
    assert medclip("info", "x") == (0, "", "\\u001b[2J has no tokenizer\n")
    assert root.handlers == []


def test_files_that_are_read_on_a_terminal_are_plain(tmp_path) -> None:
    rows = [
        row(i, id=text, license=text, attribution=f"{text}\nb\tc") for i, text in enumerate(HOSTILE) if text != "\udcff"
    ]
    folder = dataset(tmp_path / "data", {"train": rows}, shard=100)
    write_notice(folder, {"train": ["train-00000.arrow"]})
    notice = (folder / "NOTICE.txt").read_bytes().decode()
    assert_plain(notice)
    assert "\\u001b[2J" in notice
    table = notice.partition("\nsplit\t")[2].splitlines()
    assert len(table) == 1 + len(rows)
    assert {line.count("\t") for line in table[1:]} == {3}
    write_json(tmp_path / "x.json", {text: text for text in HOSTILE})
    content = (tmp_path / "x.json").read_bytes().decode()
    assert_plain(content)
    assert json.loads(content) == {text: text for text in HOSTILE}

"""Terminals that lack letters, and file names that are not Unicode: neither ends a command."""

import io
import json
import os
import sys
import tomllib

import pytest

from medclip.atomic_io import read_json, write_json
from medclip.cli.data import Prepare
from medclip.cli.format import Output
from medclip.cli.main import main
from medclip.cli.parse import write_config
from medclip.data.prepare_config import PrepareConfig
from medclip.errors import UserError
from medclip.training.log import open_run

NAME = os.fsdecode(b"scans-\xe9")  # Latin-1


@pytest.fixture
def terminal(monkeypatch):
    """Standard output of an encoding."""

    def make(encoding):
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", out)
        return out

    return make


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_the_same_whatever_the_terminal(encoding, terminal):
    item, out = {"caption": "Échographie – rénale 😀", "out": NAME}, terminal(encoding)
    out.reconfigure(errors="backslashreplace")
    Output(json=True).show(item, [])
    out.flush()
    assert json.loads(out.buffer.getvalue().decode(encoding)) == item


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_help_is_printed_on_any_terminal(encoding, terminal, monkeypatch):
    out = terminal(encoding)
    monkeypatch.setattr(sys, "argv", ["medclip", "--help"])
    main()
    assert out.buffer.getvalue().decode(encoding).startswith("usage: medclip COMMAND")


def test_a_reader_that_ends_early_is_no_error(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "argv", ["medclip", "--help"])
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code == 1


def test_json_files_hold_any_file_name(tmp_path):
    write_json(tmp_path / "a.json", {"source": NAME, "text": "é"})
    assert read_json(tmp_path / "a.json", "") == {"source": NAME, "text": "é"}
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_a_config_file_leaves_out_what_toml_cannot_hold_and_says_so(tmp_path):
    command = Prepare(source=NAME, settings=PrepareConfig(seed=3), out=tmp_path, output=Output())
    write_config("prepare", command)
    text = (tmp_path / "prepare.toml").read_text(encoding="utf-8")
    assert "# source is not Unicode: give it on the command line." in text
    assert tomllib.loads(text)["seed"] == 3


def test_a_run_is_refused_there_before_the_work(tmp_path):
    with pytest.raises(UserError, match=r"is not Unicode; Orbax, which keeps the state of a run, cannot open it\.$"):
        open_run(tmp_path / NAME, {}, {}, resume=False)
    assert not (tmp_path / NAME).exists()


@pytest.mark.slow
def test_commands_work_in_a_folder_that_is_not_unicode(data, run, copy, medclip, tmp_path):
    source, evaluation, index = copy(data).rename(tmp_path / NAME), tmp_path / f"e{NAME}", tmp_path / f"i{NAME}"
    for words in (
        ["stats", source],
        ["leakage", source, "--out", tmp_path / f"l{NAME}"],
        ["evaluate", "retrieval", "--model", run, "--data", source, "--out", evaluation],
        ["index", "build", "--model", run, "--data", source, "--out", index],
        ["search", "--index", index, "chest"],
        ["export", source, "--to", "parquet", "--out", tmp_path / f"p{NAME}"],
        ["info", index],
    ):
        code, _, err = medclip(*words)
        assert code == 0, err

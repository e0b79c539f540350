"""Where nothing can be written: seen before the work by every command, and no hindrance to those that only read."""

import os
import stat

import pytest

from medclip.cli.main import GROUPS, find_command
from medclip.cli.parse import command_flags
from medclip.cli.reference import command_words
from medclip.search.curate import snapshot
from support.faults import WRITERS, read_only

ONE_FILE = {"stats", "compare", "explain", "map"}
"""Commands whose --out is a file."""
FOLDERS = WRITERS.keys() - ONE_FILE - {"quickstart", "onnx"}  # of which one draws a line first, one needs torch


def test_every_command_with_an_out_is_tried():
    from importlib import import_module

    tried = {find_command(words.split())[0] for words in WRITERS.values()}
    for group in GROUPS.values():
        for words in command_words(group):
            name, command, _ = find_command(words)
            module, _, kind = command.target.partition(":")
            if "out" in command_flags(getattr(import_module(f"medclip.cli.{module}"), kind)):
                assert name in tried


@pytest.mark.parametrize("place", ["below a file", "below a dangling link", "where nobody may write", "a long name"])
@pytest.mark.parametrize("command", WRITERS)
def test_an_out_that_cannot_be_written_is_seen_before_the_work(command, place, medclip, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    out = {
        "below a file": tmp_path / "file" / "out",
        "below a dangling link": tmp_path / "link" / "out",
        "where nobody may write": "/proc/out",
        "a long name": tmp_path / ("x" * 300),
    }[place]
    before = sorted(tmp_path.rglob("*"))
    code, _, err = medclip(*WRITERS[command].split(), "--out", out)  # its inputs do not exist: they are not read
    assert (code, err.count("\n")) == (2, 1), err
    assert err.startswith(f"medclip: --out {out} cannot be written (")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", sorted(FOLDERS))
def test_a_file_in_place_of_a_folder_is_seen_too(command, words, medclip, tmp_path):
    (tmp_path / "out").write_text("mine")
    code, _, err = medclip(*words(command), "--out", tmp_path / "out")
    assert (code, err) == (2, f"medclip: --out {tmp_path / 'out'} is a file; give a folder.\n")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("stats DATA", "cannot be written: no page; --out FILE makes one elsewhere"),
        ("leakage DATA", ""),
        ("info DATA", ""),
        ("info INDEX", ""),
        pytest.param("embed --model RUN --data DATA --out OUT", "", marks=pytest.mark.slow),
        pytest.param("evaluate retrieval --model RUN --data DATA --out OUT", "", marks=pytest.mark.slow),
        pytest.param("index build --model RUN --data DATA --out OUT", "", marks=pytest.mark.slow),
        ("search --index INDEX chest", ""),
    ],
)
def test_a_folder_that_is_read_may_be_read_only(command, sentence, data, run, index_folder, copy, medclip, tmp_path):
    with read_only(copy(data)) as ro_data, read_only(copy(run)) as ro_run, read_only(copy(index_folder)) as ro_index:
        paths = {"DATA": ro_data, "RUN": ro_run, "INDEX": ro_index, "OUT": tmp_path / "out"}
        model = ["--model", ro_run] if "search" in command else []
        code, _, err = medclip(*(paths.get(word, word) for word in command.split()), *model)
    assert code == 0, err
    assert sentence in err


@pytest.mark.parametrize("change", ["delete --ids ROCO_00000", "snapshot x", "purge", "migrate exact", "restore y"])
def test_a_change_of_a_read_only_index_is_refused_with_its_name(change, index_folder, copy, medclip):
    snapshot(copied := copy(index_folder), "y")
    with read_only(copied) as folder:
        name, *flags = change.split()
        code, _, err = medclip("index", name, *flags, "--index", folder)
    assert (code, err.count("\n")) == (1, 1), err
    assert str(folder) in err and "Read-only file system" in err


def test_every_file_follows_the_umask(data, run, medclip, tmp_path):
    """Weights too, whose library makes files that nobody else can read."""
    mask = 0o027
    from medclip.model.checkpoint import load, save

    before = os.umask(mask)
    try:
        save(load(run), tmp_path / "model")
        for form in ("safetensors", "parquet"):
            assert medclip("export", data if form == "parquet" else run, "--to", form, "--out", tmp_path / form)[0] == 0
        assert medclip("embed", "--model", run, "--data", data, "--out", tmp_path / "embedded")[0] == 0
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert len(modes) > 15
    assert {
        path: oct(mode) for path, mode in modes.items() if mode != (0o777 if path.is_dir() else 0o666) & ~mask
    } == {}

"""Config files: what a run writes repeats it, the command line wins, and what is wrong is named."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from medclip.search.reader import IndexReader
from support.labels import split_rows, write_table

TRAIN = ("--preset", "tiny", "--steps", 2, "--batch-size", 4, "--lr", 1e-3, "--max-samples", 8, "--num-evals", 1)


def repeat(medclip, config, out, *words):
    """Run the command of a config file again, into another folder."""
    code, _, err = medclip(*config.stem.split("-", 1), "--config", config, "--out", out, *words)
    assert code == 0, err


@pytest.mark.slow
def test_a_preparation_repeats(medclip, roco, tmp_path):
    assert medclip("prepare", roco.folder, "--out", tmp_path / "a", "--max-samples", 5, "--shorter-side", 40)[0] == 0
    repeat(medclip, tmp_path / "a" / "prepare.toml", tmp_path / "b")
    for file in (tmp_path / "a").glob("*.arrow"):
        assert (tmp_path / "b" / file.name).read_bytes() == file.read_bytes()
    settings = tomllib.loads((tmp_path / "b" / "prepare.toml").read_text())
    assert (settings["max_samples"], settings["shorter_side"]) == (5, 40)


@pytest.mark.slow
def test_a_preparation_writes_no_home_folder(medclip, roco, tmp_path):
    assert medclip("prepare", roco.folder, "--out", tmp_path / "a", "--max-samples", 5)[0] == 0
    for value in tomllib.loads((tmp_path / "a" / "prepare.toml").read_text()).values():
        assert not str(value).startswith("/")


@pytest.mark.slow
def test_an_evaluation_repeats(medclip, run, data, tmp_path):
    words = ("--model", run, "--data", data, "--out", tmp_path / "a", "--num-candidates", 5, "--seed", 3)
    assert medclip("evaluate", "retrieval", *words)[0] == 0
    code, _, err = medclip(
        "evaluate", "retrieval", "--config", tmp_path / "a" / "evaluate-retrieval.toml", "--out", tmp_path / "b"
    )
    assert code == 0, err
    a, b = (json.loads((tmp_path / name / "retrieval.json").read_text()) for name in "ab")
    assert a == b


@pytest.mark.slow
def test_measurements_of_one_folder_have_a_config_each(medclip, run, data, tmp_path):
    labeled = write_table(tmp_path / "labeled", split_rows())
    for measure, source in (("retrieval", data), ("zero-shot", labeled)):
        assert medclip("evaluate", measure, "--model", run, "--data", source, "--out", tmp_path / "out")[0] == 0
    for measure, source in (("retrieval", data), ("zero-shot", labeled)):
        settings = tomllib.loads((tmp_path / "out" / f"evaluate-{measure}.toml").read_text())
        assert Path(settings["data"]).resolve() == source.resolve()


def test_an_index_repeats(medclip, run, data, tmp_path):
    assert (
        medclip("index", "build", "--model", run, "--data", data, "--out", tmp_path / "a", "--max-samples", 4)[0] == 0
    )
    code, out, _ = medclip("index", "build", "--config", tmp_path / "a" / "index-build.toml", "--out", tmp_path / "b")
    assert (code, json.loads(out)["images"]) == (0, 4)
    a, b = IndexReader(tmp_path / "a"), IndexReader(tmp_path / "b")
    assert np.array_equal(a.segments[0][1], b.segments[0][1])


@pytest.mark.slow
def test_a_run_repeats_and_the_command_line_wins(medclip, data, tmp_path):
    assert medclip("train", "--data", data, "--out", tmp_path / "a", *TRAIN, "--freeze", "logit_scale")[0] == 0
    repeat(medclip, tmp_path / "a" / "train.toml", tmp_path / "b")
    a, b = (load_file(tmp_path / name / "model" / "model.safetensors") for name in "ab")
    assert all(np.array_equal(a[name], b[name]) for name in a)
    repeat(medclip, tmp_path / "a" / "train.toml", tmp_path / "c", "--steps", 1)
    assert tomllib.loads((tmp_path / "c" / "train.toml").read_text())["steps"] == 1


def config(tmp_path, text):
    (tmp_path / "c.toml").write_text(text)
    return tmp_path / "c.toml"


def test_keys_are_names_of_flags_with_either_line(medclip, index_folder, tmp_path):
    text = f'index = "{index_folder}"\nqueries = ["chest"]\nk = 3\ngroup-by = "article"\nnegative = ["knee", "arrow"]\n'
    code, out, _ = medclip("search", "--config", config(tmp_path, text))
    assert (code, len(out.splitlines())) == (0, 3)
    assert (code, out) == medclip("search", "--config", config(tmp_path, text.replace("group-by", "group_by")))[:2]
    assert len(medclip("search", f"--config={tmp_path / 'c.toml'}", "-k", 2)[1].splitlines()) == 2
    assert len(medclip("search", "--config", tmp_path / "c.toml", "--k=1")[1].splitlines()) == 1


def test_a_home_that_no_shell_expands_is_one_all_the_same(medclip, index_folder, tmp_path, monkeypatch):
    """In --out=~/run, in quotes and in a file: a folder of the name ~ was made, or looked for."""
    monkeypatch.setenv("HOME", str(index_folder.parent))
    file = config(tmp_path, f'index = "~/{index_folder.name}"\n')
    for words in (["--config", file], [f"--index=~/{index_folder.name}"], ["--index", f"~/{index_folder.name}"]):
        assert medclip("search", "chest", *words)[0] == 0


def test_a_repeated_flag_of_the_command_line_takes_the_place_of_the_file(medclip, index_folder, tmp_path):
    file = config(tmp_path, f'index = "{index_folder}"\nfilter = ["license=none"]\n')
    assert medclip("search", "chest", "--config", file)[0] == 1
    assert medclip("search", "chest", "--config", file, "--filter", "license=cc by")[0] == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batch_sise = 3", "c.toml: no flag is named 'batch_sise'. Did you mean batch_size?"),
        ('config = "x.toml"', "no flag is named 'config'"),
        ('steps = "many"', 'c.toml: steps = "many" is not a value of this flag.'),
        ("steps = 1.5", "c.toml: steps = 1.5 is not a value"),
        ("steps = true", "c.toml: steps = true is not a value"),
        ("fsdp = 1", "c.toml: fsdp = 1 is not a value"),
        ('preset = "huge"', 'c.toml: preset = "huge" is not a value'),
        ("[train]\nsteps = 1", "no flag is named 'train'"),
        ("steps = ", "c.toml is not TOML"),
        ("batch_size = 1", "--batch-size 1 is out of range"),
    ],
)
def test_what_is_wrong_in_a_config_file_is_named(medclip, data, tmp_path, text, expected):
    code, out, err = medclip("train", "--data", data, "--out", tmp_path / "run", "--config", config(tmp_path, text))
    assert (code, out) == (2, "")
    assert expected in err
    assert "Traceback" not in err


def test_an_absent_config_file_is_a_mistake_in_words(medclip, tmp_path):
    code, _, err = medclip("stats", "--config", tmp_path / "absent.toml")
    assert code == 2
    assert "absent.toml cannot be read (No such file or directory)" in err


def test_help_shows_the_values_of_the_file(medclip, tmp_path):
    out = medclip("train", "--config", config(tmp_path, "batch_size = 77"), "--help")[1]
    assert "(default: 77)" in out

"""A resumed run goes on from what is whole, says so, and ends as if nothing had been damaged."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from medclip.data.dataset import Split
from medclip.errors import WorkError
from medclip.match_calibration import CALIBRATION_FILE
from medclip.model.checkpoint import load
from medclip.training.config import resolve
from medclip.training.loop import train
from medclip.training.run import initial_model
from medclip.verify import verify


@pytest.fixture
def run_copy(run, tmp_path):
    """The run, as it was before its last words."""
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "summary.json").unlink()
    return folder


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def steps(folder):
    return sorted(int(path.name) for path in (folder / "state").iterdir())


@pytest.mark.slow
def test_a_damaged_state_is_passed_over_for_the_older_one(run_copy, run, data, train_config, capfd):
    newest, older = steps(run_copy)[-1], steps(run_copy)[0]
    flip(largest(run_copy / "state" / str(newest)))
    train(data, run_copy, train_config, resume=True)
    printed = " ".join(capfd.readouterr().err.split())
    assert f"the state of step {newest} is damaged (state/{newest}/" in printed
    assert f"goes on from step {older}" in printed
    assert (run_copy / "model/model.safetensors").read_bytes() == (run / "model/model.safetensors").read_bytes()
    assert verify(run_copy).findings == ()


def test_a_run_without_a_whole_state_ends_in_a_sentence(run_copy, data, train_config):
    for step in steps(run_copy):
        flip(largest(run_copy / "state" / str(step)))
    with pytest.raises(WorkError, match="has no whole state to go on from"):
        train(data, run_copy, train_config, resume=True)


def test_a_damaged_best_model_is_made_again_or_said_to_be_lost(run_copy, run, data, train_config, capfd):
    flip(run_copy / "model" / "model.safetensors")
    try:
        train(data, run_copy, train_config, resume=True)
    except WorkError as error:
        assert re.search(r"has no whole state of before step \d to go on from", str(error))  # there are whole ones
    else:
        assert (run_copy / "model/model.safetensors").read_bytes() == (run / "model/model.safetensors").read_bytes()
    printed = " ".join(capfd.readouterr().err.split())
    assert "the best model, of step" in printed and "is damaged (model/model.safetensors)" in printed


def test_a_deleted_card_is_written_again_and_no_step_repeated(run_copy, run, data, train_config, capfd):
    for name in ("README.md", CALIBRATION_FILE):
        (run_copy / "model" / name).unlink()
    shutil.rmtree(run_copy / "state" / str(steps(run_copy)[0]))
    train(data, run_copy, train_config, resume=True)
    assert "damaged" not in capfd.readouterr().err
    for name in ("README.md", CALIBRATION_FILE, "model.safetensors"):
        assert (run_copy / "model" / name).read_bytes() == (run / "model" / name).read_bytes()


def test_a_damaged_model_of_before_the_first_step_is_made_again(run_copy, data, train_config, capfd):
    lines = [json.loads(line) for line in (run_copy / "metrics.jsonl").read_text().splitlines()]
    lines[0]["mean_recall"] = 1.0
    (run_copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    flip(run_copy / "model" / "model.safetensors")
    train(data, run_copy, train_config, resume=True)
    assert "the best model, of step 0, is damaged" in " ".join(capfd.readouterr().err.split())
    first = initial_model(resolve(train_config, 25), Split(data, "train").column("caption")).params
    saved = load(run_copy).params
    assert all(np.array_equal(saved[name], value) for name, value in first.items())


@pytest.mark.slow
def test_an_absent_state_is_named_and_its_hashes_go_with_it(run_copy, run, data, train_config, capfd):
    older, newest = steps(run_copy)
    shutil.rmtree(run_copy / "state" / str(newest))
    train(data, run_copy, train_config, resume=True)
    printed = " ".join(capfd.readouterr().err.split())
    assert f"the state of step {newest} is absent. the run goes on from step {older}" in printed
    assert (run_copy / "model/model.safetensors").read_bytes() == (run / "model/model.safetensors").read_bytes()
    assert verify(run_copy).findings == ()  # the hashes of another state of that step


@pytest.mark.slow
def test_states_of_steps_that_the_log_lacks_are_passed_over(run_copy, run, data, train_config, capfd):
    older, newest = steps(run_copy)
    log = run_copy / "metrics.jsonl"
    log.write_text("".join(line for line in log.read_text().splitlines(True) if json.loads(line)["step"] < newest))
    train(data, run_copy, train_config, resume=True)
    printed = " ".join(capfd.readouterr().err.split())
    assert f"metrics.jsonl lacks the evaluation of step {newest}" in printed and f"goes on from step {older}" in printed
    names = ("model/model.safetensors", "summary.json")
    assert all((run_copy / name).read_bytes() == (run / name).read_bytes() for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("with_model", [True, False])
def test_a_run_whose_log_is_lost_does_not_take_a_later_model_for_the_best(run_copy, data, train_config, with_model):
    (run_copy / "metrics.jsonl").unlink()
    if not with_model:
        flip(run_copy / "model" / "model.safetensors")
    with pytest.raises(WorkError, match="has no whole state of before step 0 to go on from"):
        train(data, run_copy, train_config, resume=True)

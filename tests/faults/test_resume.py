"""What was begun goes on under the same software, or says that it does not."""

import json
import os

import pytest

from medclip.data import prepare as module
from medclip.data.prepare import prepare_shard
from medclip.data.prepare_config import DEFAULT
from medclip.data.schema import Pair
from medclip.errors import UserError
from medclip.training.log import open_run
from support.material import draw_image, image_bytes


def software(run):
    return json.loads((run / "train_config.json").read_text())["software"]


def test_a_run_resumed_by_other_software_says_so_and_keeps_both(tmp_path, capfd):
    run, before, now = tmp_path / "run", {"jax": "1", "devices": "1 cpu"}, {"jax": "2", "devices": "1 cpu"}
    open_run(run, {"steps": 4}, before, resume=False)
    open_run(run, {"steps": 4}, before, resume=True)
    assert (software(run), capfd.readouterr().err) == ([before], "")
    for _ in range(2):
        open_run(run, {"steps": 4}, now, resume=True)
    assert software(run) == [before, now]
    assert capfd.readouterr().err.count("warning: resumed by other software (jax 1 then, 2 now): ") == 1


def test_a_run_that_was_killed_is_not_called_finished(tmp_path):
    open_run(tmp_path / "run", {}, {}, resume=False)
    with pytest.raises(UserError, match="a run that has not ended: go on with --resume, or choose another"):
        open_run(tmp_path / "run", {}, {}, resume=False)
    (tmp_path / "run" / "summary.json").write_text("{}")
    with pytest.raises(UserError, match="already finished"):
        open_run(tmp_path / "run", {}, {}, resume=False)


def test_a_shard_of_other_libraries_is_made_again(tmp_path, monkeypatch):
    pair = Pair("a", image_bytes(draw_image(1)), "CT of the chest", "train", "a")
    shard = tmp_path / "train-00000.arrow"
    is_written = []
    for versions in ("1", "1", "2"):
        monkeypatch.setattr(module, "library_versions", lambda *packages, versions=versions: versions)
        prepare_shard([pair], shard, DEFAULT)
        is_written.append(shard.stat().st_mtime_ns != 0)
        os.utime(shard, (0, 0))  # the clock of files has ticks in which a shard is made twice
    assert is_written == [True, False, True]

"""What a killed writer leaves goes with the next one, which ends as if it had never been."""

import errno
import os
import shutil
import subprocess

import numpy as np
import pytest
from safetensors.numpy import save_file

from medclip.data.dataset import Split
from medclip.errors import UserError
from medclip.evaluation.config import EvalConfig
from medclip.folder_locks import NOTES, claim, lock_folder
from medclip.model import checkpoint
from medclip.search.curate import add, delete, purge
from medclip.search.reader import IndexReader
from medclip.search.stores import faiss
from medclip.training.log import open_run
from medclip.training.loop import train
from support.faults import COMMAND
from support.writers import files_in, partial_files, run_until


def test_what_a_killed_writer_left_half_written_goes_and_nothing_else(tmp_path):
    (tmp_path / ".film.mp4.partial").touch()  # of another program
    for name in ("a", "part/b", "other/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).with_name(f".{name[-1]}.99.partial").touch()
        (tmp_path / name).touch()
    with lock_folder(tmp_path, "part"):
        assert partial_files(tmp_path) == [".film.mp4.partial", "other/.c.99.partial"]
    assert all((tmp_path / name).exists() for name in ("a", "part/b", "other/c"))


def test_an_output_is_finished_when_the_last_of_it_is_written(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), lock_folder(out):
        with claim(out, "marker"):
            (out / "marker").touch()
        raise KeyboardInterrupt  # before the report
    with lock_folder(out):
        with claim(out, "marker"):
            pass
        assert (out / NOTES).exists()
        (out / "report").touch()
    assert sorted(path.name for path in out.iterdir()) == ["marker", "report"]
    with pytest.raises(UserError, match="already finished"), claim(out, "marker"):
        pass


def test_what_was_begun_as_one_kind_of_folder_ends_as_no_other(tmp_path):
    with pytest.raises(KeyboardInterrupt), claim(tmp_path, "dataset.json"):
        (tmp_path / "train-00000.arrow").touch()
        (tmp_path / NOTES / "train-00000.arrow.json").touch()
        raise KeyboardInterrupt
    with pytest.raises(UserError, match=r"unfinished work of another kind \(dataset.json\)"):
        claim(tmp_path, "index.json").__enter__()
    with pytest.raises(UserError, match="unfinished work of another kind"):
        EvalConfig(out=tmp_path)
    with pytest.raises(UserError, match="unfinished work of another kind"):
        open_run(tmp_path, {}, {}, resume=False)
    with claim(tmp_path, "dataset.json"):
        (tmp_path / "dataset.json").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.json", "train-00000.arrow"]


@pytest.mark.parametrize(
    "name",
    ["report.html", *(pytest.param(n, marks=pytest.mark.slow) for n in ("dataset.json", "prepare.toml", "NOTICE.txt"))],
)
def test_a_preparation_killed_at_its_end_is_not_finished(medclip, roco, tmp_path, name):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = ["prepare", roco.folder, "--num-workers", "1", "--out"]
    assert medclip(*command, whole)[0] == 0
    assert run_until(name, *command, killed) and not (killed / name).exists()
    assert medclip(*command, killed)[0] == 0
    assert files_in(killed).keys() == files_in(whole).keys()
    others = files_in(whole).keys() - {"prepare.toml", "checksums.json"}
    assert all(files_in(killed)[file] == files_in(whole)[file] for file in others)
    code, _, error = medclip(*command, killed)
    assert (code, "already finished" in error) == (2, True)


def test_what_a_killed_writer_of_weights_leaves_is_swept(tmp_path, monkeypatch):
    """The library that writes them has temporary files of its own, which an export then took for its files."""
    left = tmp_path / "left"

    def save_and_look(tensors, path, metadata):
        save_file(tensors, path.with_name(".tmp2s9dZD"))
        shutil.copytree(tmp_path / "model", left)  # what a kill at this moment leaves
        save_file(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", save_and_look)
    (tmp_path / "model").mkdir()
    checkpoint.write_tensors({"a": np.zeros(3)}, tmp_path / "model" / "model.safetensors")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["model.safetensors"]
    assert any(path.name == ".tmp2s9dZD" for path in left.rglob("*"))
    with lock_folder(left):
        assert list(left.iterdir()) == []


def test_an_export_killed_after_its_last_file_is_written_again_as_it_was(medclip, run, tmp_path):
    command = ["export", run, "--to", "safetensors", "--out", tmp_path / "export"]
    assert medclip(*command)[0] == 0
    whole = files_in(tmp_path / "export")
    (tmp_path / "export" / NOTES).mkdir()  # what a kill would leave, as it goes last
    assert medclip(*command)[0] == 0
    assert files_in(tmp_path / "export") == whole
    assert medclip("verify", tmp_path / "export")[0] == 0


def test_an_export_that_a_full_disk_ended_goes_on(medclip, run, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    command = ["export", run, "--to", "safetensors", "--out", tmp_path / "export"]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        assert medclip(*command)[0] == 1
        assert medclip(*command)[0] == 1
    assert (tmp_path / "export" / "config.json").exists()
    assert medclip(*command)[0] == 0 and not (tmp_path / "export" / NOTES).exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.safetensors", "README.md", "calibration.json", "summary.json", "train.toml"])
def test_a_training_killed_at_its_end_is_completed_by_resume(data, tmp_path, name):
    command = ["train", "--data", data, "--preset", "tiny", "--steps", 2, "--batch-size", 8, "--out", tmp_path / "run"]
    assert run_until(name, *command)
    assert not (tmp_path / "run" / "summary.json").exists() or name == "train.toml"
    resumed = subprocess.run([*COMMAND, *map(str, command), "--resume"], capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert {"summary.json", "train.toml", "metrics.jsonl"} <= files_in(tmp_path / "run").keys()
    assert {f"model/{file}" for file in ("README.md", "calibration.json")} <= files_in(tmp_path / "run").keys()
    assert partial_files(tmp_path / "run") == []


def test_a_purge_erases_what_a_killed_change_left(index_folder, copy, data):
    folder = copy(index_folder)
    segments = {path.name for path in (folder / "segments").iterdir()}
    leftover = folder / "segments" / "00001"
    (leftover / NOTES).mkdir(parents=True)
    for name in ("rows.arrow", ".rows.arrow.99.partial", f"{NOTES}/embeddings.npy", faiss.FAISS_FILE):
        (leftover / name).write_bytes(b"an image")
    (folder / "segments" / "00000" / f".{faiss.FAISS_FILE}.99.partial").write_bytes(b"an image")
    delete(folder, Split(data, "validation").column("id")[:1])
    assert purge(folder) == 1  # the other rows become the segment 00001
    assert sorted(files_in(folder)) == ["index.json", "segments/00001/embeddings.npy", "segments/00001/rows.arrow"]
    assert not any(b"an image" in content for content in files_in(folder).values())
    assert segments == {"00000"} and len(IndexReader(folder)) == 11


def test_a_killed_addition_does_not_lend_its_files_to_the_next(index_folder, copy, data, run):
    folder = copy(index_folder)
    leftover = folder / "segments" / "00001"
    leftover.mkdir()
    (leftover / faiss.FAISS_FILE).write_bytes(b"of other embeddings")
    assert add(folder, data, "train", None, run)[0] > 0
    assert sorted(path.name for path in leftover.iterdir()) == ["embeddings.npy", "rows.arrow"]


@pytest.mark.slow
def test_states_that_a_killed_run_left_half_written_go(run, data, train_config, copy):
    folder = copy(run)
    leftover = folder / "state" / "9.orbax-checkpoint-tmp-1"
    leftover.mkdir()
    (leftover / "weights").write_bytes(bytes(1000))
    (folder / ".curves.png.99.partial").touch()
    (folder / "model" / ".model.safetensors.99.partial").touch()
    train(data, folder, train_config, resume=True)
    assert not leftover.exists() and partial_files(folder) == []


def test_an_export_killed_in_its_last_step_goes_on(medclip, data, tmp_path):
    command = ["export", data, "--to", "parquet", "--out"]
    assert medclip(*command, tmp_path / "whole")[0] == 0
    assert medclip(*command, tmp_path / "killed")[0] == 0
    (tmp_path / "killed" / NOTES).mkdir()  # the last that goes
    assert medclip(*command, tmp_path / "killed")[0] == 0
    assert files_in(tmp_path / "killed") == files_in(tmp_path / "whole")


def test_rows_of_a_killed_copy_do_not_stay_in_the_next(medclip, data, tmp_path):
    (tmp_path / "copy" / NOTES).mkdir(parents=True)
    with claim(tmp_path / "copy", "dataset.json"):
        pass
    stale = tmp_path / "copy" / "train-00009.arrow"
    stale.write_bytes(b"of more rows")
    (tmp_path / "copy" / NOTES).mkdir()
    (tmp_path / "copy" / NOTES / "train-00009.arrow.json").write_text("{}")
    assert medclip("leakage", data, "--out", tmp_path / "copy")[0] == 0
    assert not stale.exists() and not (tmp_path / "copy" / NOTES).exists()

"""A file that was interrupted goes on where it was saved, and only where its inputs are the same."""

import contextlib
import json
import os

import numpy as np
import pytest

from medclip.data import resume
from medclip.data.resume import NOTES, ResumableFile, file_state, fingerprint, finish, remove_stale

HEADER = b"three rows a block\n"


class Killed(BaseException):
    """What nothing catches."""


@pytest.fixture(autouse=True)
def saved_after_every_block(monkeypatch):
    monkeypatch.setattr(resume, "SAVE_EVERY_S", 0.0)


def blocks(first_row, last_row=12, killed_at=None):
    for row in range(first_row, last_row, 3):
        if row == killed_at:
            raise Killed
        yield np.arange(row, row + 3, dtype="<f4").reshape(3, 1)


WHOLE = HEADER + np.arange(12, dtype="<f4").tobytes()


@pytest.mark.parametrize("row", [0, 3, 6, 9])
def test_a_killed_file_goes_on_to_the_same_bytes(tmp_path, row):
    path = tmp_path / "rows.bin"
    with pytest.raises(Killed):
        ResumableFile(path, "a").append(blocks(0, killed_at=row), HEADER)
    assert not path.exists()
    file = ResumableFile(path, "a")
    assert (file.rows_done, file.is_complete) == (row, False)
    file.append(blocks(row), HEADER)
    assert (path.read_bytes(), file.rows_done, file.is_complete) == (WHOLE, 12, True)


def test_what_was_written_after_the_last_save_is_written_again(tmp_path, monkeypatch):
    path = tmp_path / "rows.bin"
    with pytest.raises(Killed):
        ResumableFile(path, "a").append(blocks(0, killed_at=6), HEADER)
    monkeypatch.setattr(resume, "SAVE_EVERY_S", 1e9)
    with pytest.raises(Killed):
        ResumableFile(path, "a").append(blocks(6, killed_at=9), HEADER)
    file = ResumableFile(path, "a")
    assert file.rows_done == 6
    file.append(blocks(6), HEADER)
    assert path.read_bytes() == WHOLE


@pytest.mark.parametrize("complete", [False, True])
def test_other_inputs_begin_anew(tmp_path, complete):
    path = tmp_path / "rows.bin"
    with contextlib.suppress(Killed):
        ResumableFile(path, "a").append(blocks(0, killed_at=None if complete else 6), HEADER)
    other = ResumableFile(path, "b")
    assert (other.rows_done, other.is_complete) == (0, False)
    with pytest.raises(Killed):
        other.append(blocks(0, killed_at=3), HEADER)
    assert not other.is_complete  # the complete file of the inputs "a" is not taken for it
    other.append(blocks(3), HEADER)
    assert path.read_bytes() == WHOLE


def test_a_lost_file_is_made_anew_whatever_its_note_says(tmp_path):
    path = tmp_path / "rows.bin"
    file = ResumableFile(path, "a")
    file.append(blocks(0), HEADER)
    path.unlink()
    assert (file.rows_done, file.is_complete) == (0, False)
    (note,) = (tmp_path / NOTES).iterdir()
    for damage in ("", "[]", json.dumps({"rows": 3})):
        note.write_text(damage)
        assert file.rows_done == 0
    file.append(blocks(0), HEADER)
    assert path.read_bytes() == WHOLE


def test_a_full_disk_ends_in_an_error_and_is_gone_on_from(tmp_path, monkeypatch):
    file, fsync = ResumableFile(tmp_path / "rows.bin", "a"), os.fsync

    def full(_):
        raise OSError(28, "No space left on device")

    with pytest.raises(Killed):
        file.append(blocks(0, killed_at=3), HEADER)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        file.append(blocks(3), HEADER)
    assert not file.path.exists()
    monkeypatch.setattr(os, "fsync", fsync)
    assert file.rows_done == 3
    file.append(blocks(3), HEADER)
    assert file.path.read_bytes() == WHOLE


def test_a_rewrite_that_fails_leaves_a_file_that_is_not_complete(tmp_path):
    file = ResumableFile(tmp_path / "shard", "a")
    with file.rewrite():
        file.path.write_bytes(b"whole")
    assert file.is_complete
    assert not ResumableFile(file.path, "b").is_complete
    with pytest.raises(Killed), file.rewrite():
        raise Killed
    assert not file.is_complete


def test_stale_files_and_notes_go_and_others_stay(tmp_path):
    for name in ("a", "b"):
        with ResumableFile(tmp_path / name, "inputs").rewrite():
            (tmp_path / name).write_bytes(b"")
    (tmp_path / "of a user").write_bytes(b"")
    remove_stale(tmp_path, ["b"])
    finish(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "of a user"]


def test_a_file_of_a_call_that_was_killed_before_its_note_is_stale_too(tmp_path):
    file = ResumableFile(tmp_path / "train-00000-of-00001.tar", "inputs")
    with pytest.raises(Killed), file.rewrite():
        file.path.write_bytes(b"whole")
        raise Killed
    remove_stale(tmp_path, ["train-00000-of-00001.parquet"])
    assert not file.path.exists()


def test_a_fingerprint_tells_inputs_apart(tmp_path):
    path = tmp_path / "image.png"
    assert file_state(path) is None
    path.write_bytes(b"1")
    before = file_state(path)
    path.write_bytes(b"12")
    assert fingerprint("model", before) != fingerprint("model", file_state(path))
    assert fingerprint("ab", "c") != fingerprint("a", "bc")

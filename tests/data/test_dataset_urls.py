"""A dataset behind a URL is the one in the folder; it is copied once, whole, and never mistaken for another."""

import json

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from medclip.data.dataset import Split, default_split, read_dataset
from medclip.data.paths import parse_path
from medclip.errors import UserError, WorkError

URL = "memory://bucket/data"


@pytest.fixture
def store(data, tmp_path, monkeypatch):
    """The prepared dataset behind URL; lists the shards that are copied."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    for path in data.glob("*.*"):
        (parse_path(URL) / path.name).write_bytes(path.read_bytes())
    copied, get = [], MemoryFileSystem.get_file

    def get_and_count(self, path, *rest, **more):
        copied.append(path.rsplit("/", 1)[-1])
        return get(self, path, *rest, **more)

    monkeypatch.setattr(MemoryFileSystem, "get_file", get_and_count)
    return copied


def test_a_dataset_behind_a_url_is_the_one_in_the_folder(data, store):
    assert read_dataset(parse_path(URL)) == read_dataset(data)
    assert default_split(parse_path(URL)) == "validation"
    assert store == []
    local, remote = Split(data, "train"), Split(parse_path(URL), "train")
    assert remote.table.equals(local.table)
    assert remote.digest == local.digest
    assert remote.image(24) == local.image(24)


def test_a_split_is_copied_when_it_is_first_opened_and_never_again(store):
    assert len(Split(parse_path(URL), "validation")) == len(Split(parse_path(URL + "/"), "validation")) == 12
    assert store == ["validation-00000.arrow"]
    Split(parse_path(URL), "train", 3)
    assert store == ["validation-00000.arrow", "train-00000.arrow"]


def test_a_dataset_that_was_prepared_again_is_copied_again(store):
    first = Split(parse_path(URL), "train").folder
    dataset = json.loads((parse_path(URL) / "dataset.json").read_text())
    (parse_path(URL) / "dataset.json").write_text(json.dumps(dataset | {"seed": 1}))
    assert Split(parse_path(URL), "train").folder != first
    assert store == ["train-00000.arrow"] * 2


def test_a_copy_that_breaks_off_leaves_nothing_and_goes_on(store, monkeypatch):
    def broken(self, remote, local, **more):
        with open(local, "wb") as handle:  # noqa: PTH123
            handle.write(b"ARROW1")
        raise OSError("connection reset")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "get_file", broken)
        with pytest.raises(WorkError, match=r"memory://bucket/data cannot be reached \(OSError: connection reset\)"):
            Split(parse_path(URL), "train")
    assert len(Split(parse_path(URL), "train")) == 25


def test_what_is_not_there_is_named(store):
    (parse_path(URL) / "train-00000.arrow").unlink()
    with pytest.raises(UserError, match=r"data/train-00000\.arrow is listed in dataset\.json but absent"):
        Split(parse_path(URL), "train")
    with pytest.raises(UserError, match=r"memory://bucket/other is not a prepared dataset"):
        Split(parse_path("memory://bucket/other"), "train")
    with pytest.raises(UserError, match=r"no split 'test'"):
        Split(parse_path(URL), "test")

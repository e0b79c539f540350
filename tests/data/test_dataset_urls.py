"""A dataset behind a URL is the one in the folder; it is copied once, whole, and never mistaken for another."""

import json

import numpy as np
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from medclip.atomic_io import with_checksum
from medclip.data.dataset import Split, default_split, read_dataset
from medclip.data.derive import copy_splits
from medclip.data.export import export_data
from medclip.data.paths import parse_path
from medclip.data.shards import write_table
from medclip.errors import UserError, WorkError
from medclip.model.image_processor import square_image_processor
from medclip.training.data import SplitImages, cache_pixels, decode_into

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
    (parse_path(URL) / "dataset.json").write_text(json.dumps(with_checksum(dataset | {"seed": 1})))
    assert Split(parse_path(URL), "train").folder != first
    assert store == ["train-00000.arrow"] * 2


def test_a_split_is_opened_by_one_reading_of_its_manifest(store, monkeypatch):
    opened, open_file = [], MemoryFileSystem._open

    def open_and_count(self, path, *rest, **more):
        opened.append(path)
        return open_file(self, path, *rest, **more)

    monkeypatch.setattr(MemoryFileSystem, "_open", open_and_count)
    Split(parse_path(URL), "validation")
    assert opened.count("/bucket/data/dataset.json") == 1


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


@pytest.fixture
def shards(data, store, tmp_path):
    """The training split in shards of 0, 7, 1, 9, 0 and 8 pairs, in a folder and behind URL."""
    whole, folder = Split(data, "train"), parse_path(URL)
    dataset, start, shards = json.loads((folder / "dataset.json").read_text()), 0, []
    for number, pairs in enumerate((0, 7, 1, 9, 0, 8)):
        table = whole.table.slice(start, pairs).combine_chunks()
        write_table(tmp_path / "shard.arrow", table, {})
        (folder / f"train-{number:05d}.arrow").write_bytes((tmp_path / "shard.arrow").read_bytes())
        shards.append({"file": f"train-{number:05d}.arrow", "pairs": pairs})
        start += pairs
    dataset["splits"]["train"]["shards"] = shards
    (folder / "dataset.json").write_text(json.dumps(with_checksum(dataset)))
    return whole


@pytest.fixture
def no_room(shards, monkeypatch):
    """The same, where this machine has no room for a copy; lists the requests for bytes of a shard."""
    monkeypatch.setenv("MEDCLIP_DATA_CACHE_GB", "0")
    requests, cat = [], MemoryFileSystem.cat_file

    def cat_and_count(self, path, *rest, **more):
        requests.append(path.rsplit("/", 1)[-1])
        return cat(self, path, *rest, **more)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_and_count)
    return requests


@pytest.mark.parametrize(("first", "count"), [(0, 25), (0, 7), (6, 3), (7, 1), (8, 9), (17, 8), (20, None), (24, 1)])
@pytest.mark.parametrize("room", ["1", "0"])
def test_a_part_is_those_rows_and_reads_no_other_shards(shards, store, monkeypatch, room, first, count):
    monkeypatch.setenv("MEDCLIP_DATA_CACHE_GB", room)
    part, rows = Split(parse_path(URL), "train", count, first), range(first, first + (count or 25))[: 25 - first]
    assert part.column("id") == [shards.column("id")[row] for row in rows]
    assert [part.image(row) for row in range(len(part))] == [shards.image(row) for row in rows]
    assert len(list(part.folder.glob("train-*"))) <= 2 + len({0 if r < 7 else 1 if r < 8 else 2 for r in rows})


def test_a_run_decodes_images_behind_a_url_by_the_shard(shards, no_room):
    images = SplitImages(Split(parse_path(URL), "train"), square_image_processor(16))
    assert no_room == []
    cached = cache_pixels(images)
    assert no_room == [f"train-{number:05d}.arrow" for number in (1, 2, 3, 5)]
    decode_into(images, pixels := np.empty_like(cached))
    local = SplitImages(shards, images.image_processor)[np.arange(25)]
    assert np.array_equal(cached, pixels) and np.array_equal(cached, local)


def test_an_export_without_room_for_a_copy_is_refused_before_the_first_shard(shards, no_room, store, tmp_path):
    with pytest.raises(UserError, match=r"copied to this machine first: about .* XDG_CACHE_HOME .* MEDCLIP_DATA_CACHE"):
        export_data(parse_path(URL), tmp_path / "out", "tar")
    assert store == no_room == [] and not (tmp_path / "out").exists()


def test_images_without_room_are_read_behind_the_url(shards, no_room, store):
    split = Split(parse_path(URL), "train")
    assert store == []  # no shard was copied
    assert split.digest == shards.digest
    assert split.table.equals(shards.table.drop_columns(["image"]))
    images = [shards.image(row) for row in range(25)]
    on_disk = b"".join(path.read_bytes() for path in split.folder.iterdir() if path.is_file())
    assert all(caption.encode() in on_disk for caption in shards.column("caption"))
    assert not any(image in on_disk for image in images)
    assert [split.image(row) for row in (24, 0, 7, 7)] == [images[row] for row in (24, 0, 7, 7)]
    before = len(no_room)
    assert list(split.iter_images(range(25))) == images
    assert no_room[before:] == [f"train-{number:05d}.arrow" for number in (1, 2, 3, 5)]
    assert list(split.iter_images([9, 3, 1, 20])) == [images[row] for row in (9, 3, 1, 20)]
    mask = np.isin(np.arange(25), [0, 8, 9, 24])
    for chosen in (None, mask):
        made, wanted = (pa.Table.from_batches(s.iter_batches(["id", "image"], chosen, 4)) for s in (split, shards))
        assert made.combine_chunks() == wanted.combine_chunks()


def test_a_copy_of_rows_without_room_is_the_same(shards, no_room, tmp_path):
    copy_splits(parse_path(URL), tmp_path, lambda split: range(1, 24) if split.name == "train" else range(12), {})
    assert Split(tmp_path, "train").table.equals(shards.table.slice(1, 23))


def test_an_image_that_is_not_the_one_of_its_row_is_refused(no_room):
    split, shard = Split(parse_path(URL), "train"), parse_path(URL) / "train-00001.arrow"
    image = split.image(3)
    shard.write_bytes(shard.read_bytes().replace(image, image[:-3] + b"\0\0\0"))
    with pytest.raises(WorkError, match=r"data/train-00001\.arrow was changed, or is damaged"):
        split.image(3)
    shard.unlink()
    with pytest.raises(WorkError, match=r"data/train-00001\.arrow cannot be reached"):
        list(split.iter_images(range(25)))


@pytest.mark.parametrize("limit", ["x", "nan"])
def test_a_limit_that_is_no_number_is_refused(store, monkeypatch, limit):
    monkeypatch.setenv("MEDCLIP_DATA_CACHE_GB", limit)
    with pytest.raises(UserError, match="MEDCLIP_DATA_CACHE_GB"):
        Split(parse_path(URL), "train")

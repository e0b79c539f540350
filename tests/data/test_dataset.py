"""The prepared form opens whole or says in a sentence what is wrong with it."""

import hashlib
import json
import os

import numpy as np
import pytest

from medclip.atomic_io import write_with_checksum
from medclip.data.dataset import Split, default_split, read_dataset
from medclip.data.prepare import prepare
from medclip.data.shards import shard_report, write_shard, write_table
from medclip.errors import UserError
from support.handmade_datasets import dataset, row
from support.material import RocoFolder, draw_image, image_bytes


def test_a_shard_carries_its_own_report(tmp_path):
    write_shard(tmp_path / "a.arrow", [], {"dropped": [["id", "train", "Gründe", ""]]})
    assert shard_report(tmp_path / "a.arrow") == {"dropped": [["id", "train", "Gründe", ""]]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.arrow"]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 100, 5000])
def test_a_torn_shard_is_no_shard(data, copy, size):
    folder = copy(data)
    os.truncate(folder / "train-00000.arrow", size)
    assert shard_report(folder / "train-00000.arrow") is None
    with pytest.raises(UserError, match=r"train-00000\.arrow is not a whole Arrow file"):
        Split(folder, "train")
    assert len(Split(folder, "validation")) == 12


def test_an_absent_shard_is_named(data, copy):
    folder = copy(data)
    (folder / "train-00000.arrow").unlink()
    with pytest.raises(UserError, match=r"train-00000\.arrow is listed in dataset\.json but absent"):
        Split(folder, "train")


def test_an_empty_split_says_why_it_is_empty(tmp_path):
    roco = RocoFolder(tmp_path / "roco")
    roco.add_split("train", [("A", "CT of the chest", 1, None), ("B", "CT of the head", 2, None)])
    roco.add_split("validation", [("C", "CT of the knee", 3, image_bytes(draw_image(3)))])
    prepare(str(roco.folder), tmp_path / "data", num_workers=1)
    with pytest.raises(UserError, match=r"'train' of .* is empty; .*'image missing': 2"):
        Split(tmp_path / "data", "train")


def test_an_unknown_split_names_the_known(data):
    with pytest.raises(UserError, match=r"has no split 'test'; it has: train, validation\."):
        Split(data, "test")


def test_another_folder_is_refused_by_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"\(medclip prepare SOURCE --out DATA makes one\): it has no dataset\.json\."):
        Split(tmp_path, "train")


@pytest.mark.parametrize(
    "content",
    [
        '{"splits": ',
        "[]",
        "{}",
    ],
)
def test_a_damaged_dataset_json_is_refused_by_a_sentence(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(UserError, match=r"dataset\.json"):
        Split(tmp_path, "train")


def test_limit_keeps_the_first_rows(data):
    assert Split(data, "train", 3).column("id") == Split(data, "train").column("id")[:3]


def test_values_are_those_of_the_column_whatever_the_shards(shards_of_one):
    whole, apart = shards_of_one
    rows = [24, 0, 7, 7]
    for split in (whole, apart):
        for name in ("caption", "concepts", "id"):
            assert list(split.iter_column(name)) == split.column(name) == whole.column(name)
            assert split.take(name, np.array(rows)) == [whole.column(name)[row] for row in rows]


def test_a_digest_is_of_images_and_captions_however_they_lie_in_shards(shards_of_one, data):
    whole, apart = shards_of_one
    content = json.dumps([whole.column("sha256"), whole.column("caption")])
    assert whole.digest == apart.digest == hashlib.sha256(content.encode()).hexdigest()
    assert Split(data, "train", 24).digest != whole.digest


@pytest.fixture
def shards_of_one(data, copy):
    """The training split as it is, and with each pair in a shard of its own, between empty ones."""
    folder = copy(data)
    whole = Split(data, "train")
    dataset, shards = json.loads((folder / "dataset.json").read_text()), []
    for i in range(2 * len(whole)):
        write_table(folder / f"train-{i:05d}.arrow", whole.table.slice(i // 2, i % 2), {})
        shards.append({"file": f"train-{i:05d}.arrow", "pairs": i % 2})
    dataset["splits"]["train"]["shards"] = shards
    write_with_checksum(folder / "dataset.json", dataset)
    return whole, Split(folder, "train")


def test_a_limit_below_zero_is_refused(data):
    with pytest.raises(UserError):
        Split(data, "train", -1)


WRONG = (None, 3, [], {"train": 3}, {"train": {"image missing": "1"}})


@pytest.mark.parametrize("value", WRONG, ids=str)
@pytest.mark.parametrize("name", ["source", "synthetic", "dropped", "privacy"])
def test_a_field_of_dataset_json_that_is_wrong_is_named(tmp_path, name, value):
    dataset(tmp_path, {"train": [row(1)]}, **{name: value})
    with pytest.raises(UserError, match=rf"dataset\.json: {name} is absent or of a wrong type"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(("splits", "wanted"), [(["a", "validation"], "validation"), (["a"], "a"), (["a", "b"], None)])
def test_the_split_that_needs_no_name(tmp_path, splits, wanted):
    dataset(tmp_path, {name: [row(1)] for name in splits})
    if wanted:
        assert default_split(tmp_path) == wanted
    else:
        with pytest.raises(UserError, match="--split"):
            default_split(tmp_path)

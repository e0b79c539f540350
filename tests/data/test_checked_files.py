"""A damaged file is refused by a sentence as it is opened; none is a crash, none a wrong number."""

import json

import numpy as np
import pyarrow as pa
import pytest

from medclip.atomic_io import write_with_checksum
from medclip.data.checked_files import DamageError, damaged_rows, open_array, open_table
from medclip.data.dataset import Split
from medclip.data.shards import write_arrow
from medclip.errors import UserError
from support.handmade_datasets import dataset, row

TABLE = pa.table({"id": ["a", "b", "c"], "image": [b"xx", b"", b"yyy"], "labels": [["l"], [], ["m", "n"]]})


def patch(path, old, new):
    """The file with bytes replaced, in every place."""
    content = path.read_bytes()
    assert old in content and len(old) == len(new)
    path.write_bytes(content.replace(old, new))
    return path


@pytest.mark.parametrize(
    "offsets",
    [(0, 2, 2, 5), (0, 1, 2, 3)],  # of the images, of the labels
)
def test_offsets_that_point_out_of_a_column_are_damage(tmp_path, offsets):
    write_arrow(tmp_path / "t.arrow", TABLE)
    assert open_table(tmp_path / "t.arrow", TABLE.schema, 3).equals(TABLE)
    good = np.array(offsets, "<i4").tobytes()
    bad = np.array([*offsets[:2], 2**30, offsets[-1]], "<i4").tobytes()
    if good not in (tmp_path / "t.arrow").read_bytes():
        offsets = (0, 1, 1, 3)
        good, bad = (np.array([*offsets[:2], x, offsets[-1]], "<i4").tobytes() for x in (1, 2**30))
    patch(tmp_path / "t.arrow", good, bad)
    with pytest.raises(DamageError, match="is not a whole Arrow file"):
        open_table(tmp_path / "t.arrow")


def test_text_that_is_not_utf8_is_damage(tmp_path):
    write_arrow(tmp_path / "t.arrow", pa.table({"caption": ["a chest"]}))
    patch(tmp_path / "t.arrow", b"chest", b"che\xff\xfe")
    with pytest.raises(DamageError, match="is not a whole Arrow file"):
        open_table(tmp_path / "t.arrow")


def test_other_columns_and_other_lengths_are_damage(tmp_path):
    write_arrow(tmp_path / "t.arrow", TABLE)
    with pytest.raises(DamageError, match="other columns"):
        open_table(tmp_path / "t.arrow", pa.schema([("id", pa.string())]))
    with pytest.raises(DamageError, match="has 3 rows, which disagrees with the 4 recorded"):
        open_table(tmp_path / "t.arrow", num_rows=4)


@pytest.mark.parametrize("array", [np.ones((2, 3), "<f8"), np.ones((2, 3), ">f4"), np.ones((3, 2), "<f4")])
def test_an_array_of_another_type_or_shape_is_damage(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DamageError, match="disagrees with the recorded float32 of shape"):
        open_array(tmp_path / "a.npy", "<f4", (2, 3))


def test_rows_that_are_not_unit_vectors_are_named():
    rows = np.tile(np.array([0.6, 0.8], np.float32), (70_000, 1))
    assert damaged_rows(rows) == []
    rows[1, 0], rows[2, 1], rows[69_999, 0], rows[5] = np.nan, np.inf, 1.6e36, 0
    assert damaged_rows(rows) == [1, 2, 5, 69_999]


def test_a_split_of_another_number_of_pairs_than_its_manifest_is_refused(tmp_path):
    folder = dataset(tmp_path / "data", {"train": [row(n) for n in range(3)]})
    content = json.loads((folder / "dataset.json").read_text())
    content["splits"]["train"]["shards"][0]["pairs"] = 4
    write_with_checksum(folder / "dataset.json", content)
    with pytest.raises(UserError, match=r"train-00000\.arrow has 3 rows, which disagrees with the 4 recorded"):
        Split(folder, "train")


def test_a_pair_without_a_caption_is_refused(tmp_path):
    folder = dataset(tmp_path / "data", {"train": [row(0), row(1) | {"caption": None}]})
    with pytest.raises(UserError, match="has a pair without caption"):
        Split(folder, "train")

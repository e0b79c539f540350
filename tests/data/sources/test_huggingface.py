"""Datasets of Hugging Face in each of their layouts, built here as its library writes them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.data.normalize import split_of
from medclip.data.prepare import preview
from medclip.data.prepare_config import PrepareConfig
from medclip.data.schema import Dropped, Pair, is_made_up
from medclip.data.sources.detect import open_source
from medclip.data.sources.unlisted_files import UNLISTED_IMAGE
from medclip.errors import UserError
from support.material import draw_image, image_bytes

CAPTIONS = ["NA", "None", "null", "Échographie: 5–10 mm", "b' CT of the chest '", "left knee, lateral"]


def table(numbers):
    """An image column as `datasets` keeps it, with the ids and the concepts of ROCOv2 on the Hub."""
    rows = [
        {
            "image": {"bytes": image_bytes(draw_image(n)), "path": None},
            "image_id": f"ROCOv2_{n}",
            "caption": CAPTIONS[n % 6],
            "cui": ["C1"],
        }
        for n in numbers
    ]
    return pa.Table.from_pylist(rows)


def save_to_disk(folder, numbers, shards=1):
    """What `Dataset.save_to_disk` leaves: Arrow streams, and the list of them."""
    folder.mkdir(parents=True)
    names = [f"data-{shard:05}-of-{shards:05}.arrow" for shard in range(shards)]
    for shard, name in enumerate(names):
        part = table(numbers[shard::shards])
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, part.schema) as out:
            out.write_table(part)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"image": {"_type": "Image"}}}))
    return folder


def read_by_id(source):
    return {row.id: (row.split, row.caption, row.image) for row in open_source(str(source)) if isinstance(row, Pair)}


def expect(splits):
    return {
        f"ROCOv2_{n}": (split, CAPTIONS[n % 6], image_bytes(draw_image(n)))
        for split, numbers in splits.items()
        for n in numbers
    }


SPLITS = {"train": range(6), "validation": range(6, 10), "test": range(10, 12)}


def test_a_saved_dict_of_splits(tmp_path):
    for split, numbers in SPLITS.items():
        save_to_disk(tmp_path / split, numbers, shards=2)
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": list(SPLITS)}))
    assert read_by_id(tmp_path) == expect(SPLITS)


def test_a_saved_set_without_splits(tmp_path):
    folder = save_to_disk(tmp_path / "one", range(20))
    assert {row.split for row in open_source(str(folder))} == {"train", "validation"}
    assert all(row.split == split_of(row.id) for row in open_source(str(folder)))


@pytest.mark.parametrize("form", ["data/{}-00000-of-00001", "{}", "default/{}/0000", "data/{}-00000-of-00001-abc0123"])
def test_a_repository_of_parquet(tmp_path, form):
    for split, numbers in SPLITS.items():
        path = tmp_path / f"{form.format(split)}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(numbers), path)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    assert read_by_id(tmp_path) == expect(SPLITS)


def test_rows_of_several_files_have_ids_of_their_own(tmp_path):
    for part in range(3):
        rows = table(range(part * 2, part * 2 + 2)).drop_columns(["image_id"])
        pq.write_table(rows, tmp_path / f"test-{part:05}-of-00003.parquet")
    assert len({row.id for row in open_source(str(tmp_path)) if is_made_up(row.id)}) == 6


def test_train_alone_is_no_split(tmp_path):
    pq.write_table(table(range(40)), tmp_path / "train-00000-of-00001.parquet")
    assert {row.split for row in open_source(str(tmp_path))} == {"train", "validation"}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("in_splits", [True, False])
def test_a_folder_of_images_with_metadata(tmp_path, suffix, in_splits):
    for split, numbers in SPLITS.items():
        folder = tmp_path / split if in_splits else tmp_path
        (folder / "a").mkdir(parents=True, exist_ok=True)
        for n in numbers:
            (folder / "a" / f"{n}.png").write_bytes(image_bytes(draw_image(n), "PNG"))
        rows = [{"file_name": f"a/{n}.png", "text": f"CT, number {n}"} for n in numbers]
        lines = [json.dumps(row) for row in rows] if suffix == "jsonl" else ["file_name,text"]
        lines += [] if suffix == "jsonl" else [f'a/{n}.png,"CT, number {n}"' for n in numbers]
        (folder / f"metadata.{suffix}").write_text("\n".join(lines), encoding="utf-8")
    rows = list(open_source(str(tmp_path)))
    read = [row for row in rows if isinstance(row, Pair)]
    assert {row.reason for row in rows if isinstance(row, Dropped)} == (set() if in_splits else {UNLISTED_IMAGE})
    numbers = range(12) if in_splits else SPLITS["test"]  # the last written metadata.* is the folder's
    assert sorted(row.caption for row in read) == sorted(f"CT, number {n}" for n in numbers)
    for row in read:
        n = int(row.caption.split()[-1])
        assert row.image.read_bytes() == image_bytes(draw_image(n), "PNG")
        assert not in_splits or n in SPLITS[row.split]


def test_rows_in_several_forms_are_read_once(tmp_path):
    pq.write_table(table(range(4)), tmp_path / "test.parquet")
    (tmp_path / "test.csv").write_text("image,caption\n1.jpg,CT of the chest\n")
    assert read_by_id(tmp_path) == expect({"test": range(4)})


def test_limit_reads_no_more_than_the_first_rows_of_each_split(tmp_path):
    for split, numbers in SPLITS.items():
        pq.write_table(table(numbers), tmp_path / f"{split}.parquet")
    read = list(open_source(str(tmp_path), PrepareConfig(max_samples=2)))
    assert [row.split for row in read] == [split for split in sorted(SPLITS) for _ in range(2)]


def test_captions_arrive_in_the_prepared_form(tmp_path):
    pq.write_table(table(range(6)), tmp_path / "train.parquet")
    rows = preview(str(tmp_path), num_rows=6)
    assert rows[4]["caption"] == rows[4]["caption_original"] == "b' CT of the chest '"
    assert [row.reason for row in rows[:3]] == ["caption under 10 characters"] * 3  # NA, None, null


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset_dict.json", {"splits": ["../elsewhere"]}, "names '../elsewhere', which is not below it"),
        ("dataset_dict.json", {"splits": ["train"]}, "names the split train, but that folder has no state.json"),
        ("state.json", {"_data_files": [{"filename": "../../x.arrow"}]}, "which is not below it"),
        ("state.json", {"_data_files": [{"filename": "absent.arrow"}]}, r"absent\.arrow is not a complete Arrow file"),
        ("state.json", {"_data_files": "x"}, "does not list its files"),
        ("state.json", {"_data_files": ["x"]}, "does not list its files"),
        ("state.json", None, "is damaged and cannot be read as JSON"),
    ],
)
def test_what_a_set_says_of_itself_is_not_believed(tmp_path, name, content, message):
    (tmp_path / name).write_text(json.dumps(content) if content else "{")
    with pytest.raises(UserError, match=message):
        open_source(str(tmp_path))

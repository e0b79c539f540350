"""Preparation loses no row without saying so, mangles no caption, parts no image from its words, and resumes."""

import hashlib
import io
import json
import os
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medclip.data import prepare as module
from medclip.data.dataset import Split
from medclip.data.prepare import chunks_by_split, drop_repeated_ids, prepare
from medclip.data.prepare_config import PrepareConfig
from medclip.data.schema import Dropped, Pair
from medclip.data.shards import SCHEMA
from medclip.data.sources.detect import source_path
from medclip.errors import UserError
from support.material import SHORT_CAPTION, RocoFolder, draw_image, image_bytes, level_of
from support.prepared import dropped_rows

SPLITS = ("train", "validation")


def contents(folder):
    """Hash of every file of a dataset."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "cache")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def pair(id, image=b"", split="train"):
    return Pair(id=id, image=image, caption="CT of the chest", split=split, article=id)


def rows_of(data, split):
    return Split(data, split).table.to_pylist()


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD_PAIRS", 8)


def test_every_row_is_counted_once(roco, data):
    dataset = json.loads((data / "dataset.json").read_text())
    assert dataset["dropped"] == roco.dropped
    num_pairs = sum(split["pairs"] for split in dataset["splits"].values())
    assert num_pairs + sum(sum(reasons.values()) for reasons in dataset["dropped"].values()) == roco.lines
    assert {split: s["pairs"] for split, s in dataset["splits"].items()} == {s: len(Split(data, s)) for s in SPLITS}


def test_every_dropped_row_is_named(data):
    dropped = dropped_rows(data)
    assert {(row["id"], row["reason"]) for row in dropped} == {
        ("ROCO_90001", "image missing"),
        ("ROCO_90003", "image unreadable"),
        ("ROCO_90004", "caption under 10 characters"),
        ("ROCO_00003", "duplicate id"),
        ("a row without a tab", "row without id and caption"),
    }
    assert {row["split"] for row in dropped} == {"train"}


@pytest.mark.parametrize("split", SPLITS)
def test_captions_are_not_mangled(roco, data, split):
    assert len(SHORT_CAPTION) < 10
    for row in rows_of(data, split):
        written = roco.captions[split, row["id"]]
        assert row["caption"] == unicodedata.normalize("NFC", " ".join(written.split()))
        assert row["caption_original"] == f" {written}"


def test_case_accents_and_punctuation_survive(data):
    captions = {row["id"]: row["caption"] for row in rows_of(data, "train")}
    assert captions["ROCO_90005"] == "Échographie rénale à gauche"
    assert captions["ROCO_90006"] == "T2-weighted MRI of Kienböck's Disease (STIR), mixed CASE"
    assert captions["ROCO_90007"] == 'A "ground-glass" opacity; 5–10 mm, <b>arrow</b>, 50% & \\n'
    assert captions["ROCO_90008"] == "b' none of this is Python '"


@pytest.mark.parametrize("split", SPLITS)
def test_each_image_stands_beside_its_own_caption(roco, data, split):
    for row in rows_of(data, split):
        number = roco.numbers[split, row["id"]]
        pixels = np.asarray(Image.open(io.BytesIO(row["image"])), float)
        if row["id"] == "ROCO_90002":  # 16 bits are stretched: compare the texture instead of the level
            assert np.corrcoef(pixels.ravel(), np.asarray(draw_image(number), float).ravel())[0, 1] > 0.99
        else:
            assert abs(pixels.mean() - level_of(number)) < 1  # JPEG, twice; the next image is 4 levels away
            if row["id"].startswith("ROCO_0"):
                assert row["caption"].endswith(f"number {number}")


def test_what_is_known_of_a_row_arrives_with_it(data):
    row = rows_of(data, "train")[0]
    assert set(row) == set(SCHEMA.names)
    assert (row["id"], row["article"], row["license"], row["source"]) == ("ROCO_00000", "PMC1000", "CC BY", "ROCO")
    assert row["concepts"] == ["C0000000", "C9"]
    assert row["labels"] == [("modality", "ct")]
    assert row["sha256"] == hashlib.sha256(row["image"]).hexdigest()
    assert Image.open(io.BytesIO(row["image"])).size == (row["width"], row["height"]) == (48, 40)


def test_no_path_of_this_machine_is_stored(roco, data):
    for path in data.glob("*.*"):
        assert str(roco.folder.parent).encode() not in path.read_bytes()


@pytest.fixture
def cut_short(monkeypatch):
    """Prepares, and is stopped when every shard is there and the dataset is not yet said to be whole."""

    def stop(*_):
        raise KeyboardInterrupt

    def prepare_and_stop(*arguments, **options):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, "write_notice", stop)
            prepare(*arguments, **options)

    return prepare_and_stop


def times(folder):
    """And the numbers of the files: the clock of files has ticks in which a shard is made twice."""
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.glob("*.arrow")}


def rewritten_shards(folder, before):
    return {name for name, time in times(folder).items() if before.get(name) != time}


def test_a_killed_preparation_resumes_at_the_missing_shard(roco, tmp_path, small_shards, cut_short):
    out = tmp_path / "data"
    prepare(str(roco.folder), tmp_path / "whole", num_workers=1)
    cut_short(str(roco.folder), out, num_workers=1)
    (out / "train-00001.arrow").unlink()
    (out / ".train-00001.arrow.1.partial").write_bytes(b"half")
    before = times(out)
    assert {"train-00003.arrow", "validation-00001.arrow"} <= set(before)
    prepare(str(roco.folder), out, num_workers=1)
    assert rewritten_shards(out, before) == {"train-00001.arrow"}
    assert contents(out) == contents(tmp_path / "whole")


def test_a_resume_makes_no_row_of_a_whole_shard(roco, tmp_path, small_shards, cut_short, monkeypatch):
    cut_short(str(roco.folder), tmp_path / "data", num_workers=1)
    monkeypatch.setattr(module, "prepare_rows", None)
    prepare(str(roco.folder), tmp_path / "data", num_workers=1)


def test_a_damaged_shard_is_made_anew_on_resume(roco, tmp_path, small_shards, cut_short):
    out = tmp_path / "data"
    cut_short(str(roco.folder), out, num_workers=1)
    whole = {path.name: path.read_bytes() for path in out.glob("*.arrow")}
    os.truncate(out / "train-00001.arrow", 1000)
    (out / "train-00002.arrow").write_bytes(b"")
    prepare(str(roco.folder), out, num_workers=1)
    assert {path.name: path.read_bytes() for path in out.glob("*.arrow")} == whole


def test_a_shard_of_another_size_is_not_taken_over_on_resume(roco, tmp_path, cut_short):
    out = tmp_path / "data"
    cut_short(str(roco.folder), out, PrepareConfig(shorter_side=40, max_samples=4), num_workers=1)
    prepare(str(roco.folder), out, PrepareConfig(shorter_side=20, max_samples=4), num_workers=1)
    assert [row["height"] for row in rows_of(out, "train")] == [20] * 4


def test_shards_of_other_rows_do_not_stay(roco, tmp_path, small_shards, cut_short):
    cut_short(str(roco.folder), tmp_path / "data", num_workers=1)
    prepare(str(roco.folder), tmp_path / "data", PrepareConfig(max_samples=3), num_workers=1)
    prepare(str(roco.folder), tmp_path / "fresh", PrepareConfig(max_samples=3), num_workers=1)
    assert contents(tmp_path / "data") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("change", ["arrives", "is replaced", "goes", "is told otherwise"])
def test_what_changed_since_is_taken_on_resume(tmp_path, cut_short, change):
    """The other image has the size and the time of the first: a change of the content is seen all the same."""
    roco, out = RocoFolder(tmp_path / "roco"), tmp_path / "data"
    image, other_image = (image_bytes(draw_image(n), "BMP") for n in (1, 3))
    image_path = roco.folder / "train" / "radiology" / "images" / "A.jpg"
    first = None if change == "arrives" else image
    roco.add_split(
        "train", [("A", "CT of the chest", 1, first), ("B", "CT of the head", 2, image_bytes(draw_image(2)))]
    )
    cut_short(str(roco.folder), out, num_workers=1)
    if change == "goes":
        image_path.unlink()
    elif change == "is told otherwise":
        links = image_path.parents[1] / "dlinks.txt"
        links.write_text(links.read_text().replace("PMC1000", "PMC7"))
    else:
        mtime = image_path.stat().st_mtime_ns if image_path.exists() else None
        image_path.write_bytes(other_image)
        if mtime:
            os.utime(image_path, ns=(mtime, mtime))
    prepare(str(roco.folder), out, num_workers=1)
    prepare(str(roco.folder), tmp_path / "fresh", num_workers=1)
    assert contents(out) == contents(tmp_path / "fresh")


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(roco, tmp_path, small_shards):
    for workers in (1, 2):
        prepare(str(roco.folder), tmp_path / f"{workers}", num_workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_a_source_is_named_also_where_its_path_is_not(roco, tmp_path, monkeypatch):
    (roco.folder / "train").mkdir(exist_ok=True)
    for path, folder in {".": roco.folder, "..": roco.folder / "train"}.items():
        monkeypatch.chdir(folder)
        assert source_path(path) == source_path(Path(path)) == str(roco.folder.resolve())
    assert [source_path(name) for name in ("a/b", "s3://bucket/data/", "/data")] == [
        "a/b",
        "s3://bucket/data/",
        "/data",
    ]


def test_values_in_memory_are_prepared_like_files(tmp_path):
    rows = [(draw_image(n), f"CT of the chest, image number {n}") for n in range(3)]
    dataset = prepare({"train": rows, "val": rows[:1]}, tmp_path / "data", num_workers=2)
    assert {split: entry["pairs"] for split, entry in dataset["splits"].items()} == {"train": 3, "validation": 1}
    assert dataset["source"] == "memory:data"
    for row, (image, caption) in zip(rows_of(tmp_path / "data", "train"), rows, strict=True):
        assert row["caption"] == caption
        assert abs(np.asarray(Image.open(io.BytesIO(row["image"])), float).mean() - np.asarray(image).mean()) < 1


def test_what_cannot_be_written_as_text_is_a_dropped_row(tmp_path):
    (tmp_path / "a.jpg").write_bytes(image_bytes(draw_image(1)))
    row = {"image": "a.jpg", "split": "train"}
    texts = [("1", "half a \ud83d character"), ("\ud800", "CT of the chest"), ("3", "CT of the chest \U0001f600")]
    lines = [json.dumps(row | {"id": id, "caption": caption}) for id, caption in texts]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    prepare(str(tmp_path / "x.jsonl"), tmp_path / "data", num_workers=1)
    assert [row["id"] for row in rows_of(tmp_path / "data", "train")] == ["3"]
    assert [(row["id"], row["reason"]) for row in dropped_rows(tmp_path / "data")] == [
        ("1", "text is not Unicode"),
        ("?", "text is not Unicode"),
    ]


@pytest.mark.parametrize("split", ["../elsewhere", "a/b", ".", "", " "])
def test_a_split_that_names_no_file_is_refused(tmp_path, split):
    source = (Dropped("a", split, "for some reason") for _ in range(1))
    with pytest.raises(UserError, match="row 'a' has the split"):
        list(chunks_by_split(source))


def test_an_id_that_was_dropped_by_its_reader_is_free():
    rows = [Dropped("a", "train", "no caption"), pair("a"), pair("a"), pair("a", split="test"), pair("b")]
    assert [isinstance(row, Pair) for row in drop_repeated_ids(iter(rows))] == [False, True, False, True, True]


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.text(max_size=2)), max_size=60))
def test_repeated_ids_are_those_of_a_set(rows):
    results = drop_repeated_ids(pair(id, split=split) for split, id in rows)
    assert [isinstance(row, Dropped) for row in results] == [row in rows[:i] for i, row in enumerate(rows)]


@pytest.mark.parametrize("content", [{"image": bytes(4000)}, {"caption": "x" * 4000}, {"labels": {"view": "x" * 4000}}])
def test_a_shard_is_full_at_so_many_bytes_of_images_and_texts(monkeypatch, content):
    monkeypatch.setattr(module, "SHARD_BYTES", 10_000)
    rows = [replace(pair(str(number)), **content) for number in range(7)]
    assert [(number, len(chunk)) for _, number, chunk in chunks_by_split(iter(rows))] == [(0, 3), (1, 3), (2, 1)]


def test_a_finished_dataset_is_never_overwritten(roco, data):
    before = contents(data)
    with pytest.raises(UserError, match="already finished"):
        prepare(str(roco.folder), data, num_workers=1)
    assert contents(data) == before


def test_limit_takes_the_first_rows_of_each_split(roco, tmp_path):
    prepare(str(roco.folder), tmp_path / "data", PrepareConfig(max_samples=3), num_workers=1)
    for split in SPLITS:
        assert [row["id"] for row in rows_of(tmp_path / "data", split)] == ["ROCO_00000", "ROCO_00001", "ROCO_00002"]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("no-such-folder", "cannot be read. Sources are: a ROCO folder"),
        ("phantoms:many", "write phantoms:COUNT"),
        ("phantoms:²", "write phantoms:COUNT"),
        ("phantoms:0", "write phantoms:COUNT"),
    ],
)
def test_a_wrong_source_is_refused_by_a_sentence(tmp_path, source, sentence):
    with pytest.raises(UserError, match=sentence):
        prepare(source, tmp_path / "data", num_workers=1)


@pytest.mark.parametrize("source", ["phantoms-of-care", "phantoms/hospital"])
def test_only_phantoms_are_synthetic_whatever_a_folder_is_called(roco, tmp_path, monkeypatch, source):
    shutil.copytree(roco.folder, tmp_path / source)
    monkeypatch.chdir(tmp_path)
    dataset = prepare(source, tmp_path / "data", PrepareConfig(max_samples=1), num_workers=1)
    assert (dataset["source"], dataset["synthetic"]) == (source.rpartition("/")[2], False)


def test_a_refused_source_leaves_no_folder(tmp_path):
    (tmp_path / "scan.xyz").write_bytes(b"8BPS")
    with pytest.raises(UserError, match=r"cannot be read\. Sources are: a ROCO folder"):
        prepare(str(tmp_path), tmp_path / "data", num_workers=1)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "option",
    [{"max_samples": 0}, {"max_samples": -1}, {"shorter_side": 0}, {"shorter_side": -1}, {"licenses": ","}],
    ids=str,
)
def test_senseless_settings_are_refused(option):
    with pytest.raises(UserError):
        PrepareConfig(**option)


def test_no_workers_are_refused(roco, tmp_path):
    with pytest.raises(UserError):
        prepare(str(roco.folder), tmp_path / "data", num_workers=0)


def test_a_source_is_not_prepared_into_itself(tmp_path):
    (tmp_path / "a.png").write_bytes(image_bytes(draw_image(0), "PNG"))
    (tmp_path / "a.txt").write_text("CT of the chest")
    with pytest.raises(UserError, match="the source itself"):
        prepare(str(tmp_path), tmp_path, num_workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.txt"]

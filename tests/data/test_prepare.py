"""Preparation loses no row without saying so, mangles no caption, parts no picture from its words, and resumes."""

import hashlib
import io
import json
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from conftest import SHORT_CAPTION, RocoFolder, drawn, encoded, level_of
from medclip.data import prepare as module
from medclip.data.pairs import Pair
from medclip.data.prepare import prepare
from medclip.data.shards import SCHEMA, Split
from medclip.errors import UserError, WorkError

SPLITS = ("train", "validation")


def contents(folder):
    """Hash of every file of a data set."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "cache")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def rows_of(data, split):
    return Split(data, split).table.to_pylist()


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD_PAIRS", 8)


def test_every_row_is_counted_once(roco, data):
    about = json.loads((data / "dataset.json").read_text())
    assert about["dropped"] == roco.dropped
    kept = sum(split["pairs"] for split in about["splits"].values())
    assert kept + sum(sum(reasons.values()) for reasons in about["dropped"].values()) == roco.lines
    assert {split: s["pairs"] for split, s in about["splits"].items()} == {s: len(Split(data, s)) for s in SPLITS}


def test_every_dropped_row_is_named(data):
    dropped = [json.loads(line) for line in (data / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(d["id"], d["reason"]) for d in dropped} == {
        ("ROCO_90001", "image missing"),
        ("ROCO_90003", "image unreadable"),
        ("ROCO_90004", "caption under 10 characters"),
        ("ROCO_00003", "duplicate id"),
        ("a row without a tab", "row without id and caption"),
    }
    assert {d["split"] for d in dropped} == {"train"}


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
def test_each_picture_stands_beside_its_own_caption(roco, data, split):
    for row in rows_of(data, split):
        number = roco.numbers[split, row["id"]]
        pixels = np.asarray(Image.open(io.BytesIO(row["image"])), float)
        if row["id"] == "ROCO_90002":  # 16 bits are stretched: compare the texture instead of the level
            assert np.corrcoef(pixels.ravel(), np.asarray(drawn(number), float).ravel())[0, 1] > 0.99
        else:
            assert abs(pixels.mean() - level_of(number)) < 1  # JPEG, twice; the next picture is 4 levels away
            if row["id"].startswith("ROCO_0"):
                assert row["caption"].endswith(f"number {number}")


def test_what_is_known_of_a_row_arrives_with_it(data):
    row = rows_of(data, "train")[0]
    assert set(row) == set(SCHEMA.names)
    assert (row["id"], row["article"], row["licence"], row["source"]) == ("ROCO_00000", "PMC1000", "CC BY", "ROCO")
    assert row["concepts"] == ["C0000000", "C9"]
    assert row["labels"] == [("modality", "ct")]
    assert row["sha256"] == hashlib.sha256(row["image"]).hexdigest()
    assert Image.open(io.BytesIO(row["image"])).size == (row["width"], row["height"]) == (48, 40)


def test_no_path_of_this_machine_is_stored(roco, data):
    for path in data.glob("*.*"):
        assert str(roco.folder.parent).encode() not in path.read_bytes()


def test_a_killed_preparation_resumes_at_the_missing_shard(roco, tmp_path, small_shards):
    out = tmp_path / "data"
    prepare(str(roco.folder), out, workers=1)
    whole = contents(out)
    assert {"train-00003.arrow", "validation-00001.arrow"} <= set(whole)
    for name in ("dataset.json", "dropped.jsonl", "train-00001.arrow"):
        (out / name).unlink()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.arrow")}
    prepare(str(roco.folder), out, workers=1)
    assert contents(out) == whole
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_damaged_shard_is_made_anew_on_resume(roco, tmp_path, small_shards):
    out = tmp_path / "data"
    prepare(str(roco.folder), out, workers=1)
    whole = contents(out)
    (out / "dataset.json").unlink()
    os.truncate(out / "train-00001.arrow", 1000)
    (out / "train-00002.arrow").write_bytes(b"")
    prepare(str(roco.folder), out, workers=1)
    assert contents(out) == whole


def test_a_shard_of_another_size_is_not_taken_over_on_resume(roco, tmp_path):
    out = tmp_path / "data"
    prepare(str(roco.folder), out, side=40, limit=4, workers=1)
    (out / "dataset.json").unlink()
    prepare(str(roco.folder), out, side=20, limit=4, workers=1)
    assert [row["height"] for row in rows_of(out, "train")] == [20] * 4


def test_a_picture_that_arrived_since_is_taken_on_resume(tmp_path):
    made, out = RocoFolder(tmp_path / "roco"), tmp_path / "data"
    made.add_split("train", [("A", "CT of the chest", 1, None), ("B", "CT of the head", 2, encoded(drawn(2)))])
    prepare(str(made.folder), out, workers=1)
    (out / "dataset.json").unlink()
    (made.folder / "train" / "radiology" / "images" / "A.jpg").write_bytes(encoded(drawn(1)))
    assert prepare(str(made.folder), out, workers=1)["splits"]["train"]["pairs"] == 2


def test_the_number_of_workers_changes_nothing(roco, tmp_path, small_shards):
    for workers in (1, 2):
        prepare(str(roco.folder), tmp_path / f"{workers}", workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


class Deadly:
    """Ends the process that receives it, as a native decoder does on some damaged pictures."""

    def __reduce__(self):
        return os._exit, (1,)


@pytest.mark.slow
def test_a_worker_that_dies_is_told_in_words(tmp_path, monkeypatch):
    pair = Pair("1", b"", Deadly(), "train", "1")
    monkeypatch.setattr(module, "open_source", lambda *_: iter([pair]))
    with pytest.raises(WorkError, match="a worker died in or near shard 0 of train"):
        prepare("phantoms", tmp_path / "data", workers=1)
    assert not (tmp_path / "data" / "dataset.json").exists()


def test_a_finished_data_set_is_never_overwritten(roco, data):
    before = contents(data)
    with pytest.raises(UserError, match="already finished"):
        prepare(str(roco.folder), data, workers=1)
    assert contents(data) == before


def test_limit_takes_the_first_rows_of_each_split(roco, tmp_path):
    prepare(str(roco.folder), tmp_path / "data", limit=3, workers=1)
    for split in SPLITS:
        assert [row["id"] for row in rows_of(tmp_path / "data", split)] == ["ROCO_00000", "ROCO_00001", "ROCO_00002"]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("no-such-folder", "cannot be read: it is neither a ROCO folder"),
        ("phantoms:many", "write phantoms:COUNT"),
        ("phantoms:²", "write phantoms:COUNT"),
        ("phantoms:0", "write phantoms:COUNT"),
    ],
)
def test_a_wrong_source_is_refused_by_a_sentence(tmp_path, source, sentence):
    with pytest.raises(UserError, match=sentence):
        prepare(source, tmp_path / "data", workers=1)


def test_a_refused_source_leaves_no_folder(tmp_path):
    with pytest.raises(UserError, match="cannot be read: it is neither a ROCO folder"):
        prepare(str(tmp_path), tmp_path / "data", workers=1)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("option", [{"limit": 0}, {"limit": -1}, {"side": 0}, {"side": -1}], ids=str)
def test_senseless_numbers_are_refused(roco, tmp_path, option):
    with pytest.raises(UserError):
        prepare(str(roco.folder), tmp_path / "data", workers=1, **option)

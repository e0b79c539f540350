"""Exchange forms hold every pair, are the same bytes each time, and come back as the same pairs."""

import io
import json
import tarfile
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from PIL import Image

from medclip.atomic_io import write_with_checksum
from medclip.data import export
from medclip.data.dataset import Split
from medclip.data.export import export_data
from medclip.data.prepare import prepare
from medclip.data.shards import open_shard, write_shard
from medclip.data.sources.detect import source_length
from medclip.errors import UserError, WorkError
from medclip.folder_locks import NOTES
from medclip.model.convert import export_safetensors

FORMS = ("parquet", "tar")
SAME = ("id", "caption", "article", "license", "concepts", "keywords", "semantic_types", "labels", "source")


def rows_of(data, split):
    return [{name: row[name] for name in SAME} for row in Split(data, split).table.to_pylist()]


@pytest.fixture
def several_files(data, copy, monkeypatch):
    """The dataset, its training split in three shards, of which two go into a file."""
    folder = copy(data)
    table = open_shard(folder / "train-00000.arrow")
    rows = table.to_pylist()
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset["splits"]["train"]["shards"] = []
    del dataset["crc32"]
    for number, start in enumerate((0, 10, 20)):
        file, part = f"train-{number:05d}.arrow", rows[start : start + 10]
        write_shard(folder / file, part, {})
        dataset["splits"]["train"]["shards"].append({"file": file, "pairs": len(part)})
    write_with_checksum(folder / "dataset.json", dataset)
    monkeypatch.setattr(export, "FILE_BYTES", (folder / "train-00000.arrow").stat().st_size + 1)
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_pairs_come_back_as_they_went(several_files, data, tmp_path, form):
    assert export_data(several_files, tmp_path / "out", form) == {"train": 2, "validation": 1}
    report = prepare(str(tmp_path / "out"), tmp_path / "back", num_workers=1)
    assert report["dropped"] == {"train": {}, "validation": {}}
    for split in ("train", "validation"):
        assert rows_of(tmp_path / "back", split) == rows_of(data, split)
        assert {row["labels"][0] for row in rows_of(data, "train") if row["labels"]} == {("modality", "ct")}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_data_make_the_same_bytes(data, tmp_path, form):
    for name in ("a", "b"):
        export_data(data, tmp_path / name, form)
    a, b = (sorted(path for path in (tmp_path / name).rglob("*") if path.is_file()) for name in ("a", "b"))
    assert [path.name for path in a] == [
        "train-00000-of-00001." + form,
        "validation-00000-of-00001." + form,
        "export.json",
    ]
    assert [path.read_bytes() for path in a] == [path.read_bytes() for path in b]


def test_parquet_says_to_datasets_what_its_columns_are(data, tmp_path):
    export_data(data, tmp_path / "out", "parquet")
    path = tmp_path / "out" / "data" / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == table.column_names
    assert features["image"] == {"_type": "Image"}
    assert features["caption"] == {"dtype": "string", "_type": "Value"}
    assert features["labels"] == [{name: {"dtype": "string", "_type": "Value"} for name in ("name", "value")}]
    first = table.slice(0, 1).to_pylist()[0]
    assert first["image"] == {"bytes": Split(data, "train").image(0), "path": "000000000.jpg"}
    assert (first["split"], first["labels"]) == ("train", [{"name": "modality", "value": "ct"}])
    assert source_length(str(path)) == len(table)


def test_a_sample_of_an_archive_is_image_caption_and_metadata(data, tmp_path):
    export_data(data, tmp_path / "out", "tar")
    with tarfile.open(tmp_path / "out" / "data" / "validation-00000-of-00001.tar") as archive:
        members = archive.getmembers()
        read = {member.name: archive.extractfile(member).read() for member in members}
    assert [member.name for member in members[:4]] == [f"000000000.{s}" for s in ("jpg", "txt", "json")] + [
        "000000001.jpg"
    ]
    assert {(member.mtime, member.uid, member.uname) for member in members} == {(0, 0, "")}
    metadata = json.loads(read["000000000.json"])
    assert metadata["caption"] == read["000000000.txt"].decode() == Split(data, "validation").column("caption")[0]
    assert (metadata["id"], metadata["split"], metadata["article"]) == ("ROCO_00000", "validation", "PMC1000")
    assert Image.open(io.BytesIO(read["000000000.jpg"])).size == (metadata["width"], metadata["height"])


@pytest.mark.parametrize("form", FORMS)
def test_what_is_not_whole_is_not_there(several_files, tmp_path, form):
    whole = (several_files / "train-00002.arrow").read_bytes()
    (several_files / "train-00002.arrow").write_bytes(b"")
    with pytest.raises(UserError, match=r"train-00002\.arrow is not a whole Arrow file"):
        export_data(several_files, tmp_path / "out", form)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {NOTES, ".data.unfinished"}
    (several_files / "train-00002.arrow").write_bytes(whole)
    first = tmp_path / "out" / ".data.unfinished" / f"train-00000-of-00002.{form}"
    inode = first.stat().st_ino
    export_data(several_files, tmp_path / "out", form)
    export_data(several_files, tmp_path / "undisturbed", form)
    assert (tmp_path / "out" / "data" / first.name).stat().st_ino == inode  # finished before, and kept
    exported, undisturbed = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "data").iterdir()}
        for name in ("out", "undisturbed")
    )
    assert exported == undisturbed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data", "export.json"]
    with pytest.raises(UserError, match="already finished"):
        export_data(several_files, tmp_path / "out", form)


@pytest.mark.parametrize("form", FORMS)
def test_rows_that_changed_before_a_finished_file_number_its_rows_anew(several_files, tmp_path, form):
    validation = several_files / "validation-00000.arrow"
    whole = validation.read_bytes()
    validation.write_bytes(b"")
    with pytest.raises(UserError, match="not a whole Arrow file"):
        export_data(several_files, tmp_path / "out", form)  # both files of train are finished
    validation.write_bytes(whole)
    first = several_files / "train-00000.arrow"
    write_shard(first, open_shard(first).to_pylist()[:9], {})
    content = json.loads((several_files / "dataset.json").read_text())
    content["splits"]["train"]["shards"][0]["pairs"] = 9
    write_with_checksum(several_files / "dataset.json", content)
    for name in ("out", "undisturbed"):
        export_data(several_files, tmp_path / name, form)
    for path in (tmp_path / "undisturbed" / "data").iterdir():
        assert (tmp_path / "out" / "data" / path.name).read_bytes() == path.read_bytes()


def test_a_disk_without_room_is_said_before_anything_is_written(data, tmp_path, monkeypatch):
    full = SimpleNamespace(free=1000)
    monkeypatch.setattr(export.shutil, "disk_usage", lambda _: full)
    with pytest.raises(WorkError, match="another disk"):
        export_data(data, tmp_path / "out", "parquet")
    assert not (tmp_path / "out").exists()


def test_an_export_of_another_thing_takes_no_place_of_it(data, run, tmp_path):
    export_data(data, tmp_path / "out", "parquet")
    with pytest.raises(UserError, match="is there already: it is an exported dataset, as medclip prepare takes"):
        export_safetensors(run, tmp_path / "out")

"""A source that gives no pair is a failure with its reason, in Python as on the command line, and leaves no dataset."""

import json
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import medclip
from medclip.data.dataset import is_prepared
from medclip.errors import WorkError
from support.material import draw_image, image_bytes
from support.prepared import dropped_rows

SCHEMA = pa.schema([("image", pa.string()), ("caption", pa.string())])


def write_arrow_stream(path):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as out:
        out.write_table(SCHEMA.empty_table())


def write_saved_dataset(path):
    path.mkdir()
    write_arrow_stream(path / "data-00000-of-00001.arrow")
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))


def write_roco(path):
    (path / "train" / "radiology").mkdir(parents=True)
    (path / "train" / "radiology" / "captions.txt").write_text("")


def write_rocov2(path):
    path.mkdir()
    (path / "train_captions.csv").write_text("ID,Caption\n")


def write_kaggle(path):
    path.mkdir()
    (path / "indiana_reports.csv").write_text("uid,findings,impression\n")
    (path / "indiana_projections.csv").write_text("uid,filename,projection\n")


def write_hugging_face(path):
    (path / "data").mkdir(parents=True)
    pq.write_table(SCHEMA.empty_table(), path / "data" / "train-00000-of-00001.parquet")


EMPTY = {
    "x.csv": lambda path: path.write_text("image,caption\n"),
    "no-header.csv": lambda path: path.write_text(""),
    "blank.csv": lambda path: path.write_text("\n\n"),
    "mark.csv": lambda path: path.write_bytes(b"\xef\xbb\xbfimage,caption\r\n"),
    "x.tsv": lambda path: path.write_text("image\tcaption\n"),
    "x.jsonl": lambda path: path.write_text("\n"),
    "x.json": lambda path: path.write_text("[]"),
    "annotation.json": lambda path: path.write_text('{"train": [], "val": []}'),
    "padchest.csv": lambda path: path.write_text("ImageID,ImageDir,PatientID,Report\n"),
    "x.parquet": lambda path: pq.write_table(SCHEMA.empty_table(), path),
    "x.arrow": write_arrow_stream,
    "x.tar": lambda path: tarfile.open(path, "w").close(),
    "x.zip": lambda path: zipfile.ZipFile(path, "w").close(),
    "folder": lambda path: path.mkdir(),
    "roco": write_roco,
    "rocov2": write_rocov2,
    "kaggle": write_kaggle,
    "saved": write_saved_dataset,
    "hub": write_hugging_face,
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_source_without_rows_fails_with_its_reason(tmp_path, medclip, name):
    EMPTY[name](tmp_path / name)
    code, out, err = medclip("prepare", tmp_path / name, "--out", tmp_path / "data")
    assert code == 1
    assert f"no row of {tmp_path / name} became a pair: it holds no rows. Is it the one" in " ".join(
        (out + err).split()
    )


def test_values_in_memory_without_rows_fail_too(tmp_path):
    for source in ([], {"train": []}, iter(())):
        with pytest.raises(WorkError, match="holds no rows"):
            medclip.prepare(source, tmp_path / "data")


def test_rows_without_a_pair_leave_no_dataset(tmp_path):
    with pytest.raises(WorkError, match=r"no row of the source became a pair\. 2 × image missing.*--image-root.*All: "):
        medclip.prepare([("a.png", "CT of the chest"), ("b.png", "MRI of the knee")], tmp_path / "data", num_workers=1)
    assert not is_prepared(tmp_path / "data") and not (tmp_path / "data" / "dataset.json").exists()
    assert [row["reason"] for row in dropped_rows(tmp_path / "data")] == ["image missing"] * 2


def test_the_same_folder_takes_the_source_once_it_is_mended(tmp_path):
    table = tmp_path / "x.csv"
    table.write_text("image,caption,split\n1.png,CT of the chest,train\n2.png,MRI of the knee,test\n")
    with pytest.raises(WorkError, match="2 × image missing"):
        medclip.prepare(table, tmp_path / "data", num_workers=1)
    (tmp_path / "1.png").write_bytes(image_bytes(draw_image(1), "PNG"))
    table.write_text("image,caption,split\n1.png,CT of the chest,train\n")
    assert medclip.prepare(table, tmp_path / "data", num_workers=1).num_pairs == {"train": 1}
    assert sorted(path.name for path in (tmp_path / "data").glob("*.arrow")) == ["train-00000.arrow"]


def test_a_damaged_file_is_not_an_empty_one(tmp_path, medclip):
    for name in ("x.parquet", "x.arrow", "x.tar", "x.zip"):
        (tmp_path / name).write_bytes(b"")
        code, out, err = medclip("prepare", tmp_path / name, "--out", tmp_path / "data")
        assert code == 2 and "Fetch it again" in " ".join((out + err).split())

"""Layouts as published: a miniature of each, made after its description, becomes the pairs that its authors meant."""

import gzip
import json

import pytest

from medclip.data.normalize import split_of
from medclip.data.prepare import prepare
from medclip.data.prepare_config import Columns, PrepareConfig
from medclip.data.schema import Dropped, Pair, is_made_up
from medclip.data.sources import table_files
from medclip.data.sources.detect import is_dicom_source, open_source
from medclip.errors import UserError
from support.published_layouts import (
    LAYOUTS,
    MIMIC_PAIRS,
    kaggle,
    medicat,
    mimic,
    openi,
    padchest,
    write_csv,
    write_images,
    write_text,
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_layout_is_read_as_described(tmp_path, layout):
    write, pairs, dropped = LAYOUTS[layout]
    source = write(tmp_path)
    rows = list(open_source(str(source)))
    assert [
        ("auto" if is_made_up(row.id) else row.id, row.image.name, row.caption, row.split, row.article, row.labels)
        for row in rows
        if isinstance(row, Pair)
    ] == pairs
    assert layout == "ROCO" or all(row.image.is_file() for row in rows if isinstance(row, Pair))
    assert [(row.id, row.split, row.reason) for row in rows if isinstance(row, Dropped)] == dropped
    assert len({row.id for row in rows}) == len(rows)
    assert not is_dicom_source(str(source))


def test_rows_without_ids_are_not_numbered(tmp_path):
    write_images(tmp_path, "a.png", "b.png")
    rows = [{"image_path": [f"{name}.png"], "report": f"Clear {name}."} for name in "ab"]
    ids = []
    for order in (rows, rows[::-1]):
        (tmp_path / "annotation.json").write_text(json.dumps({"train": order}))
        ids.append({row.id for row in open_source(str(tmp_path))})
    assert ids[0] == ids[1] and len(ids[0]) == 2


def test_splits_in_compressed_tables_of_a_folder(tmp_path):
    write_images(tmp_path, "a.png", "b.png")
    for split, name in (("train", "a.png"), ("val", "b.png")):
        write_csv(tmp_path / f"{split}.csv.gz", {"id": name, "image": name, "caption": "CT of the chest"})
    assert [(row.id, row.split) for row in open_source(str(tmp_path))] == [("a.png", "train"), ("b.png", "validation")]


def test_a_layout_is_prepared_with_every_row_counted(tmp_path):
    dataset = prepare(str(mimic(tmp_path)), tmp_path / "out", PrepareConfig(shorter_side=40), num_workers=1)
    assert {name: split["pairs"] for name, split in dataset["splits"].items()} == {
        "train": 2,
        "validation": 1,
        "test": 0,
    }
    assert dataset["dropped"]["test"] == {"no report": 1, "image missing": 1}


def test_facts_of_a_layout_reach_the_pair(tmp_path):
    report = next(open_source(str(openi(tmp_path / "openi"))))
    assert report.license == "http://creativecommons.org/licenses/by-nc-nd/4.0/"
    assert report.keywords == ("Cardiomegaly/mild", "heart")
    figure = next(open_source(str(medicat(tmp_path / "medicat"))))
    assert (figure.license, figure.attribution) == ("cc-by-nc-nd", "https://doi.org/10.1/x")
    assert list(open_source(str(padchest(tmp_path / "padchest"))))[1].concepts == ("C2073625", "C0018800")


def test_references_of_a_figure_may_be_joined_to_its_caption(tmp_path):
    columns = Columns(caption_column=("s2_caption", "s2orc_references"))
    pair = next(open_source(str(medicat(tmp_path)), PrepareConfig(columns=columns)))
    assert pair.caption == "Figure 1. A barium enema.\nCT showed it (Figure 1).\nSo did the enema."


def test_mimic_without_tables_is_split_by_patients(tmp_path):
    root = mimic(tmp_path)
    for table in root.glob("*.csv.gz"):
        table.unlink()
    for source in (root, root / "files"):
        rows = [row for row in open_source(str(source)) if isinstance(row, Pair)]
        assert [(row.id, row.split) for row in rows] == [(id, split_of(p)) for id, _, _, _, p, _ in MIMIC_PAIRS]


def test_an_image_that_mimics_table_lacks_has_its_patients_split(tmp_path):
    root = mimic(tmp_path)
    write_images(root / "files" / "p10/p10000033/s50000001", "zz-9.jpg")
    (pair,) = (row for row in open_source(str(root)) if row.id == "zz-9")
    assert pair.split == "validation"


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json"])
def test_a_compressed_table_is_read(tmp_path, suffix):
    row = {"id": "a", "image": "x.png", "caption": "CT of the chest"}
    text = {".jsonl": json.dumps(row), ".json": json.dumps([row])}.get(suffix)
    separator = "\t" if suffix == ".tsv" else ","
    write_text(tmp_path / f"x{suffix}.gz", text or "\n".join(separator.join(line) for line in (row, row.values())))
    (pair,) = open_source(str(tmp_path / f"x{suffix}.gz"))
    assert (pair.id, pair.caption) == ("a", "CT of the chest")


def test_a_damaged_compressed_table_is_refused(tmp_path):
    whole = gzip.compress(b"image,caption\n" + b"x.png,CT of the chest\n" * 1000)
    for data in (whole[:40], b"image,caption\n", whole[:30] + b"\0" * 20 + whole[50:]):
        (tmp_path / "x.csv.gz").write_bytes(data)
        with pytest.raises(UserError, match=r"x\.csv\.gz is not a complete gzip file"):
            list(open_source(str(tmp_path / "x.csv.gz")))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv.gz", b"image,caption\n" + b"," * 2**18),
        ("x.csv.gz", b"image,caption\n" + b'"\n",' * 2**18),
        ("x.tsv.gz", b"\n" * 2**18),
        ("x.jsonl.gz", b" " * 2**18),
        ("x.json.gz", b"[" + b"{}," * 2**18),
    ],
)
def test_a_row_that_unpacks_to_more_than_the_memory_is_refused(tmp_path, monkeypatch, name, content):
    monkeypatch.setattr(table_files, "MAX_UNPACKED_ROW_BYTES", 2**16)
    (tmp_path / name).write_bytes(gzip.compress(content))
    with pytest.raises(UserError, match=rf"{name} row 1 unpacks to more than .* unpack it and give what is inside"):
        list(table_files.read_here(tmp_path / name))


def test_rows_that_together_unpack_to_more_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "MAX_UNPACKED_ROW_BYTES", 2**16)
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"image,caption\n" + b"x.png,CT of the chest\n" * 2**13))
    assert sum(1 for _ in table_files.read_here(tmp_path / "x.csv.gz")) == 2**13


def test_other_json_than_splits_is_refused(tmp_path):
    (tmp_path / "annotation.json").write_text('{"train": [{"id": "a"}], "val": 5}')
    with pytest.raises(UserError, match="'val' is not a list of objects"):
        list(open_source(str(tmp_path)))
    (tmp_path / "annotation.json").write_text('{"train": [{"id": "a"}], "val"')
    with pytest.raises(UserError, match="cannot be read as JSON"):
        list(open_source(str(tmp_path)))


HOSTILE = [None, 5, "", [], [None], {"a": None}, "../../x.png", "x" * 5000, "\0"]


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
@pytest.mark.parametrize("layout", ["annotation", "medicat"])
def test_a_wrong_cell_is_dropped_with_a_reason(tmp_path, layout, value):
    write_images(tmp_path, "a.png")
    if layout == "annotation":
        row = {"id": "a", "report": "Clear.", "image_path": ["a.png"]}
        rows = [row, {**row, "image_path": value}, {**row, "report": value}, {**row, "id": value}]
        (tmp_path / "annotation.json").write_text(json.dumps({"train": rows}))
    else:
        row = {"pdf_hash": "a", "fig_uri": "b.png", "s2_caption": "CT", "oa_info": {}}
        rows = [{**row, name: value} for name in row]
        (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, [row, *rows])))
    read = list(open_source(str(tmp_path)))
    assert len(read) >= len(rows)
    assert all(row.reason if isinstance(row, Dropped) else tmp_path in row.image.parents for row in read)


def test_rows_that_end_early_are_dropped(tmp_path):
    (tmp_path / "padchest.csv").write_text("ImageID,ImageDir,PatientID,Report\na.png\n,0\nb.png,0,7,derrame pleural\n")
    assert [isinstance(row, Dropped) for row in open_source(str(tmp_path / "padchest.csv"))] == [True, True, False]


def test_a_listing_that_ends_early_lists_an_image_of_no_name(tmp_path):
    write_images(tmp_path / "files/p10/p10000032/s50414267", "a.jpg")
    write_text(tmp_path / "files/p10/p10000032/s50414267.txt", "FINDINGS: Clear lungs.\nIMPRESSION: Normal.")
    write_text(
        tmp_path / "mimic-cxr-2.0.0-split.csv", "study_id,subject_id,split,dicom_id\n50414267,10000032,test,a\n504"
    )
    assert [(row.id, isinstance(row, Pair)) for row in open_source(str(tmp_path))] == [("a", True), ("", False)]


def test_a_report_that_lost_its_uid_is_of_no_image(tmp_path):
    folder = kaggle(tmp_path)
    (folder / "indiana_reports.csv").write_text("findings,impression,uid\nClear lungs.,Normal.,1\nA line alone\n,,\n")
    with (folder / "indiana_projections.csv").open("a") as file:
        file.write(",2_IM-1.dcm.png,\n")
    rows = list(open_source(str(folder)))
    assert [row.article for row in rows if isinstance(row, Pair)] == ["1", "1"]
    assert [row.detail for row in rows if isinstance(row, Dropped) and row.reason == "report without a uid"] == [
        "indiana_reports.csv row 2",
        "indiana_reports.csv row 3",
    ]


def test_what_is_no_report_is_dropped_with_a_reason(tmp_path):
    write_text(tmp_path / "openi" / "1.xml", '<?xml version="1.0" encoding="foo"?><eCitation/>')
    write_images(tmp_path / "openi", "a.png")
    write_images(tmp_path / "mimic" / "files/p10/p10000032/s50414267", "a.jpg")
    write_text(tmp_path / "mimic" / "files/p10/p10000032/s50414267.txt/x", "a folder in place of a report")
    for name, reason in (("openi", "report is not XML"), ("mimic", "report unreadable")):
        assert reason in [row.reason for row in open_source(str(tmp_path / name))]


def test_a_second_report_of_a_uid_is_counted(tmp_path):
    with (kaggle(tmp_path) / "indiana_reports.csv").open("a") as file:
        file.write("1,normal,normal,Xray,Cough,,Another text.,Another.\n")
    rows = list(open_source(str(tmp_path)))
    assert [row.detail for row in rows if row.id == "1"] == ["indiana_reports.csv row 4"]
    assert [row.caption for row in rows if isinstance(row, Pair)] == ["Clear lungs.\nNormal."] * 2

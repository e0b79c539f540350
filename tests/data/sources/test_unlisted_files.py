"""Every file below a folder that is a source is used or counted, with a reason that is true of it."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.data.prepare import prepare
from medclip.data.prepare_config import Columns, PrepareConfig
from medclip.data.schema import Dropped, Pair
from medclip.data.sources.detect import open_source
from medclip.data.sources.image_caption_folder import LINKED_FOLDER
from medclip.data.sources.unlisted_files import UNLISTED_FILE, UNLISTED_IMAGE, UNLISTED_MEMBER, UNLISTED_TABLE
from support.archives import tar_bytes, zip_bytes
from support.material import draw_image, image_bytes
from support.prepared import dropped_rows

PNG = image_bytes(draw_image(0), "PNG")
REPORT = "FINDINGS: Clear lungs.\nIMPRESSION: Normal chest."


def write_all(folder, files):
    """Write files by name, with an image for None."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG if content is None else content if isinstance(content, bytes) else content.encode())


def parquet(rows):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def csv_text(*rows):
    return "".join(",".join(row) + "\n" for row in rows)


TABLE = csv_text(("image", "caption"), ("images/1.png", "CT of the chest"), ("images/2.png", ""))
LAYOUTS = {
    "ROCO": (
        {
            "train/radiology/captions.txt": "ROCO_1\t CT of the chest\nROCO_2\t\n",
            "train/radiology/traindata.csv": "id,name,caption\n",
            "train/radiology/dlinks.txt": "",
            "train/radiology/images/ROCO_1.jpg": None,
            "train/radiology/images/ROCO_2.jpg": None,
            "train/radiology/images/ROCO_3.jpg": None,
            "train/non-radiology/images/ROCO_4.jpg": None,
            "LICENSE": "MIT",
        },
        {
            "train/radiology/images/ROCO_3.jpg": UNLISTED_IMAGE,
            "train/non-radiology/images/ROCO_4.jpg": UNLISTED_IMAGE,
            "train/radiology/traindata.csv": UNLISTED_TABLE,
            "LICENSE": UNLISTED_FILE,
        },
    ),
    "ROCOv2": (
        {
            "train_captions.csv": "ID,Caption\nROCOv2_1,CT of the chest\nROCOv2_2,\n",
            "train_concepts.csv": "ID,CUIs\n",
            "train/ROCOv2_1.jpg": None,
            "train/ROCOv2_2.jpg": None,
            "train/ROCOv2_3.jpg": None,
            "train_images.zip": b"PK",
        },
        {"train/ROCOv2_3.jpg": UNLISTED_IMAGE, "train_images.zip": UNLISTED_FILE},
    ),
    "Hugging Face, Parquet": (
        {
            "data/train-00000-of-00001.parquet": parquet([{"image": {"bytes": PNG, "path": None}, "text": "CT scan"}]),
            "data/train.csv": "image,text\n",
            "README.md": "---\nlicense: mit\n---\n",
            "preview.png": None,
        },
        {"data/train.csv": UNLISTED_TABLE, "README.md": UNLISTED_FILE, "preview.png": UNLISTED_IMAGE},
    ),
    "Hugging Face, metadata.jsonl": (
        {
            "train/metadata.jsonl": json.dumps({"file_name": "1.png", "text": "CT of the chest"}),
            "train/1.png": None,
            "train/2.png": None,
            ".gitattributes": "",
        },
        {"train/2.png": UNLISTED_IMAGE, ".gitattributes": UNLISTED_FILE},
    ),
    "a table with its images": (
        {"x.csv": TABLE, "images/1.png": None, "images/2.png": None, "images/3.png": None, "notes.txt": "none"},
        {"images/3.png": UNLISTED_IMAGE, "notes.txt": UNLISTED_FILE},
    ),
    "R2Gen": (
        {
            "annotation.json": json.dumps(
                {
                    "train": [{"id": "a", "report": "Clear lungs.", "image_path": ["a/0.png", "a/1.png"]}],
                    "test": [{"id": "b", "report": "", "image_path": ["b/0.png"]}],
                }
            ),
            "images/a/0.png": None,
            "images/a/1.png": None,
            "images/a/2.png": None,
            "images/b/0.png": None,
            "images/c/0.png": None,
        },
        {"images/a/2.png": UNLISTED_IMAGE, "images/c/0.png": UNLISTED_IMAGE},
    ),
    "PadChest": (
        {
            "padchest.csv": csv_text(
                ("ImageID", "ImageDir", "PatientID", "Report"),
                ("1.png", "0", "7", "sin alteracion"),
                ("2.png", "0", "8", ""),
            ),
            "0/1.png": None,
            "0/2.png": None,
            "0/3.png": None,
            "1.zip": b"PK",
        },
        {"0/3.png": UNLISTED_IMAGE, "1.zip": UNLISTED_FILE},
    ),
    "MedICaT": (
        {
            "x.jsonl": json.dumps({"pdf_hash": "5", "fig_uri": "1.png", "s2_caption": "An enema.", "oa_info": {}})
            + "\n"
            + json.dumps({"pdf_hash": "5", "fig_uri": "2.png", "s2_caption": "", "oa_info": {}}),
            "figures/5_1.png": None,
            "figures/5_2.png": None,
            "figures/5_3.png": None,
        },
        {"figures/5_3.png": UNLISTED_IMAGE},
    ),
    "PMC-OA": (
        {
            "pmc_oa.jsonl": json.dumps({"image": "PMC1_Fig1_0.jpg", "caption": "CT of the chest"}),
            "images/PMC1_Fig1_0.jpg": None,
            "images/PMC1_Fig1_1.jpg": None,
        },
        {"images/PMC1_Fig1_1.jpg": UNLISTED_IMAGE},
    ),
    "Open-i on Kaggle": (
        {
            "indiana_reports.csv": csv_text(("uid", "findings", "impression"), ("1", "Clear.", ""), ("2", "", "")),
            "indiana_projections.csv": csv_text(("uid", "filename"), ("1", "1.png"), ("2", "2.png")),
            "images/1.png": None,
            "images/2.png": None,
            "images/3.png": None,
        },
        {"images/3.png": UNLISTED_IMAGE},
    ),
    "Open-i": (
        {
            "1.xml": '<eCitation><uId id="1"/><AbstractText Label="FINDINGS">Clear.</AbstractText>'
            '<parentImage id="1"/></eCitation>',
            "png/1.png": None,
            "more/1.png": None,
            "README.txt": "",
        },
        {"png/1.png": UNLISTED_IMAGE, "README.txt": UNLISTED_FILE},
    ),
    "MIMIC-CXR-JPG": (
        {
            "files/p10/p10000032/s50414267/a.jpg": None,
            "files/p10/p10000032/s50414267.txt": REPORT,
            "files/p10/p10000032/s50414267/index.html": "",
            "LICENSE.txt": "",
            "mimic-cxr-2.0.0-chexpert.csv": "subject_id,study_id,Edema\n",
        },
        {
            "files/p10/p10000032/s50414267/index.html": UNLISTED_FILE,
            "LICENSE.txt": UNLISTED_FILE,
            "mimic-cxr-2.0.0-chexpert.csv": UNLISTED_TABLE,
        },
    ),
}


def unlisted_reasons(rows):
    reasons = (UNLISTED_FILE, UNLISTED_IMAGE, UNLISTED_MEMBER, UNLISTED_TABLE, LINKED_FOLDER)
    return {row.id: row.reason for row in rows if isinstance(row, Dropped) and row.reason in reasons}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_that_no_row_names_are_counted(tmp_path, layout):
    files, expected = LAYOUTS[layout]
    write_all(tmp_path, files)
    rows = list(open_source(str(tmp_path)))
    assert unlisted_reasons(rows) == expected
    assert sum(isinstance(row, Pair) for row in rows) >= 1
    assert {row.split for row in rows if row.id in expected} <= {row.split for row in rows if row.id not in expected}


def test_archives_in_folders_are_read_and_what_lies_beside_them_is_counted(tmp_path):
    for split in ("train", "val"):
        write_all(tmp_path, {f"{split}/00000.tar": tar_bytes([("1.png", PNG), ("1.txt", b"CT of the chest")])})
    write_all(tmp_path, {"train/00000.json": "{}", "deep/er/x.png": None})
    rows = list(open_source(str(tmp_path)))
    assert [row.split for row in rows if isinstance(row, Pair)] == ["train", "validation"]
    assert unlisted_reasons(rows) == {"train/00000.json": UNLISTED_TABLE, "deep/er/x.png": UNLISTED_IMAGE}


def test_members_of_an_archive_of_images_that_no_row_names_are_counted(tmp_path):
    images = zip_bytes((name, PNG) for name in ("1.png", "2.png", "read me.txt"))
    write_all(tmp_path, {"images.zip": images, "x.csv": "image,caption\n1.png,CT of the chest\n"})
    for source in (tmp_path, tmp_path / "x.csv"):
        assert unlisted_reasons(open_source(str(source))) == {"2.png": UNLISTED_MEMBER, "read me.txt": UNLISTED_MEMBER}


def test_beside_a_table_alone_the_images_of_its_folders_are_counted(tmp_path):
    write_all(
        tmp_path, {"x.csv": TABLE, "images/1.png": None, "images/a/3.png": None, "own.png": None, "b/4.png": None}
    )
    assert unlisted_reasons(open_source(str(tmp_path / "x.csv"))) == {"images/a/3.png": UNLISTED_IMAGE}
    (tmp_path / "t").mkdir()
    (tmp_path / "x.csv").rename(tmp_path / "t" / "x.csv")
    config = PrepareConfig(columns=Columns(image_root=str(tmp_path)))
    assert unlisted_reasons(open_source(str(tmp_path / "t" / "x.csv"), config)) == {
        "own.png": UNLISTED_IMAGE,
        "images/a/3.png": UNLISTED_IMAGE,
    }


def test_beside_a_folder_of_tables_the_images_below_the_root_of_theirs_are_counted(tmp_path):
    tables = {name: f"image,caption\n{n}.png,CT of the chest\n" for n, name in enumerate(("train.csv", "val.csv"))}
    write_all(tmp_path / "tables", {**tables, "own.png": None})
    write_all(tmp_path / "images", {f"{n}.png": None for n in range(3)})
    (tmp_path / "images" / "3.png").symlink_to("/etc/hostname")
    config = PrepareConfig(columns=Columns(image_root=str(tmp_path / "images")))
    rows = list(open_source(str(tmp_path / "tables"), config))
    assert [(row.split, row.image.name) for row in rows if isinstance(row, Pair)] == [
        ("train", "0.png"),
        ("validation", "1.png"),
    ]
    assert unlisted_reasons(rows) == dict.fromkeys(("own.png", "2.png", "3.png"), UNLISTED_IMAGE)


def test_images_behind_a_link_to_a_folder_are_used(tmp_path):
    write_all(tmp_path, {"site/store/1.png": None, "site/x.csv": "image,caption\nimages/1.png,CT of the chest\n"})
    (tmp_path / "site" / "images").symlink_to(tmp_path / "site" / "store")
    (tmp_path / "site" / "other").symlink_to(tmp_path / "site" / "store")
    assert unlisted_reasons(open_source(str(tmp_path / "site"))) == {
        "other": LINKED_FOLDER,
        "store/1.png": UNLISTED_IMAGE,  # the row names it by another path
    }


def test_the_first_rows_alone_say_nothing_of_other_files(tmp_path):
    write_all(tmp_path, LAYOUTS["a table with its images"][0])
    assert unlisted_reasons(open_source(str(tmp_path), PrepareConfig(max_samples=1))) == {}


def test_what_is_being_prepared_is_not_part_of_its_source(tmp_path):
    write_all(tmp_path, LAYOUTS["a table with its images"][0])
    for name in ("one", "two"):
        dataset = prepare(str(tmp_path), tmp_path / name, num_workers=1)
        counts = {reason: n for dropped in dataset["dropped"].values() for reason, n in dropped.items()}
        assert counts == {"row without image or caption": 1, UNLISTED_IMAGE: 1, UNLISTED_FILE: 1}


def test_reports_without_an_image_are_counted(tmp_path):
    write_all(
        tmp_path / "jpg",
        {"files/p10/p10000032/s50414267/a.jpg": None, "files/p10/p10000033/s50414269/b.jpg": None},
    )
    write_all(
        tmp_path / "mimic-cxr-reports",
        {f"files/p10/p100000{n}.txt": REPORT for n in ("32/s50414267", "32/s50414268", "40/s50414270")},
    )
    dropped = {
        row.id: (row.reason, row.detail) for row in open_source(str(tmp_path / "jpg")) if isinstance(row, Dropped)
    }
    assert dropped == {
        "b": ("no report", "s50414269.txt"),
        "s50414268": ("report without an image", "p10000032/s50414268.txt"),
        "s50414270": ("report without an image", "p10000040/s50414270.txt"),
    }


def test_a_first_image_that_is_missing_says_what_was_tried(tmp_path):
    write_all(tmp_path, {"x.csv": "image,caption\nscans\\1.png,CT of the chest\n2.png,CT of the knee\n", "2.png": None})
    dataset = prepare(str(tmp_path / "x.csv"), tmp_path / "data", num_workers=1)
    assert sum(split["pairs"] for split in dataset["splits"].values()) == 1
    (row,) = dropped_rows(tmp_path / "data")
    assert row["reason"] == "image missing"
    for text in ("x.csv row 1", "scans\\1.png", "also tried: / for \\", "NFC and NFD", "letter case"):
        assert text in row["detail"]

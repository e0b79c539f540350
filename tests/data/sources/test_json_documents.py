"""A JSON file that is one object is the table that it means."""

import json

import pytest

from medclip.data.schema import Pair
from medclip.data.sources.detect import open_source
from medclip.data.sources.table_files import read_rows
from medclip.errors import UserError

COCO = {
    "info": {"description": "a set"},
    "licenses": [{"id": 4, "name": "CC BY 4.0"}],
    "images": [
        {"id": 7, "file_name": "1.png", "license": 4, "patient_id": "P1"},
        {"id": 8, "file_name": "2.png"},
        {"id": 9, "file_name": "3.png"},
    ],
    "annotations": [
        {"id": 70, "image_id": 7, "caption": "CT of the chest"},
        {"id": 80, "image_id": 8, "caption": "MRI of the knee"},
        {"id": 71, "image_id": 7, "caption": "Axial CT image"},
        {"id": 72, "image_id": 99, "caption": "Of no image"},
    ],
}
ROWS = [{"image": "1.png", "caption": "CT of the chest"}, {"image": "2.png", "caption": "MRI of the knee"}]


def pairs(path):
    return [(row.image.name, row.caption) for row in open_source(str(path)) if isinstance(row, Pair)]


@pytest.mark.parametrize("indent", [None, 1])
def test_captions_of_coco_are_joined_to_their_images(tmp_path, indent):
    (tmp_path / "captions.json").write_text(json.dumps(COCO, indent=indent))
    rows = list(open_source(str(tmp_path / "captions.json")))
    of_images = [(row.id, row.image.name, row.caption, row.license) for row in rows if isinstance(row, Pair)]
    assert of_images == [
        ("7-0", "1.png", "CT of the chest", "CC BY 4.0"),
        ("7-1", "1.png", "Axial CT image", "CC BY 4.0"),
        ("8", "2.png", "MRI of the knee", ""),
    ]
    assert [row.reason for row in rows if not isinstance(row, Pair)] == ["row without image or caption"] * 2
    assert [row.private for row in rows[:3]] == [("P1",), ("P1",), ()]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    "document",
    [
        ROWS,
        {"version": "1.0", "data": ROWS},
        {"columns": list(ROWS[0]), "index": [0, 1], "data": [list(row.values()) for row in ROWS]},
        {name: {str(number): row[name] for number, row in enumerate(ROWS)} for name in ROWS[0]},
        {f"a{number}": row for number, row in enumerate(ROWS)},
        {row["image"]: row["caption"] for row in ROWS},
        {row["image"]: [row["caption"]] for row in ROWS},
    ],
)
def test_the_rows_of_one_document(tmp_path, document, indent, encoding):
    (tmp_path / "x.json").write_bytes(json.dumps(document, indent=indent).encode(encoding))
    assert pairs(tmp_path / "x.json") == [("1.png", "CT of the chest"), ("2.png", "MRI of the knee")]


@pytest.mark.parametrize(
    "row",
    [
        {"image": "1.png", "caption": "CT"},
        {"image": "1.png", "captions": [{"raw": "CT"}]},
        {"image": {"path": "1.png"}, "caption": {"raw": "CT"}},
    ],
)
def test_one_row_is_one_row(tmp_path, row):
    (tmp_path / "x.json").write_text(json.dumps(row))
    assert pairs(tmp_path / "x.json") == [("1.png", "CT")]


def test_json_lines_of_another_encoding(tmp_path):
    (tmp_path / "x.jsonl").write_bytes("\n".join(map(json.dumps, ROWS)).encode("utf-16"))
    assert len(pairs(tmp_path / "x.jsonl")) == 2


@pytest.mark.parametrize(("text", "reason"), [("{", "is not a JSON list, one object or"), ("3", "list or object")])
def test_what_is_no_table_says_so(tmp_path, text, reason):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=reason):
        list(read_rows(tmp_path / "x.json"))

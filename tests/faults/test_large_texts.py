"""Texts that take all the memory when they are read whole, by their size or as objects: refused in a sentence."""

import json
import resource
from pathlib import Path

import pytest

from medclip import atomic_io
from medclip.atomic_io import read_json
from medclip.card_evaluations import read_card
from medclip.cli.data import Stats
from medclip.cli.info import Info
from medclip.cli.parse import parse
from medclip.data.sources import packed_tables, table_files
from medclip.data.sources.detect import open_source
from medclip.data.sources.table_files import read_here, read_rows
from medclip.errors import UserError
from medclip.prompts import read_prompts
from medclip.serve.gate import read_keys

BOUND, MEMORY = 2**14, 2**26  # the tests allow a row or a document here, and a process, as much
OBJECTS = b"{}," * 2**20 + b"{}"
ROWS = [{"image": f"{n}.png", "caption": f"CT {n} of the chest, é"} for n in range(2**9)]
COCO = {
    "images": [{"id": n, "file_name": row["image"]} for n, row in enumerate(ROWS)],
    "annotations": [{"image_id": n, "caption": row["caption"]} for n, row in enumerate(ROWS)],
}
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.fixture(autouse=True)
def bound(monkeypatch):
    monkeypatch.setattr(table_files, "_MAX_HERE_BYTES", BOUND)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.json", b"[" + OBJECTS + b"]"),
        ("x.json", b'{"images": [' + OBJECTS + b'], "annotations": []}'),
        ("annotation.json", b'{"train": [' + OBJECTS + b"]}"),
    ],
)
def test_json_that_takes_more_than_the_memory_is_refused(tmp_path, monkeypatch, name, content):
    monkeypatch.setattr(packed_tables, "MAX_MEMORY_BYTES", MEMORY)
    packed_tables._end_idle()  # what another test left of memory would do
    (tmp_path / name).write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=rf"{name} .* unpacks to more than .* write it anew as CSV or JSON lines"):
        list(open_source(str(tmp_path / name)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY / 2**10 / 2


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("x.csv", "image,caption\n1.png,CT\n"),
        ("x.tsv", "image\tcaption\n1.png\tCT\n"),
        ("x.jsonl", '{"image": "1.png", "caption": "CT"}\n'),
        ("x.json", '{"image": "1.png", "caption": "CT"}\n'),
        ("train/radiology/captions.txt", "1\tCT\n"),
    ],
)
@pytest.mark.parametrize("row", ["x", "x,", '"', "{}"])
def test_a_row_that_is_too_large_is_refused(tmp_path, name, rows, row):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(rows + row * 2 * BOUND)
    rows = open_source(str(tmp_path)) if path.suffix == ".txt" else read_here(path)
    with pytest.raises(UserError, match=rf"{path.name} row 2 has more than .*Is a line break or a quotation mark miss"):
        list(rows)


def test_a_header_that_is_too_large_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("x" * 2 * BOUND)
    with pytest.raises(UserError, match=r"x\.csv row 1 has more than"):
        list(read_rows(tmp_path / "x.csv"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("name", "text"),
    [("x.jsonl", LINES), ("x.json", LINES), ("x.json", json.dumps(ROWS)), ("x.json", json.dumps(ROWS, indent=1))],
)
def test_rows_that_together_are_larger_are_read(tmp_path, name, text, encoding):
    (tmp_path / name).write_text(text, encoding=encoding)
    assert (tmp_path / name).stat().st_size > BOUND
    assert list(read_rows(tmp_path / name)) == ROWS


def test_a_large_object_is_read_as_a_small_one(tmp_path, monkeypatch):
    (tmp_path / "coco.json").write_text(json.dumps(COCO))
    assert [(row["file_name"], *row["caption"]) for row in read_rows(tmp_path / "coco.json")] == [
        tuple(row.values()) for row in ROWS
    ]
    split = [{"id": f"a{n}", "image_path": [row["image"]], "report": row["caption"]} for n, row in enumerate(ROWS)]
    (tmp_path / "annotation.json").write_text(json.dumps({"train": split, "val": split[:2]}))
    large = list(open_source(str(tmp_path / "annotation.json")))
    monkeypatch.undo()
    assert large == list(open_source(str(tmp_path / "annotation.json")))
    assert len(large) == len(split) + 2


def test_json_of_too_many_parts_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_io, "_MAX_JSON_PARTS", 4)
    (tmp_path / "x.json").write_text("[[], {}, [1]]")
    assert read_json(tmp_path / "x.json", "a folder") == [[], {}, [1]]
    (tmp_path / "x.json").write_text("[[], {}, [1], {}]")
    with pytest.raises(UserError, match=r"x\.json is damaged .*5 lists and objects, where 4 are read"):
        read_json(tmp_path / "x.json", "a folder")


@pytest.mark.parametrize(
    "read",
    [
        read_card,
        read_keys,
        lambda path: read_prompts(path, "modality", multilabel=False),
        lambda path: parse(Stats, "medclip stats", ["--config", str(path)]),
    ],
)
def test_a_text_without_end_is_refused(read):
    with pytest.raises(UserError, match=r"/dev/zero has over [\d,]+ bytes"):
        read(Path("/dev/zero"))


NAME = ".".join(["a", '"b.c"', "'d'"] * 2**13)


@pytest.mark.parametrize("text", [f"{NAME} = 1", f"[ {NAME} ]\n", f"x = {{ y = 1, {NAME} = 2 }}", f"[[{NAME}]]"])
def test_a_name_of_many_parts_takes_no_minutes(tmp_path, text):
    """Python reads them in time that grows with the square."""
    file = tmp_path / "x.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"x.toml is not TOML.* a name of more than 32 parts"):
        read_prompts(file, "modality", False)
    with pytest.raises(UserError, match=r"x.toml is not TOML.* a name of more than 32 parts"):
        parse(Stats, "stats", ["x", "--config", str(file)])


def test_a_text_of_many_dots_is_no_name(tmp_path):
    uid = ".".join(["1"] * 32)
    file = tmp_path / "x.toml"
    for text in (uid, "A. B. C. " * 99, "." * 99, "x\n.y" * 99):
        file.write_text(f'{uid} = 1\nout = """{text}"""  # {text!r}')
        with pytest.raises(UserError, match="no flag is named '1'"):
            parse(Info, "info", ["x", "--config", str(file)])

"""A table is read as written, row by row, and no further than needed."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.data.normalize import canonical_split, split_in
from medclip.data.prepare_config import PrepareConfig
from medclip.data.schema import Dropped, Pair, is_made_up, take_per_split
from medclip.data.sources.detect import open_source
from medclip.data.sources.table_files import read_rows
from medclip.errors import UserError
from support.archives import tar_bytes

FORMATS = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".arrow")
TEXT = st.one_of(
    st.sampled_from(["NA", "None", "null", "nan", "N/A", "true", "1e5", "b' x '", '"', "a\nb", " ends with spaces "]),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1),
)


def write(path, rows):
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as handle:
            out = csv.DictWriter(handle, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            out.writeheader()
            out.writerows(rows)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".arrow":
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
            out.write_table(table)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", FORMATS)
@given(captions=st.lists(TEXT, min_size=1, max_size=5))
def test_any_caption_comes_back_from_any_format(tmp_path_factory, suffix, captions):
    rows = [{"image": "x.jpg", "caption": caption} for caption in captions]
    path = write(tmp_path_factory.getbasetemp() / f"captions{suffix}", rows)
    assert [pair.caption for pair in open_source(str(path))] == captions


@given(captions=st.lists(TEXT, min_size=1, max_size=5))
def test_any_caption_comes_back_from_an_archive(tmp_path_factory, captions):
    path = tmp_path_factory.getbasetemp() / "captions.tar"
    members = [
        member
        for number, caption in enumerate(captions)
        for member in ((f"{number}.jpg", b"\xff\xd8"), (f"{number}.txt", caption.encode()))
    ]
    path.write_bytes(tar_bytes(members))
    assert [pair.caption for pair in open_source(str(path))] == captions


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_what_is_absent_is_no_text(tmp_path, suffix):
    rows = [
        {"id": 0, "image": "0.jpg", "caption": "CT of the chest", "patient": 0},
        {"id": 1, "image": "1.jpg", "caption": None, "patient": 1},
        {"id": None, "image": "2.jpg", "caption": "CT of the head", "patient": None},
        {"id": 3, "image": None, "caption": "CT of the head", "patient": 3},
    ]
    read = list(open_source(str(write(tmp_path / f"x{suffix}", rows))))
    assert [is_made_up(row.id) for row in read] == [False, False, True, False]
    assert [row.id for row in read if not is_made_up(row.id)] == ["0", "1", "3"]
    assert [row.article for row in read if isinstance(row, Pair) and not is_made_up(row.id)] == ["0"]
    assert [isinstance(row, Dropped) for row in read] == [False, True, False, True]


def test_not_a_number_is_no_caption(tmp_path):
    path = write(tmp_path / "x.jsonl", [{"image": "0.jpg", "caption": float("nan")}])
    assert isinstance(next(open_source(str(path))), Dropped)


def test_captions_of_a_list_that_are_absent_are_left_out(tmp_path):
    path = write(tmp_path / "x.jsonl", [{"id": "a", "image": "0.jpg", "captions": [None, "CT", "", "MRI"]}])
    assert [(row.id, row.caption) for row in open_source(str(path))] == [("a-0", "CT"), ("a-1", "MRI")]


def test_consecutive_rows_of_one_id_and_image_are_its_captions(tmp_path):
    rows = [("a", "0", "CT"), ("a", "0", "MRI"), ("a", "0", "PET"), ("b", "0", "X-ray"), ("b", "1", "US")]
    path = write(tmp_path / "x.csv", [{"image_id": i, "image": f"{n}.jpg", "caption": c} for i, n, c in rows])
    read = list(open_source(str(path)))
    assert [row.id for row in read] == ["a", "a-1", "a-2", "b", "b"]  # another image of one id is a repetition
    assert [row.article for row in read] == ["a", "a", "a", "b", "b"]


def test_lines_may_leave_out_what_they_do_not_know(tmp_path):
    rows = [
        {"image": "0.jpg", "caption": "CT"},
        {"image": "1.jpg", "caption": "CT", "pmcid": "PMC1"},
        {"image": "2.jpg"},
    ]
    one, two, three = open_source(str(write(tmp_path / "x.jsonl", rows)))
    assert is_made_up(one.article)
    assert (two.article, three.reason) == ("PMC1", "row without image or caption")


@pytest.mark.parametrize("license", ["license", "licence", "License"])
def test_the_other_columns_of_a_table_reach_the_pair(tmp_path, license):
    row = {"image": "0.jpg", "caption": "CT", license: "CC BY", "attribution": "Jones 2020", "cui": ["C1", "C2"]}
    (pair,) = open_source(str(write(tmp_path / "x.jsonl", [row])))
    assert (pair.license, pair.attribution, pair.concepts) == ("CC BY", "Jones 2020", ("C1", "C2"))


@pytest.mark.parametrize("held", ["val", "Valid", " validation ", "dev"])
def test_a_split_has_one_spelling(tmp_path, held):
    (pair,) = open_source(str(write(tmp_path / "x.csv", [{"image": "0.jpg", "caption": "CT", "split": held}])))
    assert pair.split == "validation"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("data/train-00000-of-00001.parquet", "train"),
        ("data/val.csv", "validation"),
        ("test/train.jsonl", "train"),
        ("default/validation/0000.parquet", "validation"),
        ("constrained/evaluate.csv", ""),
        ("testimony.csv", ""),
    ],
)
def test_the_split_that_a_name_says(name, split):
    assert split_in(name) == split


def test_another_name_of_a_split_stays():
    assert canonical_split(" Fold_3 ") == "Fold_3"


@pytest.mark.parametrize("columns", [{}, {"split": "train"}])
def test_a_table_is_read_until_every_split_has_its_rows(tmp_path, columns):
    rows = [{"image": f"{n}.jpg", "caption": "CT of the chest", **columns} for n in range(200)]
    path = write(tmp_path / "x.jsonl", rows)
    first_rows = list(take_per_split(open_source(str(path)), 3))
    path.write_text(path.read_text() + "{ a damaged line\n")
    limited = open_source(str(path), PrepareConfig(max_samples=3))
    if columns:  # may name another split in its last row
        with pytest.raises(UserError, match="line 201 is not JSON"):
            list(limited)
    else:
        assert list(limited) == first_rows


def test_the_folder_of_the_table_decides_nothing_else(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read\. Sources are: a ROCO folder"):
        open_source(str(tmp_path / "absent.csv"))


@pytest.mark.parametrize("delimiter", [";", "|", "\t", ","])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_the_delimiter_is_that_of_the_first_line(tmp_path, delimiter, suffix):
    rows = [("1.png", "CT, of the chest; two | three"), ("2.png", 'MRI "T2"')]
    with (tmp_path / f"x{suffix}").open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([("image", "caption"), *rows])
    assert [(row.image.name, row.caption) for row in open_source(str(tmp_path / f"x{suffix}"))] == rows


def test_unquoted_commas_of_another_delimiter_stay(tmp_path):
    (tmp_path / "x.csv").write_text("image;caption\n1.png;CT, axial, of the chest\n")
    assert [row.caption for row in open_source(str(tmp_path / "x.csv"))] == ["CT, axial, of the chest"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_unicode_tables_are_read(tmp_path, encoding):
    mark = "\ufeff" if encoding.endswith("e") else ""
    (tmp_path / "x.csv").write_bytes(f"{mark}image,caption\n1.png,Échographie\n".encode(encoding))
    assert [row.caption for row in open_source(str(tmp_path / "x.csv"))] == ["Échographie"]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_time_that_python_cannot_hold_is_text(tmp_path, suffix):
    """Nanoseconds, as pandas writes them, and a day of the year 12921."""
    nanosecond, day = pa.array([1], pa.timestamp("ns")), pa.array([4_000_000], pa.int32()).cast(pa.date32())
    table = pa.table({"image": ["1.png"], "caption": ["CT of the chest"], "taken": nanosecond, "until": day})
    path = tmp_path / f"x{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
            out.write_table(table)
    [row] = read_rows(path)
    assert row == {"image": "1.png", "caption": "CT of the chest"} | {
        "taken": "1970-01-01 00:00:00.000000001",
        "until": "12921-08-18",
    }


@pytest.mark.parametrize("column", ["subset", "partition", "Data Split", "set", "fold"])
def test_a_column_of_another_name_that_holds_splits_is_the_split(tmp_path, column):
    rows = [
        {"image": f"{n}.png", "caption": f"CT {n}", column: name} for n, name in enumerate(("test", "train", "dev"))
    ]
    write(tmp_path / "x.csv", rows)
    assert [row.split for row in open_source(str(tmp_path / "x.csv"))] == ["test", "train", "validation"]


def test_a_column_of_that_name_that_holds_something_else_is_not(tmp_path):
    write(tmp_path / "x.csv", [{"image": "1.png", "caption": "CT", "subset": "noncommercial", "fold": 3}])
    assert {row.split for row in open_source(str(tmp_path / "x.csv"))} <= {"train", "validation"}


@pytest.mark.parametrize("below", ["", "images/"])
@pytest.mark.parametrize("limit", [None, 1])
def test_the_folder_of_an_image_is_its_split_where_there_are_several(tmp_path, below, limit):
    names = [f"{below}{split}/{n}.png" for split in ("train", "val", "test") for n in range(2)]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    write(tmp_path / "metadata.csv", [{"file_name": name, "text": f"CT {name}"} for name in names])
    wanted = ["train", "train", "validation", "validation", "test", "test"][:: 2 if limit else 1]
    rows = take_per_split(open_source(str(tmp_path), PrepareConfig(max_samples=limit)), limit)
    assert [row.split for row in rows if isinstance(row, Pair)] == wanted


def test_a_folder_that_is_called_train_and_has_no_other_beside_it_is_none(tmp_path):
    (tmp_path / "train").mkdir()
    names = [f"train/{number}.png" for number in range(40)]
    write(tmp_path / "metadata.csv", [{"file_name": name, "text": f"CT {name}"} for name in names])
    assert {row.split for row in open_source(str(tmp_path))} == {"train", "validation"}


def test_a_report_goes_before_a_title(tmp_path):
    write(tmp_path / "x.csv", [{"image": "1.png", "title": "A case", "report": "CT of the chest"}])
    assert [row.caption for row in open_source(str(tmp_path / "x.csv"))] == ["CT of the chest"]


@pytest.mark.parametrize("start", ["", "sep=,\n"])
def test_a_quote_that_ends_too_early_is_named_by_its_line(tmp_path, start):
    (tmp_path / "x.csv").write_text(start + 'image,caption\n1.png,"a \\"small\\" nodule"\n')
    with pytest.raises(UserError, match=f"line {3 if start else 2} is not CSV .* A quote within quotes is doubled"):
        list(read_rows(tmp_path / "x.csv"))


@pytest.mark.parametrize("column", ["images", "IMG", "img_path", "Image File", "image_name"])
def test_a_column_of_images_needs_no_flag(tmp_path, column):
    write(tmp_path / "x.jsonl", [{column: "1.png", "caption": "CT of the chest", "name": "Ann"}])
    assert [row.image.name for row in open_source(str(tmp_path / "x.jsonl"))] == ["1.png"]


def test_a_text_that_excel_keeps_as_a_formula_is_the_text(tmp_path):
    """An export that keeps the zeros of 00123 names the same patient as one that does not."""
    rows = ['a.png,"=""CT of """"the chest""""""","=""00123"""', "b.png,=1+2 lesions of the liver,00123"]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,caption,PatientID", *rows]))
    pairs = list(open_source(str(tmp_path / "pairs.csv")))
    assert [(row.caption, row.article) for row in pairs] == [
        ('CT of "the chest"', "00123"),
        ("=1+2 lesions of the liver", "00123"),
    ]


@pytest.mark.parametrize("column", ["images_file_names", "image_file_names", "file_names", "image_file_name"])
def test_an_image_column_of_an_imagefolder_is_recognized(tmp_path, column):
    (tmp_path / "metadata.jsonl").write_text(json.dumps({column: ["0.png", "1.png"], "text": "CT of the chest"}) + "\n")
    for name in ("0.png", "1.png"):
        (tmp_path / name).write_bytes(b"")
    assert [row.caption for row in open_source(str(tmp_path)) if isinstance(row, Pair)] == 2 * ["CT of the chest"]

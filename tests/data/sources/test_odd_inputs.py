"""Tables and folders as spreadsheets, shells and other people's scripts leave them: read, or refused by name."""

import gzip
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.data.schema import Pair
from medclip.data.sources.detect import open_source
from medclip.errors import UserError
from support.archives import tar_bytes, zip_bytes
from support.material import draw_image, image_bytes

PNG = image_bytes(draw_image(0), "PNG")
TEXT = "image,caption\n1.png,Échographie du foie\n"


@pytest.mark.parametrize(
    "data",
    [
        *(TEXT.encode(encoding) for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")),
        ("sep=;\r\n" + TEXT.replace(",", ";")).encode("utf-8-sig"),
        ("sep=\t\n" + TEXT.replace(",", "\t")).encode("utf-16"),
        ("\n \n" + TEXT).encode(),
        TEXT.replace("1.png", " 1.png ").encode(),
        TEXT.replace("1.png", "\ufeff1.png").encode(),
        TEXT.replace("1.png", "a%20b.png").encode(),
    ],
)
def test_a_table_of_a_spreadsheet_is_read(tmp_path, data):
    for name in ("1.png", "a b.png"):
        (tmp_path / name).write_bytes(PNG)
    (tmp_path / "x.csv").write_bytes(data)
    (pair,) = open_source(str(tmp_path / "x.csv"))
    assert isinstance(pair, Pair) and pair.caption == "Échographie du foie" and pair.image.is_file()


def test_two_columns_of_one_name_are_refused(tmp_path):
    (tmp_path / "x.csv").write_text("image,caption,caption\n1.png,CT of the chest,MRI of the knee\n")
    columns = [pa.array([PNG]), pa.array(["CT of the chest"]), pa.array(["MRI of the knee"])]
    table = pa.Table.from_arrays(columns, names=["image", "caption", "caption"])
    pq.write_table(table, tmp_path / "x.parquet")
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    for suffix in ("csv", "parquet", "arrow"):
        with pytest.raises(UserError, match="several columns named 'caption'"):
            list(open_source(str(tmp_path / f"x.{suffix}")))


def test_columns_without_a_name_are_not_two_of_one_name(tmp_path):
    (tmp_path / "1.png").write_bytes(PNG)
    (tmp_path / "x.csv").write_text("image,caption,,\n1.png,CT of the chest,,\n")
    assert [row.caption for row in open_source(str(tmp_path / "x.csv"))] == ["CT of the chest"]


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_json_that_is_too_deep_is_refused(tmp_path, name):
    (tmp_path / name).write_text("[" * 100_000)
    with pytest.raises(UserError, match="is not"):
        list(open_source(str(tmp_path / name)))


def test_several_tables_of_no_split_are_refused_by_name(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("image,caption\n1.png,CT of the chest\n")
    (tmp_path / "1.png").write_bytes(PNG)
    with pytest.raises(UserError, match=r"holds several tables: give one of a\.csv, b\.csv"):
        list(open_source(str(tmp_path)))


def test_a_caption_belongs_to_the_image_of_its_letter_case(tmp_path):
    for name in ("a.png", "A.png"):
        (tmp_path / name).write_bytes(PNG)
    (tmp_path / "a.txt").write_text("CT of the chest")
    (tmp_path / "A.TXT").write_text("MRI of the knee")
    assert {row.id: row.caption for row in open_source(str(tmp_path))} == {
        "a": "CT of the chest",
        "A": "MRI of the knee",
    }


@pytest.mark.parametrize("name", ["x.tar", "x.TAR", "x.tar.gz", "x.tgz", "x.zip"])
@pytest.mark.parametrize("in_folder", [True, False])
def test_an_archive_is_read_whatever_its_suffix(tmp_path, name, in_folder):
    members = [("1.png", PNG), ("1.txt", b"CT of the chest")]
    packed = zip_bytes(members) if name.endswith("zip") else tar_bytes(members, "w:gz" if name.endswith("gz") else "w")
    (tmp_path / name).write_bytes(packed)
    (pair,) = open_source(str(tmp_path if in_folder else tmp_path / name))
    assert (pair.image, pair.caption) == (PNG, "CT of the chest")


@pytest.mark.parametrize("name", ["images.tar.gz", "images.zip"])
def test_an_archive_beside_what_it_was_unpacked_to_is_not_read_again(tmp_path, name):
    for file, data in {"images/1.png": PNG, "x.csv": b"image,caption\n1.png,CT of the chest\n", name: b"x"}.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(data)
    pair, other = open_source(str(tmp_path))
    assert (pair.caption, other.id, other.reason) == ("CT of the chest", name, "file that no row names")


def test_json_beside_images_is_no_table(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(PNG)
        (tmp_path / f"{name}.json").write_text("{}")
    reasons = [row.reason for row in open_source(str(tmp_path))]
    assert reasons.count("no caption beside the image") == 2 and len(reasons) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\3\4", "a spreadsheet or another ZIP archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a spreadsheet of an older Excel"),
        (gzip.compress(b"image,caption", mtime=0), "compressed by gzip: call it x.csv.gz"),
        (b"PAR1", "Parquet: call it x.parquet"),
        (b"ARROW1\0\0", "Arrow: call it x.arrow"),
        (b"\n<!DOCTYPE html><html>", "a web page, as a login gives"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json"])
def test_a_table_that_holds_another_format_says_which(tmp_path, suffix, content, message):
    (tmp_path / f"x{suffix}").write_bytes(content + bytes(range(256)))
    with pytest.raises(UserError, match=re.escape(message.replace(".csv", suffix))):
        list(open_source(str(tmp_path / f"x{suffix}")))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("a.nii.gz", "slices"),
        ("a.NRRD", "slices"),
        ("a.npy", "Parquet"),
        ("a.mp4", "frames"),
        ("a.pdf", "pages"),
    ],
)
def test_an_image_of_a_kind_that_is_not_read_says_what_to_do(tmp_path, medclip, name, remedy):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / name).write_bytes(b"\x1f\x8b")
    (tmp_path / "sub" / "README.txt").write_text("a volume")
    (tmp_path / "pairs.csv").write_text(f"image,caption\nsub/{name},CT of the chest\n")
    for source in (tmp_path / "pairs.csv", tmp_path / "sub"):
        code, out, err = medclip("prepare", source, "--out", tmp_path / "data")
        assert code in (1, 2) and remedy in " ".join((out + err).split())


@pytest.mark.parametrize(
    "table",
    [
        "image,caption\n1.png,CT of the chest,,\n,,,\n",  # empty cells of a spreadsheet's other columns
        'image, caption\n1.png, "CT of the chest"\n',
    ],
)
def test_empty_cells_and_spaces_of_a_spreadsheet_are_no_cells(tmp_path, table):
    (tmp_path / "1.png").write_bytes(PNG)
    (tmp_path / "x.csv").write_text(table)
    assert [row.caption for row in open_source(str(tmp_path / "x.csv")) if isinstance(row, Pair)] == ["CT of the chest"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_table_without_names_of_its_columns_says_so(tmp_path, suffix):
    (tmp_path / f"x{suffix}").write_text("a/1.JPG\tCT of the chest\na/2.JPG\tMRI of the knee\n")
    with pytest.raises(UserError, match=r"its first line \(a/1.JPG\) is a row"):
        list(open_source(str(tmp_path / f"x{suffix}")))


def test_an_archive_without_captions_says_what_a_sample_is(tmp_path, medclip):
    (tmp_path / "x.tar").write_bytes(tar_bytes([("1.png", PNG), ("1.caption", b"CT of the chest")]))
    _, out, err = medclip("prepare", tmp_path / "x.tar", "--out", tmp_path / "out")
    text = " ".join((out + err).split())
    assert "KEY.jpg with KEY.txt" in text and "--caption-column" not in text

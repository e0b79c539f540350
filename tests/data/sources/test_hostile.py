"""Damaged and malicious sources end in a sentence or a counted row; nothing is read or written outside."""

import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medclip.data.paths import inside, parse_path
from medclip.data.prepare import prepare, prepare_shard
from medclip.data.prepare_config import Columns, PrepareConfig
from medclip.data.schema import Dropped, Pair
from medclip.data.sources.detect import open_source
from medclip.data.sources.image_cells import OUTSIDE
from medclip.errors import UserError, WorkError
from support.archives import tar_bytes
from support.material import draw_image, image_bytes

ROWS = [{"image": f"{n}.jpg", "caption": f"CT of the chest, number {n}", "n": n} for n in range(400)]


def write_csv(folder, *images, head="image,caption"):
    path = folder / "pairs.csv"
    path.write_text(head + "\n" + "".join(f'"{image}",CT of the chest\n' for image in images), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "image",
    [
        "../secret.jpg",
        "images/../../secret.jpg",
        "{tmp}/secret.jpg",
        "/etc/hostname",
        "../../../../etc/passwd",
        "..",
        "/",
    ],
)
def test_no_path_of_a_table_leaves_its_folder(tmp_path, image):
    (tmp_path / "secret.jpg").write_bytes(image_bytes(draw_image(1)))
    folder = tmp_path / "table"
    (folder / "images").mkdir(parents=True)
    (row,) = open_source(str(write_csv(folder, image.format(tmp=tmp_path))))
    assert isinstance(row, Dropped)
    assert (row.reason, row.detail) == (OUTSIDE, "pairs.csv row 1")


@pytest.mark.parametrize("image", ["pictures/1.jpg", "{tmp}/pictures/1.jpg", "../pictures/1.jpg"])
def test_the_folder_of_the_images_can_be_named(tmp_path, image):
    for name in ("pictures", "tables"):
        (tmp_path / name).mkdir()
    (tmp_path / "pictures" / "1.jpg").write_bytes(image_bytes(draw_image(1)))
    table = write_csv(tmp_path / "tables", image.format(tmp=tmp_path), "../../secret.jpg")
    for source in (table, table.parent):
        read, outside = open_source(str(source), PrepareConfig(columns=Columns(image_root=str(tmp_path))))
        assert read.image.resolve() == tmp_path / "pictures" / "1.jpg"
        assert outside.reason == OUTSIDE


@given(st.lists(st.sampled_from(["..", ".", "a", "", "://", "b.jpg", "x:"]), max_size=6).map("/".join), st.booleans())
@example("/root/dir/://../../etc/passwd", False)
@example("memory://root/x://../../../y", True)
def test_what_is_inside_is_inside(name, url):
    root = parse_path("memory://root/dir") if url else Path("/root/dir")
    path = inside(root, name)
    if path is not None:
        parts = path.relative_to(root).parts
        assert ".." not in parts


def test_an_absolute_path_below_the_folder_is_inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert inside(Path("data"), f"{tmp_path}/data/x/1.jpg") == Path("data/x/1.jpg")
    assert inside(Path("data"), f"{tmp_path}/database/1.jpg") is None
    assert inside(Path("/"), "/x/1.jpg") == Path("/x/1.jpg")


def test_a_name_that_no_file_can_have_is_counted(tmp_path):
    (tmp_path / "1.jpg").write_bytes(image_bytes(draw_image(1)))
    rows = list(open_source(str(write_csv(tmp_path, "1.jpg", "x" * 5000, "a/" * 3000, "a\0b"))))
    report = prepare_shard(rows, tmp_path / "train-00000.arrow", PrepareConfig(shorter_side=32))
    assert (report["pairs"], set(report["dropped"])) == (1, {"image missing"})


@pytest.mark.parametrize("split", ["../../escaped", "/tmp/escaped", "a/b", ".", "x" * 300])
def test_no_split_names_a_file_elsewhere(tmp_path, split):
    table = write_csv(tmp_path, "1.jpg", head="image,caption,split")
    table.write_text(f"image,caption,split\n1.jpg,CT of the chest,{split}\n")
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="a split names files"):
        prepare(str(table), tmp_path / "data", num_workers=1)
    assert set(tmp_path.rglob("*")) - before == set()


def write(path, rows):
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=100)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
            out.write_table(table, max_chunksize=50)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_cut_table_is_never_read_as_a_shorter_one(tmp_path, suffix):
    whole = write(tmp_path / f"whole{suffix}", ROWS).read_bytes()
    assert len(list(open_source(str(tmp_path / f"whole{suffix}")))) == len(ROWS)
    cut = tmp_path / f"cut{suffix}"
    for end in (0, 1, 7, 8, 100, *range(200, len(whole), 997), len(whole) - 8, len(whole) - 1):
        cut.write_bytes(whole[:end])
        with pytest.raises(UserError, match=rf"cut{suffix} is not a complete"):
            list(open_source(str(cut)))


def test_a_csv_that_ends_within_quotes_is_no_csv(tmp_path):
    (tmp_path / "x.csv").write_text('image,caption\n1.jpg,"CT of the chest"\n2.jpg,"CT of the')
    with pytest.raises(UserError, match=r"x\.csv line \d is not CSV \(unexpected end of data\)"):
        list(open_source(str(tmp_path / "x.csv")))


@given(st.binary(max_size=300))
def test_no_bytes_are_a_crash(tmp_path_factory, data):
    for suffix in (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".arrow", ".tar"):
        path = tmp_path_factory.getbasetemp() / f"noise{suffix}"
        path.write_bytes(data)
        try:
            assert all(isinstance(row, (Pair, Dropped)) for row in open_source(str(path)))
        except (UserError, WorkError) as error:
            assert "noise" in str(error)


def test_nothing_of_an_archive_is_written(tmp_path):
    path, before = tmp_path / "x.tar", set(tmp_path.parent.rglob("*"))
    members = [(name, b"CT of the chest") for name in ("../escaped.jpg", "../escaped.txt", "/escaped.jpg")]
    path.write_bytes(tar_bytes([*members, ("link.txt", tarfile.SYMTYPE[0])], link_to="/etc/hostname"))
    assert [row.id for row in open_source(str(path))] == ["../escaped", "link.txt", "/escaped"]
    assert set(tmp_path.parent.rglob("*")) - before == {path}


TWICE = '{"image": "a.jpg", "caption": "CT of the chest", "caption": "MRI of the knee"}'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pairs.jsonl", TWICE),
        ("pairs.json", f"[{TWICE}]"),
        ("annotation.json", '{"train": [{"id": "a"}], "train": [{"id": "b"}]}'),
    ],
)
def test_of_two_values_of_one_key_none_is_chosen(tmp_path, name, text):
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs" / name).write_text(text)
    with pytest.raises(UserError, match="is in it twice"):
        list(open_source(str(tmp_path / "pairs" / name)))


def test_of_two_values_of_one_key_of_a_sample_none_is_chosen(tmp_path):
    path = tmp_path / "train-0.tar"
    path.write_bytes(tar_bytes([("a.jpg", image_bytes(draw_image(1))), ("a.json", TWICE.encode())]))
    (row,) = open_source(str(path))
    assert isinstance(row, Dropped) and row.reason == "caption unreadable"


def test_each_text_of_a_label_of_a_report_is_read(tmp_path):
    texts = "".join(f'<AbstractText Label="{label}">{text}</AbstractText>' for label, text in (
        ("IMPRESSION", "Normal."), ("FINDINGS", "Clear."), ("FINDINGS", "No effusion.")))  # fmt: skip
    (tmp_path / "1.xml").write_text(f'<eCitation><uId id="1"/>{texts}<parentImage id="1"/></eCitation>')
    (tmp_path / "1.png").write_bytes(image_bytes(draw_image(1), "PNG"))
    (row,) = open_source(str(tmp_path))
    assert isinstance(row, Pair) and row.caption == "Clear.\nNo effusion.\nNormal."

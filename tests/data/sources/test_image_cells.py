"""What a table's cell of images means, in the ways in which people write it; what it does not mean is said."""

import base64
import csv
import json
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.data.prepare_config import Columns, PrepareConfig
from medclip.data.schema import Dropped, Pair
from medclip.data.sources.detect import open_source
from medclip.data.sources.image_cells import MISSING, NUMBERS, OUTSIDE, cell_images, parse_literal
from medclip.errors import REMOTE, ImageError
from support.archives import zip_bytes
from support.material import draw_image, image_bytes

IMAGES = [image_bytes(draw_image(number), "PNG") for number in range(4)]


def read(folder, cells, **columns):
    """The rows of a table, after a first one whose image is beside it."""
    (folder / "first.png").write_bytes(IMAGES[0])
    with (folder / "x.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("image", "caption"), *((cell, "CT of the chest") for cell in ("first.png", *cells))]
        )
    first, *rows = open_source(str(folder / "x.csv"), PrepareConfig(columns=Columns(**columns)))
    assert isinstance(first, Pair)
    return rows


@pytest.mark.parametrize("text", ["['1.png']", '["1.png"]', " ['1.png'] ", "1.png", "{'bytes': None, 'path': '1.png'}",
                                  '{"bytes": null, "path": "1.png"}'])  # fmt: skip
def test_a_list_of_one_image_as_text_is_its_image(tmp_path, text):
    (tmp_path / "1.png").write_bytes(IMAGES[1])
    (row,) = read(tmp_path, [text])
    assert isinstance(row, Pair) and row.image == tmp_path / "1.png"


def test_several_images_of_a_row_are_pairs_of_one_group(tmp_path):
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(IMAGES[number])
    rows = read(tmp_path, ["['1.png', '2.png', 'absent.png']"])
    assert [row.image for row in rows[:2]] == [tmp_path / "1.png", tmp_path / "2.png"]
    assert len({row.article for row in rows[:2]}) == len({row.split for row in rows}) == 1
    assert rows[2].reason == "image missing" and len({row.id for row in rows}) == 3


def test_the_repr_of_bytes_is_its_image(tmp_path):
    texts = [repr(IMAGES[1]), repr({"bytes": IMAGES[2], "path": "x.png"}), repr([IMAGES[3]])]
    assert [row.image for row in read(tmp_path, texts)] == IMAGES[1:4]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (repr(IMAGES[1])[:200], "image cell is the text of Python bytes, cut or damaged"),
        ("<PIL.PngImagePlugin.PngImageFile image mode=L size=48x40>", "image cell is the text of a Python object"),
        ("<PIL.Image.Image image mode=L size=48x40 at 0x7F>", "image cell is the text of a Python object"),
    ],
)
def test_what_is_no_image_is_said(tmp_path, text, reason):
    (row,) = read(tmp_path, [text])
    assert isinstance(row, Dropped) and row.reason.startswith(reason)


def test_a_list_in_parquet_is_its_images(tmp_path):
    (tmp_path / "1.png").write_bytes(IMAGES[1])
    table = pa.table({"image": [["1.png", "1.png"]], "caption": ["CT of the chest"]})
    pq.write_table(table, tmp_path / "x.parquet")
    rows = list(open_source(str(tmp_path / "x.parquet")))
    assert [row.image for row in rows] == [tmp_path / "1.png"] * 2


@pytest.mark.parametrize(
    ("stored", "written"),
    [
        ("a/1.png", "a\\1.png"),
        ("a/b/1.png", ".\\a\\b\\1.png"),
        ("Müller.png", unicodedata.normalize("NFD", "Müller.png")),
        (unicodedata.normalize("NFD", "Müller.png"), "Müller.png"),
        ("Scan/Chest.PNG", "scan/chest.png"),
        ("Scan/Müller.PNG", unicodedata.normalize("NFD", "scan\\müller.png")),
    ],
)
def test_a_path_is_tried_in_other_spellings(tmp_path, stored, written):
    (tmp_path / stored).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / stored).write_bytes(IMAGES[1])
    row, *_ = read(tmp_path, [written])
    assert isinstance(row, Pair) and row.image == tmp_path / stored


def test_a_path_that_means_two_files_means_none(tmp_path):
    for name in ("A.png", "a.PNG"):
        (tmp_path / name).write_bytes(IMAGES[1])
    (row,) = read(tmp_path, ["a.png"])
    assert row.reason == "image missing"


def test_what_was_tried_is_said(tmp_path):
    (row,) = read(tmp_path, ["a\\absent.png"])
    assert row.reason == "image missing"
    assert all(part in row.detail for part in ("x.csv row 2", "a\\absent.png", "NFC", "letter case", ".zip"))


@pytest.mark.parametrize(
    "written", ["..\\secret.png", "a\\..\\..\\secret.png", "..\\SECRET.png", "x.zip/../../secret.png"]
)
def test_no_spelling_leaves_the_folder(tmp_path, written):
    (tmp_path / "secret.png").write_bytes(IMAGES[1])
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "x.zip").write_bytes(zip_bytes([("1.png", IMAGES[1])]))
    (row,) = read(tmp_path / "site", [written])
    assert isinstance(row, Dropped)


@pytest.mark.parametrize("written", ["images.zip/a/1.png", "a/1.png", "1.png", "A\\1.PNG", "images.zip/1.png"])
def test_images_inside_an_archive_are_read(tmp_path, written):
    (tmp_path / "images.zip").write_bytes(zip_bytes([("a/1.png", IMAGES[1]), ("a/2.png", IMAGES[2])]))
    row, *_ = read(tmp_path, [written])
    assert isinstance(row, Pair) and row.image == IMAGES[1]


def test_an_archive_that_cannot_be_used_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("medclip.data.sources.image_cells.MAX_MEMBER_BYTES", 2**20)
    members = [("bomb.png", bytes(2**21)), ("x/1.png", IMAGES[1]), ("y/1.png", IMAGES[2])]
    (tmp_path / "a.zip").write_bytes(zip_bytes(members))
    (tmp_path / "b.zip").write_bytes(b"PK\3\4 and no more")
    rows = read(tmp_path, ["bomb.png", "a.zip/1.png", "b.zip/1.png", "../a.zip/x/1.png"])
    reasons = [row.reason for row in rows]
    assert reasons[:3] == ["archive member over 1 MiB", "image missing", "image missing"]
    assert reasons[3].startswith("image outside")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("form", ["{}", "data:image/png;base64,{}", "{}\n"])
def test_an_image_in_base64_is_its_bytes(kind, form):
    data = image_bytes(draw_image(0), kind)
    assert cell_images(form.format(base64.b64encode(data).decode())) == [data]
    assert cell_images(form.format(base64.encodebytes(data).decode())) == [data]


def test_base64_that_is_cut_is_named():
    text = base64.b64encode(image_bytes(draw_image(0), "PNG")).decode()
    with pytest.raises(ImageError, match="base64, cut or damaged"):
        cell_images(f"data:image/png;base64,{text[:101]}")


def test_a_path_that_begins_like_base64_is_a_path():
    name = "/9j/" + "a/" * 60 + "1.png"
    assert cell_images(name) == [name]


@pytest.mark.parametrize("cell", [[137, 80, 78], [[0.1, 0.2], [0.3, 0.4]]])
def test_numbers_are_no_image_and_one_row(tmp_path, cell):
    (tmp_path / "x.jsonl").write_text(json.dumps({"image": cell, "caption": "CT of the chest"}))
    assert [row.reason for row in open_source(str(tmp_path / "x.jsonl"))] == [NUMBERS]


def read_images(folder, *cells, **columns):
    lines = (json.dumps({"image": cell, "caption": "CT of the chest"}) + "\n" for cell in cells)
    (folder / "x.jsonl").write_text("".join(lines))
    rows = open_source(str(folder / "x.jsonl"), PrepareConfig(columns=Columns(**columns)))
    return [row.image.relative_to(folder).as_posix() if isinstance(row, Pair) else row.reason for row in rows]


@pytest.mark.parametrize(
    "beginning", ["/home/ann/set/", "C:\\Users\\ann\\set\\", "file:///data/", "\\\\server\\share\\"]
)
def test_absolute_paths_of_another_machine_are_read_below_the_table(tmp_path, beginning):
    for name in ("images/1.png", "images/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    between = "\\" if "\\" in beginning else "/"
    cells = [f"{beginning}images{between}{number}.png" for number in (1, 2, 3)]
    assert read_images(tmp_path, *cells)[:2] == ["images/1.png", "images/2.png"]
    in_capitals = [cell.replace("images", "Images").replace("png", "PNG") for cell in cells]  # one file on Windows
    assert read_images(tmp_path, *in_capitals)[:2] == ["images/1.png", "images/2.png"]


def test_two_absolute_paths_never_become_one_image(tmp_path):
    for name in ("1.png", "images/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert read_images(tmp_path, "/ann/1.png", "/bob/1.png") == [OUTSIDE, OUTSIDE]
    assert read_images(tmp_path, "/ann/images/2.png", "/bob/images/2.png") == ["images/2.png", OUTSIDE]


@pytest.mark.parametrize("beginning", ["/data/", "C:\\data\\"])
def test_absolute_paths_are_read_in_the_folder_that_is_named(tmp_path, beginning):
    for name in ("scans/1.png", "scans/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    cells = [f"{beginning}1.png", f"{beginning}2.png", "/bob/2.png"]
    scans = str(tmp_path / "scans")
    assert read_images(tmp_path, *cells, image_root=scans) == ["scans/1.png", "scans/2.png", OUTSIDE]


def test_an_image_behind_a_url_says_what_to_do(tmp_path):
    assert read_images(tmp_path, "https://example.org/1.png") == [REMOTE]


def test_a_name_without_suffix_is_the_one_image_of_that_name(tmp_path):
    for name in ("1.2.840.png", "b.png", "b.jpg", "c.jpg", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    assert read_images(tmp_path, "1.2.840", "C", "b") == ["1.2.840.png", "c.jpg", MISSING]


def test_an_archive_of_dotnet_has_backslashes(tmp_path):
    data = image_bytes(draw_image(0), "PNG")
    (tmp_path / "images.zip").write_bytes(zip_bytes([("scans\\1.png", data)]))
    (tmp_path / "x.csv").write_text("image,caption\nscans/1.png,CT of the chest\n")
    assert [row.image for row in open_source(str(tmp_path / "x.csv"))] == [data]


@pytest.mark.parametrize(
    "value",
    [
        image_bytes(draw_image(1), "PNG") * 100,
        bytes(range(256)) * 4,
        [f"a 'quoted' \"{n}\" caption, of #{n}" for n in range(1000)],
        ["", "'''", '"""', "\\", "it's", "f'{1}'"],
        {"bytes": b"'''\"\\", "path": None},
    ],
)
def test_what_python_writes_is_read_as_it_was(value):
    assert parse_literal(repr(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "[" + "1," * 2**20 + "]",
        "['\\''," + "1," * 2**20 + "'']",
        "[''' ' '''," + "1," * 2**20 + "]",
        "[ # '\n" + "1," * 2**20 + "]",
        "[f'{" + "1," * 2**20 + "}']",
        '[rF"{' + "1," * 2**20 + '}"]',
    ],
)
def test_a_literal_that_would_take_500_times_its_size_is_not_parsed(text, monkeypatch):
    """A syntax tree has that much for each part: 16 MB of a cell were 8 GB."""
    monkeypatch.setattr("ast.literal_eval", pytest.fail)
    with pytest.raises(ValueError, match="too many parts"):
        parse_literal(text)


@pytest.mark.parametrize("quote", ["'", '"', "'''", '"""'])
def test_a_string_without_end_takes_a_moment(quote):
    with pytest.raises(ValueError, match="string"):
        parse_literal(quote + ("\\" + quote[0]) * 2**17 + "\\")


@pytest.mark.parametrize("cell", ["{[1]: 2}", "{[1]}", "[{[1]: 2}]", "b'x', b'y'"])
def test_a_cell_that_looks_like_a_value_and_is_none_is_text(tmp_path, cell):
    (tmp_path / "1.png").write_bytes(image_bytes(draw_image(1), "PNG"))
    (tmp_path / "x.jsonl").write_text(
        "".join(json.dumps({"image": image, "caption": cell, "patient": cell}) + "\n" for image in ("1.png", cell))
    )
    pair, dropped = open_source(str(tmp_path / "x.jsonl"))
    assert isinstance(pair, Pair) and pair.caption == cell
    assert isinstance(dropped, Dropped)

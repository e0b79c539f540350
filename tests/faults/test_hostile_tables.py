"""Captions and tables made to cost: time grows with their length alone, and damaged offsets are a sentence."""

import time

import pyarrow as pa
import pytest

from medclip.data.arrow_messages import has_compressed_batches
from medclip.data.checked_files import DamageError, open_table
from medclip.data.deidentify import redact_report
from medclip.data.normalize import MAX_CAPTION_CHARACTERS, clean_caption, normalize_text
from medclip.data.prepare import prepare
from medclip.data.prepare_config import Columns
from medclip.data.schema import Pair
from medclip.data.shards import write_arrow
from medclip.data.sources.image_cells import UsedFiles
from medclip.data.sources.reports import split_reading
from medclip.data.sources.table_files import read_rows
from medclip.data.sources.tables import read_tables
from medclip.data.stats.statistics import caption_issues
from medclip.errors import UserError
from support.dicom_files import dicom
from support.material import draw_image, image_bytes

LIMIT_S = 20.0  # of a slow machine; quadratic work on these takes minutes


@pytest.mark.parametrize(
    ("repeated", "clean"),
    [
        ("a) ", ""),
        ("(a) Fig. 1: ", ""),
        ("&amp;", None),
        ("&#38;", None),
        ("&am\u200bp;", None),
        ("&#894", None),
        ("1a", None),
        ("findings: ", None),
        ("J.", None),
    ],
)
def test_the_longest_caption_takes_a_moment(repeated, clean):
    text = (repeated * MAX_CAPTION_CHARACTERS)[: MAX_CAPTION_CHARACTERS // len(repeated) * len(repeated)]
    start = time.process_time()
    cleaned, _ = clean_caption(text)
    for work in (normalize_text, split_reading, caption_issues, redact_report):
        work(f"{text[:-1]} ")
    assert time.process_time() - start < LIMIT_S
    assert clean is None or cleaned == clean


def test_entities_within_entities_are_decoded_to_the_last():
    assert clean_caption("&" + "amp;" * 25_000 + "lt; 3 cm")[0] == "< 3 cm"


def test_a_longer_caption_is_counted(tmp_path):
    (tmp_path / "1.png").write_bytes(image_bytes(draw_image(1), "PNG"))
    captions = ("a) " * MAX_CAPTION_CHARACTERS, "CT of the chest")
    (tmp_path / "x.csv").write_text("image,caption\n" + "".join(f"1.png,{caption}\n" for caption in captions))
    dropped = prepare(tmp_path / "x.csv", tmp_path / "out", num_workers=1)["dropped"]
    assert [*dropped.values()] == [{"caption over 100,000 characters": 1}]


@pytest.mark.parametrize("kind", [pa.ipc.new_file, pa.ipc.new_stream])
def test_offsets_that_point_elsewhere_are_a_sentence(tmp_path, kind):
    table = pa.table({"image": ["a.png", "b.png"], "caption": ["CT of the chest", "MRI of the knee"]})
    path = tmp_path / "x.arrow"
    with pa.OSFile(str(path), "wb") as sink, kind(sink, table.schema) as out:
        out.write_table(table)
    data = path.read_bytes()
    offsets = b"".join(n.to_bytes(4, "little") for n in (0, 15, 30))
    assert data.count(offsets) == 1
    path.write_bytes(data.replace(offsets, offsets[:4] + b"\0\0\0\x7f" + offsets[8:]))
    with pytest.raises(UserError, match="is not a complete Arrow file"):
        list(read_rows(path))


def test_cells_within_cells_are_dropped_rows(tmp_path):
    deep, objects = "[" * 600 + '"x"' + "]" * 600, '{"caption": ' * 60 + '"CT of the chest"' + "}" * 60
    cells = (('"a.png"', objects), (deep, '"CT of the chest"'), ('"a.png"', deep))
    lines = [f'{{"image": {image}, "caption": {caption}}}' for image, caption in cells]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    start = time.process_time()
    first, *others = read_tables([tmp_path / "x.jsonl"], Columns(), UsedFiles())
    assert time.process_time() - start < LIMIT_S
    assert isinstance(first, Pair) and first.caption == "CT of the chest"
    assert [row.reason for row in others] == ["image cell is nested too deeply", "row without image or caption"]


@pytest.mark.parametrize(
    ("name", "report"),
    [
        ("A" + " " * 60 + "B", "A" + " " * 200 + "C"),
        ("A" + "'" * 60 + "B", "A" + "'" * 200 + "C"),
        ("A" + "' " * 30 + "B", "A" + " " * 200 + "C"),
        ("å" * 60, "a" * 200),
        ("åä" * 30, "a" * 200),
    ],
)
def test_a_name_with_many_spellings_takes_a_moment(name, report):
    start = time.process_time()
    assert redact_report(report, dicom(None, InstitutionName=name))[0] == report
    assert time.process_time() - start < LIMIT_S


def test_a_name_with_many_spellings_is_found():
    header = dicom(None, InstitutionName="St.  Ola's   Blåå Kors", StationName="Åål' A")
    report = "Seen at St. Olas Blaaaa Kors, then Aål A, then aaaal’ A."
    assert redact_report(report, header)[0] == "Seen at ___, then ___, then ___."


@pytest.mark.slow
def test_time_to_miss_images_grows_with_the_table_alone(tmp_path):
    """Each was looked for among the archives beside it, and for these each time among all files."""
    (tmp_path / "images").mkdir()
    lines = ["image,caption", "there-0.png,CT"]
    for number in range(15_000):
        (tmp_path / "images" / f"there-{number}.png").touch()
        lines.append(f"absent-{number}.png,CT")
    (tmp_path / "x.csv").write_text("\n".join(lines))
    start = time.process_time()
    rows = list(read_tables([tmp_path / "x.csv"], Columns(), UsedFiles()))
    assert len(rows) == 15_001 and time.process_time() - start < 60


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["x" * 2**16] * 3).dictionary_encode(),
        pa.array(["x" * 2**16] * 3, pa.string_view()),
        pa.ListViewArray.from_arrays(pa.array([0] * 3, pa.int32()), pa.array([9] * 3, pa.int32()), pa.array(range(9))),
        pa.array([[{}]] * 3, pa.list_(pa.struct([]))),
        pa.RunEndEncodedArray.from_arrays(pa.array([3], pa.int32()), pa.array([1])),
        pa.nulls(3),
    ],
)
def test_a_column_whose_values_lie_nowhere_is_refused(tmp_path, column):
    """A file of 1 kB had 2**31 rows; one text was a million."""
    write_arrow(tmp_path / "x.arrow", pa.table({"id": ["a", "b", "c"], "value": column}))
    with pytest.raises(DamageError, match=r"has a column of .*, which no file of medclip has"):
        open_table(tmp_path / "x.arrow")


@pytest.mark.parametrize("codec", ["zstd", "lz4", None])
@pytest.mark.parametrize("dictionary", [False, True])
def test_a_compressed_arrow_file_is_told_before_it_is_unpacked(tmp_path, codec, dictionary):
    """Of 200 kB, 10 GB were made."""
    column = pa.array([b"\0" * 2**20] * 3)
    table = pa.table({"number": [1, 2, 3], "image": column.dictionary_encode() if dictionary else column})
    path = tmp_path / "x.arrow"
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema, options=options) as out:
        out.write_table(table, max_chunksize=1)
    with path.open("rb") as file:
        assert has_compressed_batches(file) == bool(codec)
    if codec:
        with pytest.raises(DamageError, match="is compressed, which no file of medclip is"):
            open_table(path)
    elif not dictionary:
        assert len(open_table(path)) == 3

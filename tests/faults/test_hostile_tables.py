"""Captions and tables made to cost: time grows with their length alone, and damaged offsets are a sentence."""

import time

import pyarrow as pa
import pytest

from medclip.data.deidentify import redact_report
from medclip.data.normalize import MAX_CAPTION_CHARACTERS, clean_caption, normalize_text
from medclip.data.prepare import prepare
from medclip.data.sources.reports import split_reading
from medclip.data.sources.table_files import read_rows
from medclip.data.stats.statistics import caption_issues
from medclip.errors import UserError
from support.material import draw_image, image_bytes

LIMIT_S = 3.0  # of a loaded machine; quadratic work on these takes minutes


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

"""Of a dialogue about an image, what is answered is its caption, never what is asked."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclip.data.schema import Pair
from medclip.data.sources.detect import open_source
from support.archives import tar_bytes

ASKED, ANSWER = "<image>\nDescribe the image in detail.", "Chest radiograph without effusion."
LLAVA = [{"from": "human", "value": ASKED}, {"from": "gpt", "value": ANSWER}]
CHAT = [{"role": "system", "content": "You are a radiologist."}, {"role": "user", "content": ASKED},
        {"role": "assistant", "content": ANSWER}]  # fmt: skip
PARTS = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ASKED}]},
         {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]}]  # fmt: skip


def captions(path):
    return [row.caption for row in open_source(str(path)) if isinstance(row, Pair)]


@pytest.mark.parametrize("turns", [LLAVA, CHAT, PARTS])
@pytest.mark.parametrize("column", ["conversations", "conversatons", "messages"])
def test_the_answer_is_the_caption(tmp_path, turns, column):
    row = {"id": "1", "image": "1.png", column: turns}
    (tmp_path / "x.json").write_text(json.dumps([row]))
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    quoted = json.dumps(turns).replace('"', '""')
    (tmp_path / "x.csv").write_text(f'id,image,{column}\n1,1.png,"{quoted}"\n')
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")
    (tmp_path / "x.tar").write_bytes(
        tar_bytes([("1.png", b"\x89PNG"), ("1.json", json.dumps({column: turns}).encode())])
    )
    for name in ("x.json", "x.jsonl", "x.csv", "x.parquet", "x.tar"):
        assert captions(tmp_path / name) == [ANSWER], name


def test_each_answer_is_a_caption_of_the_image(tmp_path):
    more = [{"from": "human", "value": "Is the heart enlarged?"}, {"from": "gpt", "value": "No, its size is normal."}]
    (tmp_path / "x.json").write_text(json.dumps([{"image": "1.png", "conversations": LLAVA + more}]))
    assert captions(tmp_path / "x.json") == [ANSWER, "No, its size is normal."]


def test_questions_alone_are_no_caption(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps([{"image": "1.png", "conversations": LLAVA[:1]}]))
    assert [row.reason for row in open_source(str(tmp_path / "x.json"))] == ["row without image or caption"]

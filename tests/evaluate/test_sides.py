"""Left and right, chosen between by a model."""

import json

import numpy as np
import pytest

from medclip.errors import UserError
from medclip.evaluate import sides
from medclip.evaluate.sides import evaluate_sides, side_choice
from medclip.evaluate.subject import Subject


def test_the_choice_counts_what_scores_above_its_mirror(monkeypatch):
    directions = {
        "the left knee": [1.0, 0],
        "the right knee": [0, 1.0],
        "a left eye": [1.0, 0],
        "a right eye": [1.0, 0],
    }
    monkeypatch.setattr(sides, "embed_texts", lambda model, texts: np.array([directions[t] for t in texts]))
    captions = ["the left knee", "the right knee", "a left eye"]
    images = np.array([[1.0, 0], [1.0, 0], [1.0, 0]])  # right, wrong, a tie
    assert side_choice(None, images, captions).tolist() == [1, 0, 0]


def test_only_one_sided_captions_are_asked(run, data, tmp_path):
    found = evaluate_sides(Subject(model=str(run), data=str(data), out=tmp_path))
    assert found["captions"] == 8  # of every three captions of the split one says "upper"
    assert json.loads((tmp_path / "understanding.json").read_text()) == found


def test_a_split_without_sides_is_refused(run, data, copy):
    import pyarrow as pa

    from medclip.data.shards import write_shard

    other = copy(data)
    (shard,) = other.glob("validation-*.arrow")
    table = pa.ipc.open_file(pa.OSFile(str(shard))).read_all()
    rows = [row | {"caption": "CT of the knee"} for row in table.to_pylist()]
    write_shard(shard, rows, {})
    with pytest.raises(UserError, match="names exactly one of left and right"):
        evaluate_sides(Subject(model=str(run), data=str(other)))

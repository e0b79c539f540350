"""The curves of a run are an image, whatever has been measured yet."""

import pytest
from PIL import Image

from medclip.train.curves import draw_curves

TRAINED = {"step": 1, "loss": 2.0}
MEASURED = {"step": 1, "validation_loss": 2.0, "R@1": 0.1, "R@5": 0.2, "R@10": 0.3, "mean_recall": 0.2, "pool": 12}


@pytest.mark.parametrize("records", [[TRAINED, MEASURED], [TRAINED]], ids=["measured", "not yet"])
def test_curves_decode(tmp_path, records):
    draw_curves(records, tmp_path / "curves.png", 8)
    with Image.open(tmp_path / "curves.png") as picture:
        picture.load()
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]

"""A disk that fills: every command ends with the file's name, and a cache that has no room is gone without."""

import shutil
from collections import namedtuple

import numpy as np
import pytest

from medclip.data.dataset import Split
from medclip.model.image_processor import square_image_processor
from medclip.training.data import SplitImages, pixel_cache_file, read_images
from support.faults import WRITERS, disk, file_size_limit

SLOW = {"prepare", "train", "robustness", "explain"}
SUFFIXES = {"explain": ".png", "map": ".parquet", "stats": ".html", "compare": ".html"}
LEFT_OUT = {"quickstart", "open_clip", "onnx", "map"}  # others write their first file (map: joblib), or need torch
LEFT_OUT |= {"zero-shot", "probe", "compositionality"}  # they write as retrieval does, of data that is too small
CASES = [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in WRITERS if c not in LEFT_OUT]


@pytest.mark.parametrize("limit", [20, pytest.param(1500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", CASES)
def test_a_full_disk_is_named_with_the_file(command, limit, words, medclip, tmp_path):
    out = tmp_path / f"out{SUFFIXES.get(command, '')}"
    with file_size_limit(limit):
        code, _, err = medclip(*words(command), "--out", out)
    last = err.splitlines()[-1]
    assert (code, last.startswith("medclip: ")) == (1, True), err
    assert str(out) in last
    assert "File too large" in last
    assert "Traceback" not in err


def test_a_cache_without_room_is_gone_without(data, tmp_path, monkeypatch, capsys):
    """The disk claims to have room, as one with a quota does; a file mapped there would kill the process (SIGBUS)."""
    usage = namedtuple("usage", "free")(10**12)
    with disk(tmp_path / "disk", "size=256k") as small:
        folder = shutil.copytree(data, small / "data", ignore=shutil.ignore_patterns("cache"))
        monkeypatch.setattr("medclip.training.data.shutil.disk_usage", lambda path: usage)
        split, processor = Split(folder, "train"), square_image_processor(224)
        images = read_images(split, processor, 8.0)
        cache = pixel_cache_file(SplitImages(split, processor))
        assert isinstance(images, SplitImages)
        assert f"not cached after all: {cache}: No space left on device." in capsys.readouterr().err
        assert not [*cache.parent.glob(f"*{cache.name}*")]
        assert np.array_equal(images[np.arange(2)], read_images(Split(data, "train"), processor, 8.0)[:2])

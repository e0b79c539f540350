"""The public functions: what a notebook has goes in, typed values come out, and files are as the commands make them."""

import doctest
import io
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest
from PIL import Image

import medclip
from support.material import draw_image, image_bytes


def pairs(count, start=0):
    organs, sides = ("chest", "abdomen", "brain", "knee", "pelvis"), ("left", "right", "upper")
    return [
        (draw_image(n), f"CT of the {sides[n % 3]} {organs[n % 5]}, image number {n}")
        for n in range(start, start + count)
    ]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Prepared from images and captions in memory."""
    out = tmp_path_factory.mktemp("api") / "data"
    return medclip.prepare({"train": pairs(20), "validation": pairs(8, 20)}, out, num_workers=1)


def test_pairs_in_memory_become_a_dataset(dataset):
    assert dataset.num_pairs == {"train": 20, "validation": 8} and dataset.dropped == {"train": {}, "validation": {}}
    rows = dataset.split("validation")
    assert rows.column("caption") == [caption for _, caption in pairs(8, 20)]
    image = np.asarray(Image.open(io.BytesIO(rows.image(0))), np.int16)
    assert np.abs(image - np.asarray(draw_image(20), np.int16)).mean() < 3  # a JPEG of it


def test_what_is_dropped_is_counted(tmp_path):
    made = medclip.prepare(
        [(draw_image(0), "A caption that is long enough"), (b"no image", "Another caption")],
        tmp_path / "d",
        num_workers=1,
    )
    assert sum(made.num_pairs.values()) == 1
    assert [count for counts in made.dropped.values() for count in counts.items()] == [("image unreadable", 1)]


def test_a_script_without_a_main_guard_prepares_in_several_processes(tmp_path):
    (tmp_path / "x.png").write_bytes(image_bytes(draw_image(0), "PNG"))
    script = tmp_path / "script.py"
    script.write_text(
        "import medclip\n"
        "print(medclip.prepare([('x.png', f'CT of the chest, number {n}') for n in range(3)], 'data', num_workers=2).num_pairs)\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1 and sum(eval(done.stdout).values()) == 3


@pytest.mark.slow
@pytest.mark.parametrize("module", ["__init__", "dual_encoder", "search.index"])
def test_the_examples_of_the_docstrings_run(module, run, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, source in {"run": run, "data": data}.items():
        (tmp_path / name).symlink_to(source)
    for number, name in enumerate(("a.png", "b.png")):
        (tmp_path / name).write_bytes(image_bytes(draw_image(number), "PNG"))
    examples = doctest.DocTestFinder().find(import_module(f"medclip.{module}"), globs={"medclip": medclip})
    runner = doctest.DocTestRunner()
    for example in examples:
        runner.run(example)
    assert runner.tries and not runner.failures

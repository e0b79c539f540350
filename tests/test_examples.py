"""The examples run as notebooks on one toy that they share; pages and notebook files hold what they show."""

import base64
import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

import medclip
from medclip.model.config import PRESETS
from support.benchmarks import ROOT, load_script
from support.model_folders import hybrid_folder

notebooks = load_script("docs/notebooks.py")
EXPECTED = {
    "pair": ("image 3", "ultrasound", "image/png"),
    "fine_tune": ("patient_id", "mean_recall", "Retrieval among", "image/png"),
    "zero_shot": ("AUROC", "Calcification", "uncertain label (1)", "image/png"),
    "probe": ("random weights", "a class, 5 draws", "image/png"),
    "compare": ("R@10", "candidate", "corrected by Holm"),
    "dicom": ("Phantomski^Anna", "b'Phantomski': 0, b'MRN': 0", "image/png"),
    "interop": ("transformers", "sentence-transformers", "open_clip"),
    "model_of_2021": ("hybrid-clip", "model.safetensors", "Retrieval among", "image/png"),
    "embedding_map": ("caption_rank", "image/png"),
    "api_client": ("right so far", "shoe size", "image/png"),
}
"""What an example prints, returns or draws, at the least."""
PEERS = {"interop": ("open_clip", "sentence_transformers", "torch", "transformers")}
NEEDS = {"dicom": ("pydicom",), "api_client": ("fastapi",), **PEERS}


@pytest.fixture(scope="module")
def toy(tmp_path_factory, train_config):
    """The folder of the examples, with a dataset and a model of a test's size, also as a model of 2021."""
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", PRESETS["test"])
        patch.setitem(sys.modules, "toy", module := load_script("examples/toy.py"))
        for name, value in {"FOLDER": folder / "toy", "NUM_PAIRS": 64, "STEPS": 4}.items():
            patch.setattr(module, name, value)
        patch.setenv("MEDCLIP_2021", str(hybrid_folder(medclip.load(module.model()).model, folder / "2021")))
        yield folder


def text_of(cells):
    """All that cells show, as one text."""
    return "\n".join(str(output.get("text") or output["data"]) for cell in cells for output in cell.outputs)


def test_every_example_opens_with_its_lesson_and_is_in_the_gallery():
    gallery = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")
    assert {path.stem for path in notebooks.NOTEBOOKS} == EXPECTED.keys()
    for path in notebooks.NOTEBOOKS:
        title, lesson = notebooks.read_cells(path)[0].source.split("\n\n")[:2]
        assert title.startswith("# ") and lesson.startswith("You learn"), path
        assert "not for clinical use" in " ".join(lesson.split()), path
        assert f"(../examples/{path.name})" in gallery, path
        for line in "\n".join(cell.source for cell in notebooks.read_cells(path) if not cell.is_markdown).splitlines():
            assert len(line) <= 86, f"the site shows {path} at 1,280 pixels without scrolling: {line}"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.parity if name in PEERS else pytest.mark.slow) for name in EXPECTED]
)
def test_an_example_runs(name, toy, monkeypatch, tmp_path):
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package, reason=f"{package} is absent, which examples/{name}.py needs")
    cells = notebooks.run(ROOT / "examples" / f"{name}.py", toy)
    for text in EXPECTED[name]:
        assert text in text_of(cells)
    if name == "interop":
        differences = cells[-1].outputs[0]["data"]["text/plain"].split()
        assert max(float(word) for word in differences if word[0].isdigit()) < 1e-5


@pytest.fixture
def small_example(tmp_path):
    """An example of every kind of output."""
    source = tmp_path / "small.py"
    source.write_text(
        "# %% [markdown]\n# # Small\n#\n# You learn little.\n\n# %%\nprint('<b>')\n3 + 4\n\n"
        "# %%\nimport pandas as pd\n\npd.DataFrame({'a': [1]})\n\n"
        "# %%\nimport matplotlib.pyplot as plt\n\nplt.plot([1, 2])\n\n# %%\nx = 5\n"
    )
    return source


@pytest.mark.slow
def test_what_cells_show_is_on_the_page_and_in_the_notebook(small_example, tmp_path):
    cells = notebooks.run(small_example, tmp_path)
    notebooks.write_page(cells, tmp_path / "small.md", "A note.")
    page = (tmp_path / "small.md").read_text()
    assert page.startswith("# Small\n\n[This page as a notebook](small.ipynb). A note.\n\nYou learn little.")
    assert "```text\n<b>\n```" in page and "```text\n7\n```" in page and "<td>1</td>" in page
    (image,) = tmp_path.glob("small-[0-9]*.png")
    thumbnail = (tmp_path / "small-small.png").read_bytes()
    assert f"({image.name})" in page and max(Image.open(io.BytesIO(thumbnail)).size) <= 240
    notebooks.write_notebook(cells, tmp_path / "small.ipynb")
    document = json.loads((tmp_path / "small.ipynb").read_text())
    assert (document["nbformat"], [cell["cell_type"] for cell in document["cells"]]) == (4, ["markdown"] + 4 * ["code"])
    outputs = [cell.get("outputs", []) for cell in document["cells"]]
    assert [len(each) for each in outputs] == [0, 2, 1, 1, 0]
    png = base64.b64decode(outputs[3][0]["data"]["image/png"])
    assert Image.open(io.BytesIO(png)).format == "PNG"


def test_what_a_cell_raises_is_raised_and_leaves_nothing_changed(tmp_path):
    (tmp_path / "wrong.py").write_text("# %%\nimport absent_peer\n")
    before = (Path.cwd(), sys.path[:])
    with pytest.raises(ModuleNotFoundError, match="absent_peer"):
        notebooks.run(tmp_path / "wrong.py", tmp_path)
    assert (Path.cwd(), sys.path) == before

"""Optional packages are named with their remedy where they are absent."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from medclip.errors import UserError
from medclip.require import install_command, require

ROOT = Path(__file__).parents[1]


def test_an_installed_package_is_imported():
    assert require("json.decoder").JSONDecoder


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """medclip-jax, installed with extras of this test."""
    folder = tmp_path / "medclip_jax-9.9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: medclip-jax\nVersion: 9.9\nRequires-Dist: numpy>=2\n"
        "Requires-Dist: faiss-cpu>=1.15; extra == 'faiss'\nRequires-Dist: parts[all]<4,>=3; extra == 'dicom'\n"
        "Requires-Dist: too-new; python_version < '3' and extra == 'dicom'\nRequires-Dist: plain; extra == 'dicom'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("distribution")
@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ({"extra": "faiss"}, "pip install 'faiss-cpu>=1.15' (the extra faiss of medclip-jax)"),
        ({"extra": "dicom"}, "pip install 'parts[all]<4,>=3' plain (the extra dicom of medclip-jax)"),
        ({"install": "mlflow-skinny alembic"}, "pip install mlflow-skinny alembic"),
        ({}, "pip install not_there"),
    ],
)
def test_an_absent_package_is_named_with_its_remedy(words, remedy):
    with pytest.raises(UserError) as raised:
        require("not_there.inside", **words)
    assert str(raised.value) == f"not_there is not installed: {remedy}."


def test_every_extra_named_in_the_code_is_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {
        name
        for file in (ROOT / "src").rglob("*.py")
        for name in re.findall(r'\brequire\([^)]*extra="(\w+)"', file.read_text())
    }
    assert {"train", "dicom"} <= names <= project["optional-dependencies"].keys()


def test_a_checkout_that_is_not_installed_names_its_extra(monkeypatch):
    def requires(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert install_command("ray") == "pip install -e '.[ray]' in the checkout of medclip"


def test_a_client_without_its_packages_names_the_extra():
    code = "import sys; sys.modules['pydantic'] = None; import medclip.serve.client"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"ModuleNotFoundError: pydantic is not installed: {install_command('serve')}." in done.stderr


WITHOUT_TRAINING = """
import importlib, sys
for name in ("optax", "orbax", "orbax.checkpoint", "tensorboardX"):
    sys.modules[name] = None
from medclip.cli import main
for name in ("app.run", "cli.data", "cli.evaluate", "cli.info", "cli.share", "dual_encoder", "encode.feature_cache",
             "cli.verify", "evaluation.retrieval", "search.curate", "serve.api"):
    importlib.import_module(f"medclip.{name}")
main.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--data", "d", "--out", "o", "--preset", "tiny"], install_command("train")),
        (["quickstart", "--out", "o"], install_command("train")),
        (["search", "--index", "i", "knee"], "i is not an index"),
    ],
)
def test_only_training_asks_for_its_packages(tmp_path, words, message):
    command = [sys.executable, "-c", WITHOUT_TRAINING, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not list(tmp_path.glob("*"))


def test_a_package_that_breaks_on_import_says_why_itself(tmp_path, monkeypatch):
    (tmp_path / "breaks_here.py").write_text("import what_it_needs_is_absent")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="what_it_needs_is_absent"):
        require("breaks_here")
    assert "breaks_here" not in sys.modules

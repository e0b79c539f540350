"""Optional packages are named with their remedy where they are absent."""

import sys

import pytest

from medclip.errors import UserError
from medclip.require import require


def test_an_installed_package_is_imported():
    assert require("json.decoder").JSONDecoder


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ({"extra": "faiss"}, "'medclip[faiss]'"),
        ({"install": "mlflow-skinny alembic"}, "mlflow-skinny alembic"),
        ({}, "not_there"),
    ],
)
def test_an_absent_package_is_named_with_its_remedy(words, remedy):
    with pytest.raises(UserError) as raised:
        require("not_there.inside", **words)
    assert str(raised.value) == f"not_there is not installed: pip install {remedy}."


def test_a_package_that_breaks_on_import_says_why_itself(tmp_path, monkeypatch):
    (tmp_path / "breaks_here.py").write_text("import what_it_needs_is_absent")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="what_it_needs_is_absent"):
        require("breaks_here")
    assert "breaks_here" not in sys.modules

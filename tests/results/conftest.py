"""Checkouts without results and with those of two seeds."""

import pytest

from support.made_results import make_root, make_seeds, write


@pytest.fixture
def root(tmp_path):
    return make_root(tmp_path / "root")


@pytest.fixture
def two_seeds(tmp_path):
    return make_seeds(tmp_path)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A checkout that holds the results of two seeds, and their runs."""
    root = make_root(tmp_path_factory.mktemp("toy") / "root")
    folders = make_seeds(root.parent)
    assert write(root, "toy", *folders) == ""
    return root, folders

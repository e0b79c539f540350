"""The commit of the source that runs is known in a checkout, and nowhere else."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from medclip import versions


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path):
    """The module in a folder of a new repository that has one commit, of another file."""
    folder = tmp_path / "repository" / "package"
    folder.mkdir(parents=True)
    shutil.copy(Path(versions.__file__), folder / "module.py")
    (folder.parent / "notes.txt").write_text("one")
    git(folder.parent, "init", "-q")
    git(folder.parent, "add", "notes.txt")
    git(folder.parent, "commit", "-qm", "notes")
    return folder


def commit_of(package):
    spec = importlib.util.spec_from_file_location("copied", package / "module.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.source_commit()


def test_a_package_inside_another_projects_checkout_has_no_commit(package):
    assert commit_of(package) is None


def test_a_checkout_has_its_commit_and_says_where_the_source_differs(package):
    git(package, "add", ".")
    git(package, "commit", "-qm", "package")
    commit = git(package, "rev-parse", "HEAD")
    assert commit_of(package) == commit
    (package.parent / "notes.txt").write_text("two")
    assert commit_of(package) == commit
    with (package / "module.py").open("a") as file:
        file.write("\n")
    assert commit_of(package) == commit + "+changes"


def test_without_git_there_is_no_commit(package, monkeypatch):
    monkeypatch.setenv("PATH", str(package))
    assert commit_of(package) is None

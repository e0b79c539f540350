"""open_clip's own ViT under its names gives what the same weights give as a CLIPModel."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medclip.model.checkpoint import load, save
from support.model_folders import assert_same_vectors, open_clip_folder, resaid
from support.references import FOLDER


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "model"))


def test_open_clips_layout_loads_and_comes_back(tmp_path: Path, folder: Path) -> None:
    resaid(folder, "text_config", eos_token_id=2)  # open_clip takes the largest id for the end of text, as CLIP of 2021
    model = load(folder)
    theirs = load(open_clip_folder(model, tmp_path / "open_clip"))
    assert_same_vectors(model, theirs)
    save(theirs, tmp_path / "again")
    assert_same_vectors(model, load(tmp_path / "again"))

"""The founding project's folder of 2021 loads as the same model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from medclip.model.checkpoint import load
from support.model_folders import assert_refused, assert_same_embeddings, dual_encoder, hybrid_folder


def test_the_founding_projects_folder_loads(tmp_path: Path) -> None:
    model = dual_encoder("clip_vision_model", "bert")
    theirs = load(hybrid_folder(model, tmp_path / "2021"))
    assert_same_embeddings(dataclasses.replace(model, image_processor=theirs.image_processor), theirs)
    assert theirs.raw_config["model_type"] == "vision-text-dual-encoder"
    assert theirs.image_processor.raw_config["size"] == {"shortest_edge": 224}


def test_a_damaged_msgpack_is_named(tmp_path: Path) -> None:
    folder = hybrid_folder(dual_encoder("clip_vision_model", "bert"), tmp_path / "2021")
    path = folder / "flax_model.msgpack"
    path.write_bytes(path.read_bytes()[:-50])
    assert_refused(folder, "flax_model.msgpack is damaged")

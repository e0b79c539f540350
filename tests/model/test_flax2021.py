"""The founding project's format loads and is written back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgpack
import numpy as np

from medclip.model import flax2021
from medclip.model.checkpoint import load
from support.model_folders import assert_same_vectors, dual, hybrid_folder, refused


def tree_of(path: Path) -> dict[tuple[str, ...], np.ndarray]:
    return dict(flax2021._leaves(msgpack.unpackb(path.read_bytes(), ext_hook=flax2021._array), ()))


def test_the_founding_projects_folder_loads_and_is_written_back(tmp_path: Path) -> None:
    model = dual("clip_vision_model", "bert")
    theirs = load(hybrid_folder(model, tmp_path / "2021"))
    assert_same_vectors(dataclasses.replace(model, preprocessor=theirs.preprocessor), theirs)
    assert theirs.raw_config["model_type"] == "vision-text-dual-encoder"
    assert theirs.preprocessor["size"] == {"shortest_edge": 224}
    paths = [tmp_path / "2021" / "flax_model.msgpack", tmp_path / "back.msgpack"]
    flax2021.write(theirs.params, {"vision_model.": "clip_vision_model"}, paths[1])
    forth, back = map(tree_of, paths)
    assert forth.keys() == back.keys()
    for name, value in forth.items():
        np.testing.assert_array_equal(value, back[name])


def test_a_damaged_msgpack_is_named(tmp_path: Path) -> None:
    folder = hybrid_folder(dual("clip_vision_model", "bert"), tmp_path / "2021")
    path = folder / "flax_model.msgpack"
    path.write_bytes(path.read_bytes()[:-50])
    refused(folder, "flax_model.msgpack is damaged")

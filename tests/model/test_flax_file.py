"""Trees of Flax, of 2021 and of transformers 4, load as the same model."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import ml_dtypes
import msgpack
import numpy as np
import pytest

from medclip.model.adapt import join_towers
from medclip.model.checkpoint import load
from support.model_folders import (
    assert_refused,
    assert_same_embeddings,
    dual_encoder,
    flax_array,
    flax_tree,
    hybrid_folder,
    save_tower,
)
from support.references import FOLDER


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A CLIPModel's folder without its weights."""
    return Path(shutil.copytree(FOLDER, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors")))


def write_tree(folder: Path, tree: object) -> None:
    (folder / "flax_model.msgpack").write_bytes(msgpack.packb(tree))


def in_chunks(value: np.ndarray) -> object:
    """As flax.serialization stores arrays of more than 1 GiB."""
    if value.size < 100:
        return flax_array(value)
    parts = np.array_split(value.ravel(), 3)
    return {
        "__msgpack_chunked_array__": True,
        "shape": {str(i): n for i, n in enumerate(value.shape)},
        "chunks": {str(i): flax_array(part) for i, part in enumerate(parts)},
    }


def test_the_founding_projects_folder_loads(tmp_path: Path) -> None:
    model = dual_encoder("clip_vision_model", "bert")
    theirs = load(hybrid_folder(model, tmp_path / "2021"))
    assert_same_embeddings(dataclasses.replace(model, image_processor=theirs.image_processor), theirs)
    assert theirs.raw_config["model_type"] == "vision-text-dual-encoder"
    assert theirs.image_processor.raw_config["size"] == {"shortest_edge": model.config.vision.image_size}


def test_the_tree_of_a_clip_model_loads(folder: Path) -> None:
    model = load(FOLDER)
    write_tree(folder, flax_tree(model.params, in_chunks))
    assert_same_embeddings(model, load(folder))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_read_exactly(folder: Path, dtype: type) -> None:
    model = load(FOLDER)
    write_tree(folder, flax_tree(model.params, lambda value: flax_array(value.astype(dtype))))
    params = load(folder).params
    for name, value in model.params.items():
        np.testing.assert_array_equal(params[name], np.asarray(value).astype(dtype).astype(np.float32))


def test_a_scalar_may_be_a_scalar(folder: Path) -> None:
    model = load(FOLDER)
    tree = flax_tree(model.params)
    tree["logit_scale"] = flax_array(np.float32(model.params["logit_scale"]), kind=3)
    write_tree(folder, tree)
    assert load(folder).params["logit_scale"] == model.params["logit_scale"]


def test_shards_of_flat_trees_load(folder: Path) -> None:
    model = load(FOLDER)

    def flat(tree: dict, path: str = "") -> dict:
        items = ((f"{path}/{name}".lstrip("/"), value) for name, value in tree.items())
        return {key: leaf for name, value in items for key, leaf in (
            flat(value, name) if isinstance(value, dict) else {name: value}).items()}  # fmt: skip

    leaves = flat(flax_tree(model.params))
    files = {name: f"flax_model-0000{i % 2 + 1}-of-00002.msgpack" for i, name in enumerate(leaves)}
    for file in set(files.values()):
        (folder / file).write_bytes(msgpack.packb({name: leaves[name] for name in leaves if files[name] == file}))
    (folder / "flax_model.msgpack.index.json").write_text(f'{{"weight_map": {files}}}'.replace("'", '"'))
    assert_same_embeddings(model, load(folder))


@pytest.mark.parametrize(("side", "kind"), [("text", "bert"), ("vision", "vit")])
def test_a_tower_of_flax_joins(tmp_path: Path, side: str, kind: str) -> None:
    model = dual_encoder("vit", "bert")
    folder = save_tower(model, side, tmp_path / "tower")
    (folder / "model.safetensors").unlink()
    tower = {n.removeprefix(f"{side}_model."): v for n, v in model.params.items() if n.startswith(f"{side}_model.")}
    write_tree(folder, {kind: flax_tree(tower)})
    joined = join_towers(folder, FOLDER) if side == "vision" else join_towers(FOLDER, folder)
    for name, value in tower.items():
        np.testing.assert_array_equal(joined.params[f"{side}_model.{name}"], value)


def test_a_damaged_msgpack_is_named(tmp_path: Path) -> None:
    folder = hybrid_folder(dual_encoder("clip_vision_model", "bert"), tmp_path / "2021")
    path = folder / "flax_model.msgpack"
    path.write_bytes(path.read_bytes()[:-50])
    assert_refused(folder, "flax_model.msgpack is damaged")


def deep(levels: int) -> dict:
    tree: dict = {}
    for _ in range(levels):
        tree = {"a": tree}
    return tree


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xdf\xff\xff\xff\xff",  # a map of 2^32 entries
        b"\xc9\xff\xff\xff\xff\x01",  # an extension of 4 GiB
        msgpack.packb([1, 2]),
        msgpack.packb({"a": "text"}),
        msgpack.packb({"a": {"kernel": flax_array(np.zeros((2, 2, 2), np.float32))}}),
        msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((10**12,), "float32", b"1234")))}),
        msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((1,), "object", b"12345678")))}),
        msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((-1,), "f4,f4", b"12345678")))}),
        msgpack.packb({"a": msgpack.ExtType(9, b"1234")}),
        msgpack.packb({"a": {"__msgpack_chunked_array__": True, "shape": 3}}),
        msgpack.packb({"a": {"__msgpack_chunked_array__": True, "shape": {"0": 10**12}, "chunks": {}}}),
        msgpack.packb({"a": {"weight": flax_array(np.ones(2)), "scale": flax_array(np.ones(2))}}),
        b"\x81\xa1a" * 5000 + b"\x80",
        msgpack.packb(deep(400)),
    ],
)
def test_hostile_trees_are_refused(folder: Path, content: bytes) -> None:
    (folder / "flax_model.msgpack").write_bytes(content)
    assert_refused(folder, "flax_model.msgpack" if len(content) != len(msgpack.packb(deep(400))) else "missing")

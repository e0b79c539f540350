"""Folders load and come back as they were: whole, in shards, from the Hub's cache, under names of other years."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import msgpack
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from medclip.errors import UserError
from medclip.model.checkpoint import load, model_hash, save
from medclip.model.shapes_init import tensor_shapes
from medclip.model.weights.weight_files import canonical
from support.model_folders import (
    assert_same_embeddings,
    dual_encoder,
    flax_tree,
    rewrite_tensors,
    write_safetensors,
)
from support.references import FOLDER
from support.torch_files import write_state_dict


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "model"))


@pytest.mark.parametrize(
    ("vision", "text"), [("vit", "bert"), ("dinov2", "clip_text_model"), ("siglip_vision_model", "bert")]
)
def test_a_joined_folder_survives_saving_bit_for_bit(tmp_path: Path, vision: str, text: str) -> None:
    model = dual_encoder(vision, text)
    save(model, tmp_path / "once")
    again = load(tmp_path / "once")
    save(again, tmp_path / "twice")
    for path in (tmp_path / "once").iterdir():
        assert path.read_bytes() == (tmp_path / "twice" / path.name).read_bytes()
    assert_same_embeddings(model, again)


def test_shards_are_read_through_their_index(folder: Path) -> None:
    whole, tensors = load(folder), load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {}
    for part in range(3):
        shard = f"model-{part + 1:05}-of-00003.safetensors"
        save_file({name: tensors[name] for name in names[part::3]}, folder / shard)
        places |= {name: shard for name in names[part::3]}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert_same_embeddings(whole, load(folder))
    before, last = model_hash(folder), folder / "model-00003-of-00003.safetensors"
    save_file({name: value + 1 for name, value in load_file(last).items()}, last)
    assert model_hash(folder) != before


def to_bin(folder: Path, file: str = "pytorch_model.bin", prefix: str = "") -> None:
    """The folder's weights in torch's format instead."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    write_state_dict(folder / file, {prefix + name: value for name, value in tensors.items()})


@pytest.mark.parametrize("file", ["pytorch_model.bin", "epoch_3.pt", "best.pth"])
def test_weights_of_torch_are_read_and_named(folder: Path, file: str, caplog: pytest.LogCaptureFixture) -> None:
    to_bin(folder, file)
    (folder / "training_args.bin").write_bytes(b"not weights")
    (folder / "optimizer.pt").write_bytes(b"not weights")
    model = load(folder)
    for name, value in load_file(FOLDER / "model.safetensors").items():
        np.testing.assert_array_equal(model.params[name], value)
    assert f"read from {file}" in caplog.text and "--to safetensors" in caplog.text


def test_shards_of_torch_are_read_through_their_index(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {name: f"pytorch_model-0000{i % 2 + 1}-of-00002.bin" for i, name in enumerate(tensors)}
    for file in set(files.values()):
        write_state_dict(folder / file, {name: tensors[name] for name in tensors if files[name] == file})
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
    assert_same_embeddings(load(FOLDER), load(folder))
    before = model_hash(folder)
    write_state_dict(folder / next(iter(files.values())), {"other": np.zeros(1, np.float32)})
    assert model_hash(folder) != before


def test_safetensors_come_first_then_flax_then_torch(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = (folder / "model.safetensors").read_bytes()
    to_bin(folder)
    tree = flax_tree(load(FOLDER).params)
    (folder / "model.safetensors").write_bytes(good)
    (folder / "flax_model.msgpack").write_bytes(msgpack.packb(tree))
    order = ["model.safetensors", "flax_model.msgpack", "pytorch_model.bin"]
    hashes = []
    for name in order:
        load(folder)
        hashes.append(model_hash(folder))
        for other in order[order.index(name) + 1 :]:  # which do not count
            whole = (folder / other).read_bytes()
            (folder / other).write_bytes(b"others")
            assert model_hash(folder) == hashes[-1]
            (folder / other).write_bytes(whole)
        (folder / name).unlink()
    assert len(set(hashes)) == 3
    assert [record.args[1] for record in caplog.records if record.args] == order[1:]


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.module.", "_fsdp_wrapped_module.", "model.", "module.net.clip."]
)
@pytest.mark.parametrize("torch", [False, True])
def test_the_prefix_of_a_wrapper_is_taken_off(folder: Path, prefix: str, torch: bool) -> None:
    if torch:
        to_bin(folder, prefix=prefix)
    else:
        tensors = load_file(folder / "model.safetensors")
        save_file({prefix + name: value for name, value in tensors.items()}, folder / "model.safetensors")
    assert_same_embeddings(load(FOLDER), load(folder))


def test_bfloat16_is_read_exactly(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    half = {name: value.astype(ml_dtypes.bfloat16) for name, value in tensors.items()}
    write_safetensors(half, folder / "model.safetensors")
    params = load(folder).params
    for name, value in half.items():
        np.testing.assert_array_equal(params[name], value.astype(np.float32))


def test_a_logit_scale_of_shape_1_is_a_logit_scale(folder: Path, tmp_path: Path) -> None:
    rewrite_tensors(folder, lambda tensors: tensors.update(logit_scale=tensors["logit_scale"].reshape(1)))
    model = load(folder)
    assert_same_embeddings(load(FOLDER), model)
    save(model, tmp_path / "again")
    assert load_file(tmp_path / "again/model.safetensors")["logit_scale"].shape == ()


@pytest.mark.parametrize(
    ("name", "today"),
    [
        ("text_model.embeddings.LayerNorm.gamma", "text_model.embeddings.LayerNorm.weight"),
        ("text_model.embeddings.LayerNorm.beta", "text_model.embeddings.LayerNorm.bias"),
        ("vision_model.vision_model.post_layernorm.bias", "vision_model.post_layernorm.bias"),
        ("text_model.embeddings.position_ids", None),
        ("text_model.embeddings.token_type_ids", None),
        ("vision_model.embeddings.position_ids", None),
        ("logit_scale", "logit_scale"),
    ],
)
def test_names_of_other_years(name: str, today: str | None) -> None:
    assert canonical(name) == today


def test_the_hubs_cache_links_to_its_blobs(folder: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "repo/blobs", tmp_path / "repo/snapshots/abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        path.rename(blobs / path.name)
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    assert load(snapshot).config == load(FOLDER).config


def test_shapes_are_those_of_the_file() -> None:
    tensors = load_file(FOLDER / "model.safetensors")
    assert tensor_shapes(load(FOLDER).config) == {name: value.shape for name, value in tensors.items()}
    assert jnp.shape(tensors["logit_scale"]) == ()


@pytest.mark.parametrize("name", ["best.safetensors", "model.fp16.safetensors"])
def test_safetensors_of_another_name_are_named(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(UserError, match=f"has no weights.*holds {name}.*rename it to model.safetensors"):
        load(folder)

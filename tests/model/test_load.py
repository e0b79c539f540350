"""Folders load and come back as they were: whole, in shards, from the Hub's cache, under names of other years."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import pytest
from safetensors.numpy import load_file, save_file

from medclip.model.checkpoint import load, model_hash, save
from medclip.model.shapes_init import tensor_shapes
from medclip.model.weights import canonical
from support.model_folders import assert_same_embeddings, dual_encoder
from support.references import FOLDER


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


@pytest.mark.parametrize(
    ("name", "today"),
    [
        ("text_model.embeddings.LayerNorm.gamma", "text_model.embeddings.LayerNorm.weight"),
        ("text_model.embeddings.LayerNorm.beta", "text_model.embeddings.LayerNorm.bias"),
        ("vision_model.vision_model.post_layernorm.bias", "vision_model.post_layernorm.bias"),
        ("text_model.embeddings.position_ids", None),
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

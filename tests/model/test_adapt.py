"""Pretrained models take another image size or context length, and join: weights stay, what is new starts fresh."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medclip.encode.encoder import embed_images, embed_pixels, embed_texts
from medclip.errors import UserError
from medclip.model.adapt import join_towers, with_context_length, with_image_size
from medclip.model.checkpoint import Model, load, save
from medclip.model.config import parse_config
from medclip.model.image_processor import ShortestEdge, parse_image_processor, preprocess
from medclip.model.shapes_init import init_params
from support.model_folders import CLOSE, assert_same_embeddings, dual_encoder, rewrite_tensors, save_tower
from support.parity import png
from support.references import (
    CAPTIONS,
    FAMILIES,
    FOLDER,
    open_torch_model,
    random_folder,
    random_images,
    transformers_outputs,
)


def test_a_resolution_is_changed_by_interpolating_positions() -> None:
    model = load(FOLDER)
    larger = with_image_size(model, 49)
    name = "vision_model.embeddings.position_embedding.weight"
    assert larger.params[name].shape == (50, 32)
    np.testing.assert_array_equal(larger.params[name][0], model.params[name][0])  # the class token's
    grid = np.asarray(model.params[name][1:]).reshape(4, 4, -1)
    assert larger.params[name][1:].mean(0) == pytest.approx(grid.reshape(16, -1).mean(0), abs=0.02)
    assert parse_config(larger.raw_config) == larger.config
    assert embed_pixels(larger, np.zeros((1, 49, 49, 3), np.uint8)).shape == (1, 24)
    assert with_image_size(model, 32) is model


def test_a_flat_table_of_positions_stays_flat() -> None:
    model = dual_encoder("vit", "bert")
    name = "vision_model.embeddings.position_embeddings"
    flat = {**model.params, name: np.concatenate([model.params[name][:, :1], np.full((1, 16, 32), 0.5, np.float32)], 1)}
    larger = with_image_size(dataclasses.replace(model, params=flat), 56)
    assert larger.params[name].shape == (1, 50, 32)
    np.testing.assert_allclose(larger.params[name][:, 1:], 0.5, atol=1e-6)


def test_a_longer_context_interpolates_and_a_shorter_one_only_cuts() -> None:
    model = load(FOLDER)
    longer, shorter = with_context_length(model, 48), with_context_length(model, 12)
    name = "text_model.embeddings.position_embedding.weight"
    assert longer.params[name].shape == (48, 32) and longer.tokenizer.encode(CAPTIONS)[0].shape == (3, 48)
    assert parse_config(longer.raw_config) == longer.config
    assert shorter.params[name].shape == (24, 32) and shorter.tokenizer.encode(CAPTIONS)[0].shape == (3, 12)
    np.testing.assert_allclose(embed_texts(shorter, ["T2"]), embed_texts(model, ["T2"]), atol=CLOSE)
    ids = shorter.tokenizer.encode(CAPTIONS)[0]
    assert ids[2, -1] == model.config.text.eos_token_id  # cut, its special tokens kept
    assert model.tokenizer.encode(CAPTIONS)[0].shape == (3, 24)  # the first is as it was


def test_a_context_that_the_tower_cannot_have_is_refused_with_a_reason() -> None:
    roberta = dual_encoder("vit", "bert")
    config = {**roberta.raw_config["text_config"], "model_type": "roberta", "pad_token_id": 1}
    raw = {**roberta.raw_config, "text_config": config}
    config = parse_config(raw)
    roberta = dataclasses.replace(roberta, params=init_params(config, 0), config=config, raw_config=raw)
    with pytest.raises(UserError, match="positions for 3 to 22 tokens"):
        with_context_length(roberta, 100)


@pytest.mark.parametrize("prefix", ["", "bert.", "encoder.model.", "model.bert."])
def test_towers_are_joined_with_fresh_projections(tmp_path: Path, prefix: str) -> None:
    model = dual_encoder("vit", "bert")
    vision, text = save_tower(model, "vision", tmp_path / "v"), save_tower(model, "text", tmp_path / "t", prefix)
    joined = join_towers(vision, text, projection_dim=20, seed=3)
    assert joined.params["visual_projection.weight"].shape == (20, 32)
    assert joined.params["visual_projection.weight"].std() == pytest.approx(32**-0.5, rel=0.1)
    for name, value in model.params.items():
        if "_model." in name:
            np.testing.assert_array_equal(joined.params[name], value)
    assert joined.params["logit_scale"] == pytest.approx(np.log(1 / 0.07), abs=1e-4)
    again = join_towers(vision, text, projection_dim=20, seed=3)
    np.testing.assert_array_equal(again.params["text_projection.weight"], joined.params["text_projection.weight"])


def test_towers_are_taken_out_of_dual_encoders_too(tmp_path: Path) -> None:
    save(dual_encoder("dinov2", "bert"), tmp_path / "dual")
    joined, clip = join_towers(FOLDER, tmp_path / "dual", 16), load(FOLDER)
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    np.testing.assert_array_equal(joined.params[name], clip.params[name])
    save(joined, tmp_path / "joined")
    assert_same_embeddings(joined, load(tmp_path / "joined"))


def test_a_pooler_that_was_not_published_starts_fresh_and_is_named(tmp_path: Path, caplog) -> None:
    model = dual_encoder("vit", "bert")
    params = {name: value for name, value in model.params.items() if not name.startswith("text_model.pooler")}
    text = save_tower(dataclasses.replace(model, params=params), "text", tmp_path / "t", "bert.")
    with caplog.at_level(logging.WARNING, "medclip.model"):
        joined = join_towers(FOLDER, text)
    assert joined.params["text_model.pooler.dense.weight"].std() == pytest.approx(0.02, rel=0.1)
    assert "text_model.pooler.dense.weight and text_model.pooler.dense.bias" in caplog.text


def test_a_tower_that_interpolates_its_positions_changes_its_processor_alone(tmp_path: Path) -> None:
    model = dual_encoder("dinov2", "bert")
    raw = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 32}, "crop_size": 28}
    model = dataclasses.replace(model, image_processor=parse_image_processor(raw))
    larger = with_image_size(model, 56)
    assert larger.params is model.params and larger.config == model.config and larger.raw_config == model.raw_config
    assert (larger.image_processor.resize, larger.image_processor.crop) == (ShortestEdge(64), 56)
    save(larger, tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.image_processor == larger.image_processor and again.config == larger.config
    assert_same_embeddings_of(again, larger, 56)


def assert_same_embeddings_of(one: Model, other: Model, side: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    np.testing.assert_allclose(embed_pixels(one, pixels), embed_pixels(other, pixels), atol=CLOSE)


@pytest.mark.parametrize("squeeze", [True, False])
def test_another_size_takes_the_same_part_of_an_image(squeeze: bool) -> None:
    raw = {"image_processor_type": "CLIPImageProcessor", "size": 32, "crop_size": 32}
    raw |= {"size": [32, 32], "do_center_crop": False} if squeeze else {}
    model = dataclasses.replace(load(FOLDER), image_processor=parse_image_processor(raw))
    image = Image.fromarray(np.tile(np.linspace(0, 255, 400).astype(np.uint8), (200, 1)))
    small, large = (
        preprocess(image, processor).astype(float)
        for processor in (model.image_processor, with_image_size(model, 64).image_processor)
    )
    assert large.shape == (64, 64, 3)
    np.testing.assert_allclose(large.reshape(32, 2, 32, 2, 3).mean((1, 3)), small, atol=4)


def test_cxr_bert_is_a_bert_whose_heads_are_left_out_and_named(tmp_path: Path, caplog) -> None:
    model = dual_encoder("vit", "bert")
    folder = save_tower(model, "text", tmp_path / "t", "bert.")
    raw = json.loads((folder / "config.json").read_text())
    remote = {"auto_map": {"AutoModel": "modeling_cxrbert.CXRBertModel"}, "projection_size": 128}
    (folder / "config.json").write_text(json.dumps({**raw, "model_type": "cxr-bert", **remote}))
    heads = ("cls.predictions.bias", "cls_projection_head.dense_to_hidden.weight")
    rewrite_tensors(folder, lambda tensors: tensors.update({name: np.zeros(4, np.float32) for name in heads}))
    with caplog.at_level(logging.WARNING, "medclip.model"):
        joined = join_towers(FOLDER, folder)
    assert "cls, cls_projection_head" in caplog.text
    assert joined.raw_config["text_config"]["model_type"] == "bert"
    assert "auto_map" not in joined.raw_config["text_config"]
    name = "text_model.encoder.layer.0.attention.self.query.weight"
    np.testing.assert_array_equal(joined.params[name], model.params[name])


@pytest.mark.parametrize(
    ("side", "head"),
    [("text", "qa_outputs.weight"), ("text", "classifier.out_proj.bias"), ("vision", "embeddings.mask_token")],
)
def test_a_tower_out_of_another_task_joins_without_its_head(tmp_path: Path, caplog, side: str, head: str) -> None:
    model = dual_encoder("vit", "bert")
    folders = {each: save_tower(model, each, tmp_path / each) for each in ("vision", "text")}
    rewrite_tensors(folders[side], lambda tensors: tensors.update({head: np.zeros((1, 1, 4), np.float32)}))
    with caplog.at_level(logging.WARNING, "medclip.model"):
        joined = join_towers(folders["vision"], folders["text"])
    assert head.removesuffix(".weight").removesuffix(".out_proj.bias") in caplog.text
    assert f"{side}_model.{head}" not in joined.params


def test_a_tensor_that_is_no_head_is_not_left_out(tmp_path: Path) -> None:
    folder = save_tower(dual_encoder("vit", "bert"), "text", tmp_path / "t")
    rewrite_tensors(folder, lambda tensors: tensors.update({"cls_token": np.zeros(4, np.float32)}))
    with pytest.raises(UserError, match="unexpected cls_token"):
        join_towers(FOLDER, folder)


@pytest.mark.parity
@pytest.mark.parametrize("families", FAMILIES, ids="+".join)
def test_a_join_of_two_towers_opens_in_transformers(tmp_path: Path, families) -> None:
    random_folder(tmp_path / "dual", 6, families, 28)
    parts = {"vision": "vision_model", "text": "text_model"}
    for side, part in parts.items():  # each as a folder of its own, as transformers writes it
        shutil.copytree(tmp_path / "dual", tmp_path / side)
        getattr(open_torch_model(tmp_path / "dual"), part).save_pretrained(tmp_path / side)
    if families[1] == "siglip":
        with pytest.raises(UserError, match="no other library"):
            join_towers(tmp_path / "vision", tmp_path / "text")
        return
    save(join_towers(tmp_path / "vision", tmp_path / "text", 24, 7), tmp_path / "ours")
    images, model = random_images(28, 6), load(tmp_path / "ours")
    theirs = transformers_outputs(tmp_path / "ours", images, CAPTIONS)
    np.testing.assert_allclose(embed_images(model, [png(image) for image in images]), theirs["images"], atol=CLOSE)
    np.testing.assert_allclose(embed_texts(model, CAPTIONS), theirs["texts"], atol=CLOSE)

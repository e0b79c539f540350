"""The founding project's snippets run as they were written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from medclip.configuration_hybrid_clip import HybridCLIPConfig
from medclip.encode.encoder import embed_texts
from medclip.errors import UserError
from medclip.model.checkpoint import load, save
from medclip.modeling_hybrid_clip import FlaxHybridCLIP
from support.model_folders import dual_encoder, hybrid_folder
from support.references import CAPTIONS, FOLDER, random_folder, random_images, transformers_outputs

PIXELS = np.random.default_rng(0).standard_normal((2, 32, 32, 3), np.float32)


@pytest.fixture(scope="module")
def founding(tmp_path_factory) -> Path:
    return hybrid_folder(
        dual_encoder("clip_vision_model", "bert"), tmp_path_factory.mktemp("founding") / "medclip-roco"
    )


@pytest.mark.slow
def test_the_readmes_first_snippet(founding: Path) -> None:
    model = FlaxHybridCLIP.from_pretrained(founding)
    ids, valid = model.model.tokenizer.encode(CAPTIONS)
    out = model(ids, PIXELS, attention_mask=valid)
    assert out.logits_per_image.shape == (2, 3) and out.logits_per_text.shape == (3, 2)
    cosines = np.asarray(out.image_embeds) @ np.asarray(out.text_embeds).T
    np.testing.assert_allclose(out.logits_per_image, np.exp(model.params["logit_scale"]) * cosines, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(out.text_embeds, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(out.text_embeds, embed_texts(model.model, CAPTIONS), atol=2e-6)


def test_both_orders_of_the_channels_are_the_same_image(founding: Path) -> None:
    model = FlaxHybridCLIP.from_pretrained(founding)
    last, first = model.get_image_features(PIXELS), model.get_image_features(PIXELS.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(last, first)
    assert not np.allclose(np.linalg.norm(last, axis=1), 1)  # features are not unit vectors, as in 2021


def test_the_second_snippet_joins_two_towers(tmp_path: Path) -> None:
    save(dual_encoder("vit", "bert"), tmp_path / "text")
    keywords = {"seed": 0, "dtype": jnp.float32, "text_from_pt": True, "vision_from_pt": False}  # run_hybrid_clip.py's
    model = FlaxHybridCLIP.from_text_vision_pretrained(str(tmp_path / "text"), str(FOLDER), **keywords)
    with pytest.raises(UserError, match="text_config"):
        FlaxHybridCLIP.from_text_vision_pretrained(str(tmp_path / "text"), str(FOLDER), text_config={})
    assert model.params["text_projection.weight"].shape == (512, 32)
    model.save_pretrained(tmp_path / "joined")
    again = load(tmp_path / "joined")
    np.testing.assert_array_equal(again.params["text_projection.weight"], model.params["text_projection.weight"])
    assert model.config.to_dict()["projection_dim"] == 512


def test_a_mask_hides_what_it_covers(founding: Path) -> None:
    model = FlaxHybridCLIP.from_pretrained(founding)
    ids, valid = model.model.tokenizer.encode(["T2"])
    other = np.where(valid, ids, 7)
    np.testing.assert_allclose(*(model.get_text_features(x, valid) for x in (ids, other)), atol=1e-6)
    assert not np.allclose(model.get_text_features(ids), model.get_text_features(other), atol=1e-3)


def test_the_config_of_2021() -> None:
    config = HybridCLIPConfig.from_text_vision_configs({"a": 1}, {"b": 2}, projection_dim=64)
    assert config.to_dict() == {
        "model_type": "hybrid-clip",
        "projection_dim": 64,
        "text_config": {"a": 1},
        "vision_config": {"b": 2},
    }
    assert json.loads(json.dumps(config.to_dict()))
    with pytest.raises(ValueError, match="text_config"):
        HybridCLIPConfig(vision_config={})


def without_tokenizer(founding: Path, folder: Path) -> Path:
    """As flax-community/medclip-roco is published: a config and weights."""
    return Path(shutil.copytree(founding, folder, ignore=shutil.ignore_patterns("*token*")))


@pytest.mark.slow
def test_the_app_of_2021_runs_without_a_tokenizer(founding: Path, tmp_path: Path) -> None:
    folder = without_tokenizer(founding, tmp_path / "2021")
    model = FlaxHybridCLIP.from_pretrained(str(folder), _do_init=True, dtype=jnp.float32, seed=42, from_pt=False)
    ids, valid = FlaxHybridCLIP.from_pretrained(founding).model.tokenizer.encode(CAPTIONS)
    inputs = {"input_ids": ids, "attention_mask": valid.astype(int), "token_type_ids": np.zeros_like(ids)}
    whole = FlaxHybridCLIP.from_pretrained(founding)
    np.testing.assert_array_equal(model.get_text_features(**inputs, train=False), whole.get_text_features(ids, valid))
    np.testing.assert_array_equal(
        model(pixel_values=PIXELS, **inputs, return_dict=True).logits_per_image,
        whole(ids, PIXELS, valid).logits_per_image,
    )
    model.save_pretrained(tmp_path / "today")
    assert not [path for path in (tmp_path / "today").iterdir() if "token" in path.name]
    again = FlaxHybridCLIP.from_pretrained(tmp_path / "today")
    np.testing.assert_array_equal(again.get_image_features(PIXELS), model.get_image_features(PIXELS))
    with_tokenizer = FlaxHybridCLIP.from_pretrained(folder, tokenizer=founding)
    np.testing.assert_array_equal(with_tokenizer.model.tokenizer.encode(CAPTIONS)[0], ids)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("dtype", jnp.bfloat16), ("_do_init", False), ("cache_dir", "x"), ("trust_remote_code", True)],
)
def test_a_keyword_that_would_change_something_is_refused(founding: Path, keyword: str, value: object) -> None:
    with pytest.raises(UserError, match=keyword):
        FlaxHybridCLIP.from_pretrained(founding, **{keyword: value})


@pytest.mark.parametrize(("keyword", "value"), [("train", True), ("token_type_ids", [[1]]), ("position_ids", [[3]])])
def test_a_feature_of_2021_that_is_not_computed_is_refused(founding: Path, keyword: str, value: object) -> None:
    model = FlaxHybridCLIP.from_pretrained(founding)
    with pytest.raises(UserError, match=keyword):
        model.get_text_features([[1]], **{keyword: value})


@pytest.mark.parity
def test_the_format_of_2021_gives_what_the_same_weights_give_in_torch(tmp_path: Path) -> None:
    random_folder(tmp_path / "today", 7, ("clip", "bert"), 28)
    images = random_images(28, 7)
    wanted = transformers_outputs(tmp_path / "today", images, CAPTIONS)
    model = FlaxHybridCLIP.from_pretrained(hybrid_folder(load(tmp_path / "today"), tmp_path / "2021"))
    ids, valid = model.model.tokenizer.encode(CAPTIONS)
    out = model(ids, wanted["pixels"], attention_mask=valid)
    np.testing.assert_allclose(out.image_embeds, wanted["images"], atol=2e-6)
    np.testing.assert_allclose(out.text_embeds, wanted["texts"], atol=2e-6)
    np.testing.assert_allclose(out.logits_per_image, wanted["logits"], atol=6e-5)

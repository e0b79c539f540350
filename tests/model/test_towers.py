"""A tower that sees some patches alone sees each at its own place; what a tower stores for its backward pass."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from medclip.model.checkpoint import Model
from support.compiled import image_features, image_tokens, token_features
from support.model_folders import dual_encoder

FAMILIES = ("clip_vision_model", "siglip_vision_model", "vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit")
PIXELS = np.random.default_rng(0).standard_normal((2, 32, 32, 3), np.float32)
PATCHES = 16


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest):
    return with_arrays(dual_encoder(request.param, "bert"))


def with_arrays(model: Model) -> Model:
    return dataclasses.replace(model, params={name: np.asarray(value) for name, value in model.params.items()})


@pytest.mark.slow
def test_all_patches_in_another_order_are_the_same_image(model) -> None:
    orders = np.stack([np.random.default_rng(seed).permutation(PATCHES) for seed in range(2)])
    wanted = image_features(model.params, PIXELS, model.config)
    features = image_features(model.params, PIXELS, model.config, orders)
    np.testing.assert_allclose(features, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.slow
@pytest.mark.parametrize("num_layers", [0, 1])
def test_layers_after_the_tokens_of_the_first_ones_are_the_tower(model, num_layers) -> None:
    visible = np.stack([np.random.default_rng(seed).permutation(PATCHES)[:6] for seed in range(2)])
    tokens = image_tokens(model.params, PIXELS, model.config, num_layers)
    assert tokens.shape[1] >= PATCHES
    for patches in (None, visible if num_layers == 0 else None):  # later, kept ones have seen those that are dropped
        features = token_features(model.params, tokens, model.config, num_layers, patches)
        wanted = image_features(model.params, PIXELS, model.config, patches)
        np.testing.assert_allclose(features, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.slow
def test_a_patch_that_is_not_seen_changes_nothing_and_one_that_is_does(model) -> None:
    visible = np.stack([np.random.default_rng(seed).permutation(PATCHES)[:6] for seed in range(2)])
    patches = PIXELS.reshape(2, 4, 8, 4, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, PATCHES, 8, 8, 3)
    for is_visible in (True, False):
        changed = patches.copy()
        for image, order in enumerate(visible):
            changed[image, order if is_visible else np.setdiff1d(np.arange(PATCHES), order)] += 1
        pixels = changed.reshape(2, 4, 4, 8, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(PIXELS.shape)
        before, after = (image_features(model.params, x, model.config, visible) for x in (PIXELS, pixels))
        assert np.array_equal(before, after) == (not is_visible)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["dinov2_with_registers", "deit"])
def test_tokens_that_are_no_patches_take_part(family: str) -> None:
    model = with_arrays(dual_encoder(family, "bert"))
    tokens = {"dinov2_with_registers": "register_tokens", "deit": "distillation_token"}[family]
    name = f"vision_model.embeddings.{tokens}"
    without = {**model.params, name: np.zeros_like(model.params[name])}
    assert not np.allclose(*(image_features(p, PIXELS, model.config) for p in (model.params, without)))


def test_a_layer_stores_its_input_and_what_its_linear_maps_give() -> None:
    """Query, key, value, attention's output and the MLP's hidden states; its last output serves no gradient."""
    model = with_arrays(dual_encoder("dinov2", "bert"))
    tower, tokens = model.config.vision, np.zeros((8, 33, model.config.vision.hidden_size), np.float32)
    _, pullback = jax.vjp(lambda x: token_features(model.params, x, model.config), tokens)
    stored = sum(array.size for array in jax.tree.leaves(pullback) if array.shape[:2] == (8, 33))
    assert stored == tower.num_hidden_layers * (5 * tokens.size + 8 * 33 * tower.intermediate_size)

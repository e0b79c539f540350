"""Positions are interpolated to the grid of the pixels as torch does it for DINOv2, with and without registers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from medclip.model.adapt import join_towers
from medclip.model.checkpoint import Model, load, save
from medclip.model.config import parse_vision
from medclip.model.image_processor import parse_image_processor
from medclip.model.shapes_init import vision_shapes
from support.compiled import image_features, resize_positions
from support.model_folders import dual_encoder
from support.references import FOLDER

KERNELS = {"bicubic": False, "antialiased": True}
GRIDS = [(37, 16), (16, 37), (4, 7), (37, 24), (37, 36), (3, 1), (1, 3), (2, 50)]


def positions(side: int, width: int = 8) -> np.ndarray:
    return np.random.default_rng(side).standard_normal((1 + side * side, width)).astype(np.float32)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_same_grid_and_the_class_tokens_stay(kernel: str) -> None:
    table = positions(5)
    np.testing.assert_array_equal(resize_positions(table, 1, 5, kernel), table)
    np.testing.assert_array_equal(resize_positions(table, 1, 3, kernel)[0], table[0])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_equal_positions_stay_equal(kernel: str, old: int, new: int) -> None:
    flat = np.ones((old * old, 3), np.float32)
    np.testing.assert_allclose(resize_positions(flat, 0, new, kernel), np.ones((new * new, 3)), atol=2e-6)


def test_half_a_grid_has_the_weights_of_keys() -> None:
    """Between two cells, Keys' weights (1981) with a = -0.75 are a/8, 1/2 - a/8, 1/2 - a/8, a/8."""
    row = np.array([1.0, 3.0, 7.0, 2.0, 5.0, 8.0, 4.0, 6.0])
    grid = np.tile(row, (8, 1)).reshape(64, 1).astype(np.float32)
    halved = np.asarray(resize_positions(grid, 0, 4, "bicubic")).reshape(4, 4)
    padded = np.pad(row, 1, mode="edge")
    weights = np.array([-0.09375, 0.59375, 0.59375, -0.09375])
    np.testing.assert_allclose(halved[0], [padded[i : i + 4] @ weights for i in (0, 2, 4, 6)], atol=1e-5)


@pytest.mark.parametrize("old", [8, 37])
def test_antialiased_positions_are_pillows(old: int) -> None:
    """Pillow's own bicubic on a float image, along columns and rows."""
    grid = positions(old, 1)[1:]
    image = Image.fromarray(grid.reshape(old, old))
    for new in (5, 16, 50):
        wanted = np.asarray(image.resize((new, new), Image.Resampling.BICUBIC)).reshape(-1, 1)
        np.testing.assert_allclose(resize_positions(grid, 0, new, "antialiased"), wanted, atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize(("kernel", "antialias"), KERNELS.items())
@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_positions_are_those_of_torch(kernel: str, antialias: bool, old: int, new: int) -> None:
    import torch

    table = positions(old)
    grid = torch.from_numpy(table[1:]).reshape(1, old, old, -1).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.interpolate(grid, (new, new), mode="bicubic", antialias=antialias)
    ours = resize_positions(table, 1, new, kernel)[1:]
    np.testing.assert_allclose(ours, wanted.permute(0, 2, 3, 1).reshape(new * new, -1), atol=5e-6)


def dinov2() -> Model:
    """A tower with 4 x 4 positions for patches of 8 px."""
    model = dual_encoder("dinov2", "bert")
    return dataclasses.replace(model, params=jax.tree.map(jnp.asarray, model.params))


def test_dinov2_stores_its_own_grid_and_takes_others() -> None:
    """facebook/dinov2-*: 37 x 37 positions for images of 518 px, and a processor that crops 224 of 256."""
    raw = {"model_type": "dinov2", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
           "image_size": 518, "patch_size": 14, "mlp_ratio": 2}  # fmt: skip
    assert vision_shapes(parse_vision(raw))["embeddings.position_embeddings"] == (1, 1 + 37 * 37, 32)


@pytest.mark.parametrize("side", [16, *(pytest.param(side, marks=pytest.mark.slow) for side in (40, 60, 63))])
def test_a_dinov2_tower_takes_pixels_of_any_size(side: int) -> None:
    """The remainder of a patch is left out, as a convolution leaves it."""
    model = dinov2()
    pixels = np.random.default_rng(0).standard_normal((2, side, side, 3)).astype(np.float32)
    whole = side // 8 * 8
    features = image_features(model.params, pixels, model.config)
    np.testing.assert_array_equal(features, image_features(model.params, pixels[:, :whole, :whole], model.config))
    name = "vision_model.embeddings.position_embeddings"
    resized = resize_positions(model.params[name][0], 1, side // 8, "bicubic")[None]
    tower = dataclasses.replace(model.config.vision, image_size=whole)
    same_size = dataclasses.replace(model.config, vision=tower)
    np.testing.assert_allclose(
        features, image_features({**model.params, name: resized}, pixels[:, :whole, :whole], same_size), atol=1e-6
    )


def test_patches_are_dropped_with_their_own_positions() -> None:
    model = dinov2()
    pixels = np.random.default_rng(0).standard_normal((1, 56, 56, 3)).astype(np.float32)
    every = np.arange(49)[None]
    np.testing.assert_allclose(
        image_features(model.params, pixels, model.config, every),
        image_features(model.params, pixels, model.config),
        atol=1e-6,
    )


@pytest.mark.slow
def test_interpolated_positions_learn() -> None:
    model = dinov2()
    name = "vision_model.embeddings.position_embeddings"
    pixels = np.random.default_rng(0).standard_normal((1, 42, 42, 3)).astype(np.float32)

    @jax.jit
    def total(table: jax.Array) -> jax.Array:
        return image_features({**model.params, name: table}, pixels, model.config).sum()

    table = jnp.asarray(model.params[name])
    gradient = jax.grad(total)(table)
    assert gradient.shape == table.shape
    direction = np.random.default_rng(1).standard_normal(table.shape).astype(np.float32)
    step = 1e-2
    finite = (total(table + step * direction) - total(table - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(finite), rel=0.02)


@pytest.mark.parity
@pytest.mark.parametrize(("stored", "crop"), [(518, 224), (224, 518), (98, 70), (98, 75), (98, 98)])
def test_dinov2_at_another_size_is_transformers(tmp_path: Path, stored: int, crop: int) -> None:
    import torch
    import transformers

    config = transformers.Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2,
                                       image_size=stored, patch_size=14)  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.Dinov2Model(config).eval()
    theirs.embeddings.position_embeddings.data = torch.randn_like(theirs.embeddings.position_embeddings)
    theirs.save_pretrained(tmp_path / "dinov2")
    processor = transformers.BitImageProcessorPil(size={"shortest_edge": crop * 8 // 7}, crop_size=crop)
    processor.save_pretrained(tmp_path / "dinov2")
    joined = join_towers(tmp_path / "dinov2", FOLDER)
    save(joined, tmp_path / "joined")
    again = transformers.VisionTextDualEncoderModel.from_pretrained(tmp_path / "joined").eval()
    files = np.random.default_rng(0).integers(0, 256, (2, 300, 411, 3), dtype=np.uint8)
    pixels = processor([Image.fromarray(image) for image in files], return_tensors="pt").pixel_values
    ours = image_features(joined.params, pixels.numpy().transpose(0, 2, 3, 1), load(tmp_path / "joined").config)
    with torch.no_grad():
        np.testing.assert_allclose(ours, theirs(pixels).pooler_output, atol=5e-6)
        np.testing.assert_allclose(ours, again.vision_model(pixels).pooler_output, atol=5e-6)
    assert joined.image_processor == parse_image_processor(json.loads(processor.to_json_string()))

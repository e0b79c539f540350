"""The ResNets of open_clip, beside what live open_clip gives (test_open_clip)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from medclip.model.config import parse_vision
from medclip.model.resnet import resnet_features, resnet_shapes
from support.jaxprs import precisions

SIZES = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 4, "image_size": 32}
TOWER = dataclasses.replace(parse_vision({"model_type": "open_clip_resnet", **SIZES}), stages=(1, 1, 1, 1))
RNG = np.random.default_rng(0)
PARAMS = {name: RNG.uniform(0.1, 0.5, shape).astype(np.float32) for name, shape in resnet_shapes(TOWER).items()}
PIXELS = RNG.standard_normal((2, 32, 32, 3)).astype(np.float32)


def gradient(remat: bool) -> Any:
    return jax.grad(lambda params: resnet_features(params, PIXELS, TOWER, remat).sum())


def test_no_factor_in_float32_is_rounded() -> None:  # a GPU would take TF32
    assert precisions(gradient(False), PARAMS) == {("float32", (jax.lax.Precision.HIGHEST,) * 2)}


@pytest.mark.slow
def test_bottlenecks_are_computed_again_where_memory_is_short() -> None:
    convolutions = [str(jax.make_jaxpr(gradient(r))(PARAMS)).count("conv_general_dilated[") for r in (False, True)]
    assert convolutions[0] < convolutions[1]
    for plain, again in zip(*(jax.tree.leaves(jax.jit(gradient(r))(PARAMS)) for r in (False, True)), strict=True):
        np.testing.assert_allclose(again, plain, rtol=1e-4, atol=1e-5 * np.abs(plain).max())

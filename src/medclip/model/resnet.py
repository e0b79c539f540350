"""The ResNets of CLIP in open_clip's layout: a stem of three convolutions, antialiased strides, attention as the pool.

He et al. 2016; Radford et al. 2021, section 2.4. Batch normalization uses its stored statistics, in training too: they
are constants, and stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Float

from medclip.model.config import VisionConfig
from medclip.model.layers import AnyArray, Attention, attend, linear, precision_of

Params = Mapping[str, AnyArray]
_STATISTICS = ("running_mean", "running_var")
_BATCH_NORM_EPS = 1e-5
EXPANSION = 4
"""Channels after a bottleneck, per channel inside it."""


def resnet_features(
    p: Params, pixels: Float[AnyArray, "b s s 3"], tower: VisionConfig, remat: bool = False
) -> Float[AnyArray, "b w"]:
    """What the attention pool gives before its last linear layer; `p` holds the tower's tensors without a prefix.

    `remat` computes each bottleneck again in the backward pass in place of storing its activations.
    """
    bottleneck = jax.checkpoint(_bottleneck, static_argnums=(1, 3)) if remat else _bottleneck
    x = pixels
    for i, stride in ((1, 2), (2, 1), (3, 1)):
        x = _convolve_norm(p, f"conv{i}", f"bn{i}", x, stride)
    x = _average_pool(x)
    for stage, depth in enumerate(tower.stages, 1):
        for i in range(depth):
            x = bottleneck(p, f"layer{stage}.{i}.", x, 2 if stage > 1 and i == 0 else 1)
    return _attention_pool(p, x, tower.num_attention_heads)


def resnet_shapes(tower: VisionConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, without prefix and projection."""
    base, w = tower.hidden_size // 32, tower.hidden_size
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (into, out) in enumerate(((3, base // 2), (base // 2, base // 2), (base // 2, base)), 1):
        shapes |= {f"conv{i}.weight": (out, into, 3, 3), **_norm_shapes(f"bn{i}", out)}
    into = base
    for stage, depth in enumerate(tower.stages, 1):
        inner = base * 2 ** (stage - 1)
        out = inner * EXPANSION
        for i in range(depth):
            layer = f"layer{stage}.{i}."
            sizes = ((inner, into, 1), (inner, inner, 3), (out, inner, 1))
            for j, (rows, columns, kernel) in enumerate(sizes, 1):
                shapes |= {f"{layer}conv{j}.weight": (rows, columns, kernel, kernel)}
                shapes |= _norm_shapes(f"{layer}bn{j}", rows)
            if i == 0 and (stage > 1 or into != out):
                shapes |= {f"{layer}downsample.0.weight": (out, into, 1, 1)}
                shapes |= _norm_shapes(f"{layer}downsample.1", out)
            into = out
    shapes["attnpool.positional_embedding"] = ((tower.image_size // 32) ** 2 + 1, w)
    for name in ("q_proj", "k_proj", "v_proj"):
        shapes |= {f"attnpool.{name}.weight": (w, w), f"attnpool.{name}.bias": (w,)}
    return shapes


def _norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", *_STATISTICS)}


def _bottleneck(p: Params, layer: str, x: AnyArray, stride: int) -> AnyArray:
    h = _convolve_norm(p, f"{layer}conv1", f"{layer}bn1", x)
    h = _convolve_norm(p, f"{layer}conv2", f"{layer}bn2", h)
    if stride > 1:
        x, h = _average_pool(x), _average_pool(h)
    h = _convolve_norm(p, f"{layer}conv3", f"{layer}bn3", h, relu=False)
    if f"{layer}downsample.0.weight" in p:
        x = _convolve_norm(p, f"{layer}downsample.0", f"{layer}downsample.1", x, relu=False)
    return jax.nn.relu(h + x)


def _convolve_norm(p: Params, convolution: str, norm: str, x: AnyArray, stride: int = 1, relu: bool = True) -> AnyArray:
    weight = p[f"{convolution}.weight"]
    pad = weight.shape[2] // 2
    x = jax.lax.conv_general_dilated(
        jnp.asarray(x, weight.dtype),
        jnp.asarray(weight),
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
        precision=precision_of(weight),
    )
    mean, variance = (jax.lax.stop_gradient(jnp.asarray(p[f"{norm}.{name}"], jnp.float32)) for name in _STATISTICS)
    scale = jax.lax.rsqrt(variance + _BATCH_NORM_EPS) * p[f"{norm}.weight"]
    x = ((x.astype(jnp.float32) - mean) * scale + p[f"{norm}.bias"]).astype(weight.dtype)
    return jax.nn.relu(x) if relu else x


def _average_pool(x: AnyArray) -> AnyArray:
    """The mean of every 2 x 2 pixels; an odd last row or column is left out."""
    b, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(b, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def _attention_pool(p: Params, x: AnyArray, heads: int) -> AnyArray:
    """The mean of all places attends to itself and to them."""
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    x = jnp.concatenate([x.mean(axis=1, keepdims=True), x], axis=1) + p["attnpool.positional_embedding"]
    q, k, v = (
        linear(p, f"attnpool.{name}", states).reshape(*states.shape[:2], heads, -1)
        for name, states in (("q_proj", x[:, :1]), ("k_proj", x), ("v_proj", x))
    )
    return attend(q, k, v, Attention())[:, 0]

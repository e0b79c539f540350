"""The layers of towers: linear, normalization, activation, and attention with its masks, biases and rotations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int

from medclip.model.config import VisionConfig
from medclip.model.families import RELATIVE_BUCKETS

AnyArray = Array | np.ndarray
MAX_DISTANCE = 128  # from here on, relative positions share a bucket


class Attention(NamedTuple):
    """What decides, besides queries and keys, which tokens attend to which."""

    mask: Bool[AnyArray, "#b #h #q k"] | None = None
    """False: does not attend."""
    bias: Float32[AnyArray, "#b h q k"] | None = None
    """Added to the scores."""
    rotation: tuple[AnyArray, AnyArray] | None = None
    """Cosine and sine (patches, d) or (b, patches, d), of the last tokens."""


def precision_of(*factors: AnyArray) -> jax.lax.Precision | None:
    """All of float32 for a product in it, whose factors a GPU rounds to TF32 and a TPU to bfloat16 by default."""
    return jax.lax.Precision.HIGHEST if jnp.result_type(*factors) == jnp.float32 else None


def multiply(x: AnyArray, y: AnyArray) -> Array:
    """The matrix product x y, see `precision_of`."""
    return jnp.matmul(x, y, precision=precision_of(x, y))


def linear(p: Mapping[str, AnyArray], name: str, x: AnyArray) -> AnyArray:
    """x Wᵀ + b of the layer `name`, whose weight is (out, in)."""
    stem = f"{name}_" if name.endswith("in_proj") else f"{name}."
    return multiply(x, p[f"{stem}weight"].T) + p.get(f"{stem}bias", 0)  # some have none: `Block.no_bias`


def layer_norm(p: Mapping[str, AnyArray], name: str, x: AnyArray, eps: float) -> AnyArray:
    """The last axis to mean 0 and variance 1 in float32, then scaled and shifted (Ba et al. 2016)."""
    wide = x.astype(jnp.float32)
    centered = wide - wide.mean(axis=-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.square(centered).mean(axis=-1, keepdims=True) + eps)
    return (centered * scale * p[f"{name}.weight"] + p[f"{name}.bias"]).astype(x.dtype)


def activate(x: AnyArray, name: str) -> AnyArray:
    """A config's `hidden_act` of every element."""
    if name == "quick_gelu":
        return x * jax.nn.sigmoid(1.702 * x)
    if name in ("relu", "silu"):
        return jax.nn.relu(x) if name == "relu" else jax.nn.silu(x)
    return jax.nn.gelu(x, approximate=name != "gelu")


def attend(q: AnyArray, k: AnyArray, v: AnyArray, attention: Attention) -> AnyArray:
    """Softmax attention of (b, t, heads, d), heads joined again: (b, t, w).

    Rows of the softmax are divided by their sums after they have weighted the values (Dao et al. 2022, FlashAttention).
    """
    b, t, heads, d = q.shape
    if attention.rotation is not None:
        q, k = (_rotate(states, *attention.rotation) for states in (q, k))
    # batch and heads as one leading axis: XLA multiplies these on a CPU in half the time
    q, k, v = (states.swapaxes(1, 2).reshape(b * heads, -1, d) for states in (q, k, v))
    scores = jnp.einsum("nqd,nkd->nqk", q, k, precision=precision_of(q, k))
    scores = scores.astype(jnp.float32).reshape(b, heads, t, -1) * d**-0.5
    if attention.bias is not None:
        scores = scores + attention.bias
    if attention.mask is not None:
        scores = jnp.where(attention.mask, scores, jnp.finfo(scores.dtype).min)
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))).reshape(b * heads, t, -1)
    mixed = jnp.einsum("nqk,nkd->nqd", weights.astype(v.dtype), v, precision=precision_of(v))
    mixed = mixed / weights.sum(axis=-1, keepdims=True)
    return mixed.astype(v.dtype).reshape(b, heads, t, d).swapaxes(1, 2).reshape(b, t, -1)


def _rotate(x: AnyArray, cos: AnyArray, sin: AnyArray) -> AnyArray:
    """The last tokens of (b, t, heads, d), those that have angles, rotated; class token and registers stay."""
    cos, sin = (part[..., None, :].astype(x.dtype) for part in (cos, sin))
    rest, patches = jnp.split(x, [x.shape[1] - cos.shape[-3]], axis=1)
    low, high = jnp.split(patches, 2, axis=-1)
    return jnp.concatenate([rest, patches * cos + jnp.concatenate([-high, low], axis=-1) * sin], axis=1)


def patch_rotation(patches: int, tower: VisionConfig) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine (patches, d) of the angles that a square grid's patches are rotated by (Siméoni et al. 2025).

    A coordinate is that of the patch's center, the image being [-1, 1]; half of the angles are of the row's.
    """
    side, d = math.isqrt(patches), tower.hidden_size // tower.num_attention_heads
    centers = (2 * (np.arange(side, dtype=np.float32) + 0.5) / side - 1).astype(np.float32)
    frequencies = 1 / np.float32(tower.rope_theta) ** (np.arange(d // 4) * (4 / d)).astype(np.float32)
    grid = np.stack(np.meshgrid(centers, centers, indexing="ij"), axis=-1).reshape(patches, 2, 1)
    angles = np.tile((np.float32(2 * math.pi) * grid * frequencies).reshape(patches, -1), 2)
    return np.cos(angles), np.sin(angles)


def relative_bias(table: AnyArray, distances: Int[AnyArray, "b q k"]) -> AnyArray:
    """What is added to the scores (b, heads, q, k) of keys that many tokens after their query."""
    buckets = _distance_buckets()[jnp.clip(distances, -MAX_DISTANCE, MAX_DISTANCE) + MAX_DISTANCE]
    return table[buckets].transpose(0, 3, 1, 2).astype(jnp.float32)


def _distance_buckets() -> AnyArray:
    """The bucket of each distance from -MAX_DISTANCE to MAX_DISTANCE (Raffel et al. 2020, section 2.1).

    Half of the buckets are for tokens after; half of each half are one distance wide, the others logarithmic.
    """
    half = RELATIVE_BUCKETS // 2
    distance, exact = np.abs(np.arange(-MAX_DISTANCE, MAX_DISTANCE + 1)), half // 2
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / np.float32(math.log(MAX_DISTANCE / exact))
    far = np.minimum(exact + (ratio * (half - exact)).astype(int), half - 1)
    buckets = np.where(distance < exact, distance, far)
    buckets[MAX_DISTANCE + 1 :] += half
    return jnp.asarray(buckets)

"""Learned positions of a grid of patches, interpolated to another grid."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

Kernel = Literal["bicubic", "antialiased"]


def resize_positions(
    table: Float[Array | np.ndarray, "n w"], num_class_tokens: int, side: int, kernel: Kernel
) -> Float[Array, "m w"]:
    """Positions of a side x side grid, interpolated from a square one; those of class tokens, which lead, stay.

    "bicubic" is torch's `interpolate` as DINOv2 uses it, "antialiased" the same with `antialias=True` (DINOv2 with
    registers; open_clip's change of size). Computed in float32 and differentiable.
    """
    classes, grid = jnp.split(jnp.asarray(table), [num_class_tokens])
    old = round(len(grid) ** 0.5)
    if old == side:
        return jnp.asarray(table)
    weights = _pillow_bicubic(old, side) if kernel == "antialiased" else _torch_bicubic(old, side)
    grid = grid.reshape(old, old, -1).astype(jnp.float32)
    # the default precision of a GPU or TPU would round positions to 10 or 8 bits
    resized = jnp.einsum("yi,xj,ijw->yxw", weights, weights, grid, precision=jax.lax.Precision.HIGHEST)
    return jnp.concatenate([classes, resized.reshape(side * side, -1).astype(classes.dtype)])


def _torch_bicubic(old: int, new: int) -> Float32[np.ndarray, "new old"]:
    """Weights of four neighbors with a = -0.75, the edge repeated, whatever the scale (Keys 1981)."""
    centers = _centers(old, new) - np.float32(0.5)
    weights = np.zeros((new, old), np.float32)
    for offset in range(-1, 3):
        neighbors = np.floor(centers).astype(int) + offset
        values = _keys(centers - neighbors.astype(np.float32), -0.75)
        np.add.at(weights, (np.arange(new), np.clip(neighbors, 0, old - 1)), values)
    return weights


def _pillow_bicubic(old: int, new: int) -> Float32[np.ndarray, "new old"]:
    """Weights with a = -0.5, widened by the scale where the grid shrinks and cut off at the edge, as in Pillow."""
    width = np.float32(max(old / new, 1))
    centers = _centers(old, new)[:, None]
    first, last = np.floor(centers - 2 * width + 0.5), np.floor(centers + 2 * width + 0.5)
    sources = np.arange(old, dtype=np.float32)
    weights = _keys((sources + 0.5 - centers) / width, -0.5) * ((sources >= first) & (sources < last))
    return weights / weights.sum(axis=1, keepdims=True)


def _centers(old: int, new: int) -> Float32[np.ndarray, " new"]:
    """The centers of new cells in units of old ones; in float32, as torch rounds them."""
    return (np.arange(new, dtype=np.float32) + np.float32(0.5)) * (np.float32(old) / np.float32(new))


def _keys(x: np.ndarray, a: float) -> np.ndarray:
    """The cubic convolution kernel (Keys 1981)."""
    x = np.abs(x)
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))

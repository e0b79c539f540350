"""Objectives over a whole batch of unit vectors; sharding is a property of the arrays, never of the loss.

Images (b, p) and texts (c, p), row i < b of both being pair i. Texts beyond b are captions wrong for every picture,
candidates for the pictures alone (Yuksekgonul et al. 2023); those where `real` (c,) is False do not count. `params`
holds `logit_scale`, the logarithm of the factor on cosines, and SigLIP's `logit_bias`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medclip.model.towers import Params, logits


def contrastive(images: jax.Array, texts: jax.Array, params: Params, real: jax.Array | None = None) -> jax.Array:
    """Symmetric InfoNCE: a scalar, ln b by chance. Radford et al. 2021, figure 3."""
    scores = logits(params, images, texts)
    to_image = jnp.diagonal(jax.nn.log_softmax(scores[:, : len(images)], axis=0))
    if real is not None:
        scores = jnp.where(real, scores, jnp.finfo(scores.dtype).min)
    to_text = jnp.diagonal(jax.nn.log_softmax(scores, axis=1))
    return -(to_text.mean() + to_image.mean()) / 2


def sigmoid(images: jax.Array, texts: jax.Array, params: Params, real: jax.Array | None = None) -> jax.Array:
    """Every picture with every caption is a yes or no of its own: a scalar. Zhai et al. 2023, algorithm 1."""
    scores = logits(params, images, texts)
    agree = 2 * jnp.eye(*scores.shape) - 1
    each = jax.nn.log_sigmoid(agree * scores)
    return -(each if real is None else jnp.where(real, each, 0)).sum() / len(images)

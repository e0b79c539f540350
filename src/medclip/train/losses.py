"""Objectives over a whole batch of unit vectors; sharding is a property of the arrays, never of the loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def contrastive(
    images: jax.Array, texts: jax.Array, logit_scale: jax.Array, real: jax.Array | None = None
) -> jax.Array:
    """Symmetric InfoNCE of unit vectors (b, p), row i of both being pair i: a scalar, ln b by chance.

    `texts` may have rows beyond b: captions wrong for every picture, candidates for the pictures alone (Yuksekgonul
    et al. 2023); those where `real` (rows of texts) is False do not count. `logit_scale` is the logarithm of the factor
    on cosines. Radford et al. 2021, figure 3.
    """
    logits = jnp.exp(logit_scale) * images @ texts.T
    to_image = jnp.diagonal(jax.nn.log_softmax(logits[:, : len(images)], axis=0))
    if real is not None:
        logits = jnp.where(real, logits, jnp.finfo(logits.dtype).min)
    to_text = jnp.diagonal(jax.nn.log_softmax(logits, axis=1))
    return -(to_text.mean() + to_image.mean()) / 2

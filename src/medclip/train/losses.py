"""Objectives over a whole batch of unit vectors; sharding is a property of the arrays, never of the loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def contrastive(images: jax.Array, texts: jax.Array, logit_scale: jax.Array) -> jax.Array:
    """Symmetric InfoNCE of unit vectors (b, p), row i of both being pair i: a scalar, ln b by chance.

    `logit_scale` is the logarithm of the factor on cosines. Radford et al. 2021, figure 3.
    """
    logits = jnp.exp(logit_scale) * images @ texts.T
    to_text = jnp.diagonal(jax.nn.log_softmax(logits, axis=1))
    to_image = jnp.diagonal(jax.nn.log_softmax(logits, axis=0))
    return -(to_text.mean() + to_image.mean()) / 2

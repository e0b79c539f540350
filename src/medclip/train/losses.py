"""Objectives over a whole batch of unit vectors; sharding is a property of the arrays, never of the loss.

Images (b, p) and texts (c, p), row i < b of both being pair i. Texts beyond b are captions wrong for every image,
candidates for the images alone (Yuksekgonul et al. 2023). `params` holds `logit_scale`, the logarithm of the factor
on cosines, and for the sigmoid loss `logit_bias`. `agree` f32 (b, c) is how far a caption should be given to an image,
rows summing to 1; `counted` bool (b, c) is False where a caption is no candidate of an image at all.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from medclip.model.towers import Params, logits


def contrastive(images: jax.Array, texts: jax.Array, params: Params, agree: jax.Array, counted: jax.Array) -> jax.Array:
    """Symmetric InfoNCE: a scalar, ln b by chance. Radford et al. 2021, figure 3."""
    b = len(images)
    scores = jnp.where(counted, logits(params, images, texts), -jnp.inf)
    to_text = jax.nn.log_softmax(scores, axis=1)
    to_image = jax.nn.log_softmax(scores[:, :b], axis=0)
    told = jnp.where(counted, agree * to_text, 0).sum() + jnp.where(counted[:, :b], agree[:, :b].T * to_image, 0).sum()
    return -told / (2 * b)


def sigmoid(images: jax.Array, texts: jax.Array, params: Params, agree: jax.Array, counted: jax.Array) -> jax.Array:
    """Every image with every caption is a yes or no of its own: a scalar. Zhai et al. 2023, algorithm 1."""
    each = jax.nn.log_sigmoid((2 * agree - 1) * logits(params, images, texts))
    return -jnp.where(counted, each, 0).sum() / len(images)


def hard_targets(b: int, c: int) -> tuple[jax.Array, jax.Array]:
    """`agree` and `counted` where every caption counts and each pair has its own alone."""
    return jnp.eye(b, c), jnp.ones((b, c), bool)


def targets(picture: jax.Array, words: jax.Array, real: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`agree` and `counted` of a batch: pairs with the same image or the same words are not negatives.

    `picture` i32 (b,) and `words` i32 (c,) are equal where images or captions are; `real` bool (c,) is False at texts
    that are not there.
    """
    b, c = len(picture), len(words)
    own = jnp.eye(b, c, dtype=bool)
    same = words[:b, None] == words
    same = same.at[:, :b].set(same[:, :b] | (picture[:, None] == picture))
    return own.astype(jnp.float32), own | (real & ~same)


def soft_targets(
    agree: jax.Array, counted: jax.Array, concepts: jax.Array, kinds: int, temperature: float
) -> jax.Array:
    """`agree` shared among the pairs of a batch by the overlap of their concepts: softmax of Jaccard / temperature.

    `concepts` i32 (b, k) holds numbers below `kinds`, others being padding. After Wang et al. 2022 (MedCLIP), eq. 4,
    with UMLS concepts in place of extracted entities; a pair without concepts keeps its own caption alone.
    """
    b = len(concepts)
    held = jnp.zeros((b, kinds)).at[jnp.arange(b)[:, None], concepts].set(1.0, mode="drop")
    shared, count = held @ held.T, held.sum(axis=1)
    overlap = shared / jnp.maximum(count[:, None] + count - shared, 1)
    overlap = jnp.where(jnp.eye(b, dtype=bool), 1.0, overlap)
    near = jax.nn.softmax(jnp.where(counted[:, :b], overlap / temperature, -jnp.inf), axis=1)
    near = jnp.where((count > 0)[:, None], near, jnp.eye(b))
    return jnp.pad(near, ((0, 0), (0, agree.shape[1] - b)))

"""Losses over a whole batch of embeddings; sharding is a property of the arrays, never of the loss.

Images (b, p) and texts (c, p), row i < b of both being pair i. Texts beyond b are hard negatives: wrong for every
image, candidates for the images alone (Yuksekgonul et al. 2023). `params` holds `logit_scale`, the logarithm of the
factor on cosines, and for the sigmoid loss `logit_bias`. `targets` (b, c) is the probability of each caption for an
image, rows summing to 1; `mask` (b, c) is False where a caption is not a candidate of an image at all.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from medclip.errors import UserError
from medclip.model.checkpoint import Model
from medclip.model.towers import Params, logits
from medclip.training.config import ResolvedTrainConfig

Loss = Callable[[jax.Array, jax.Array, Params, jax.Array, jax.Array], jax.Array]
"""`loss(images, texts, params, targets, mask)`, a scalar."""


def contrastive_loss(
    images: Float[Array, "b p"],
    texts: Float[Array, "c p"],
    params: Params,
    targets: Float[Array, "b c"],
    mask: Bool[Array, "b c"],
) -> Float[Array, ""]:
    """Symmetric InfoNCE; ln b by chance. Radford et al. 2021, figure 3."""
    b = len(images)
    scores = jnp.where(mask, logits(params, images, texts), -jnp.inf)
    to_text = jax.nn.log_softmax(scores, axis=1)
    to_image = jax.nn.log_softmax(scores[:, :b], axis=0)
    text_sum = jnp.where(mask, targets * to_text, 0).sum()
    image_sum = jnp.where(mask[:, :b], targets[:, :b].T * to_image, 0).sum()
    return -(text_sum + image_sum) / (2 * b)


def sigmoid_loss(
    images: Float[Array, "b p"],
    texts: Float[Array, "c p"],
    params: Params,
    targets: Float[Array, "b c"],
    mask: Bool[Array, "b c"],
) -> Float[Array, ""]:
    """Every image with every caption is its own binary classification. Zhai et al. 2023, algorithm 1."""
    log_likelihood = jax.nn.log_sigmoid((2 * targets - 1) * logits(params, images, texts))
    return -jnp.where(mask, log_likelihood, 0).sum() / len(images)


def is_sigmoid(model: Model, config: ResolvedTrainConfig) -> bool:
    """Whether the loss is the sigmoid loss: as configured, or with "auto" for a model that was trained with it."""
    chosen = config.loss == "sigmoid" or (config.loss == "auto" and model.config.logit_bias)
    if chosen and config.soft_target_temperature:
        raise UserError(
            "--soft-target-temperature is defined for the contrastive loss: add --loss contrastive, or leave it out."
        )
    return chosen


def hard_targets(b: int, c: int) -> tuple[Float[Array, "b c"], Bool[Array, "b c"]]:
    """`targets` and `mask` where each pair has its own caption alone and every other one is a negative."""
    return jnp.eye(b, c), jnp.ones((b, c), bool)


def duplicate_aware_targets(
    image_ids: Int[Array, " b"], caption_ids: Int[Array, " c"], text_mask: Bool[Array, " c"]
) -> tuple[Float[Array, "b c"], Bool[Array, "b c"]]:
    """`targets` and `mask` in which pairs that share an image or a caption are masked out of each other's negatives.

    Ids are equal where images or captions are; `text_mask` is False at padding.
    """
    b, c = len(image_ids), len(caption_ids)
    own = jnp.eye(b, c, dtype=bool)
    same = caption_ids[:b, None] == caption_ids
    same = same.at[:, :b].set(same[:, :b] | (image_ids[:, None] == image_ids))
    return own.astype(jnp.float32), own | (text_mask & ~same)


def soft_targets(
    mask: Bool[Array, "b c"], concepts: Int[Array, "b k"], num_concepts: int, temperature: float
) -> Float[Array, "b c"]:
    """Targets shared among the pairs of a batch by the overlap of their concepts: softmax of Jaccard / temperature.

    `concepts` holds numbers below `num_concepts`, others being padding. After Wang et al. 2022 (MedCLIP), eq. 4,
    with UMLS concepts in place of extracted entities; a pair without concepts keeps its own caption alone.
    """
    b, c = mask.shape
    one_hot = jnp.zeros((b, num_concepts)).at[jnp.arange(b)[:, None], concepts].set(1.0, mode="drop")
    shared, count = one_hot @ one_hot.T, one_hot.sum(axis=1)
    overlap = shared / jnp.maximum(count[:, None] + count - shared, 1)
    overlap = jnp.where(jnp.eye(b, dtype=bool), 1.0, overlap)
    targets = jax.nn.softmax(jnp.where(mask[:, :b], overlap / temperature, -jnp.inf), axis=1)
    targets = jnp.where((count > 0)[:, None], targets, jnp.eye(b))
    return jnp.pad(targets, ((0, 0), (0, c - b)))

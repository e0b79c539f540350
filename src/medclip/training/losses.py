"""Losses over a whole batch of embeddings; sharding is a property of the arrays, never of the loss.

Images (b, p) and texts (b, p), row i of both being pair i. `params` holds `logit_scale`, the logarithm of the factor on
cosines, and for the sigmoid loss `logit_bias`. `mask` (b, b) is False where a caption is not a candidate of an image
at all. `foils` are hard negatives: wrong for their own image, whose candidates they are, and no one else's (after
Yuksekgonul et al. 2023, where all images have the foils of all: another image's foil may be true of this one).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from medclip.model.checkpoint import Model
from medclip.model.towers import Params, logits
from medclip.training.config import ResolvedTrainConfig


class Foils(NamedTuple):
    """Embeddings of k foils per image; `mask` is False where an image has none of that kind."""

    texts: Float[Array, "b k p"]
    mask: Bool[Array, "b k"]

    def logits(self, images: Float[Array, "b p"], params: Params) -> Float[Array, "b k"]:
        """The scores of each image with its own foils."""
        return jax.vmap(lambda image, texts: logits(params, image[None], texts)[0])(images, self.texts)


Loss = Callable[[jax.Array, jax.Array, Params, jax.Array, Foils | None], jax.Array]
"""`loss(images, texts, params, mask, foils)`, a scalar."""


def contrastive_loss(
    images: Float[Array, "b p"],
    texts: Float[Array, "b p"],
    params: Params,
    mask: Bool[Array, "b b"],
    foils: Foils | None = None,
) -> Float[Array, ""]:
    """Symmetric InfoNCE; ln b by chance without foils. Radford et al. 2021, figure 3."""
    b = len(images)
    scores = jnp.where(mask, logits(params, images, texts), -jnp.inf)
    candidates = scores
    if foils is not None:
        candidates = jnp.concatenate([scores, jnp.where(foils.mask, foils.logits(images, params), -jnp.inf)], axis=1)
    to_text = jax.nn.log_softmax(candidates, axis=1)[:, :b]
    to_image = jax.nn.log_softmax(scores, axis=0)
    return -jnp.trace(to_text + to_image) / (2 * b)


def sigmoid_loss(
    images: Float[Array, "b p"],
    texts: Float[Array, "b p"],
    params: Params,
    mask: Bool[Array, "b b"],
    foils: Foils | None = None,
) -> Float[Array, ""]:
    """Every image with every candidate is its own binary classification. Zhai et al. 2023, algorithm 1."""
    sign = 2 * jnp.eye(len(images)) - 1
    log_likelihood = jnp.where(mask, jax.nn.log_sigmoid(sign * logits(params, images, texts)), 0).sum()
    if foils is not None:
        log_likelihood += jnp.where(foils.mask, jax.nn.log_sigmoid(-foils.logits(images, params)), 0).sum()
    return -log_likelihood / len(images)


def is_sigmoid(model: Model, config: ResolvedTrainConfig) -> bool:
    """Whether the loss is the sigmoid loss: as configured, or with "auto" for a model that was trained with it."""
    return config.loss == "sigmoid" or (config.loss == "auto" and model.config.logit_bias)


def duplicate_aware_mask(image_ids: Int[Array, " b"], caption_ids: Int[Array, " b"]) -> Bool[Array, "b b"]:
    """The `mask` in which pairs that share an image or a caption are no negatives of each other.

    Ids are equal where images or captions are.
    """
    same = (caption_ids[:, None] == caption_ids) | (image_ids[:, None] == image_ids)
    return jnp.eye(len(image_ids), dtype=bool) | ~same

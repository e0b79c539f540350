"""Validation: loss and recall on held-out pairs, regression against the start, WiSE-FT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from medclip.data.dataset import Split
from medclip.encode.encoder import embed_pixels, embed_texts
from medclip.errors import WorkError
from medclip.metrics import KS, Estimate, estimate, ranks, recall_at_k
from medclip.model.checkpoint import Model
from medclip.model.towers import AnyArray, Params
from medclip.training.data import SplitImages, decode_into
from medclip.training.losses import Loss, contrastive_loss, hard_targets

MAX_VALIDATION_PAIRS = 2000  # enough for one point of standard error at R@1 = 31 %
ALPHAS = (0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class ValidationSet:
    """Validation pairs decoded for a model; row i of everything is pair i."""

    pixels: UInt8[np.ndarray, "n s s 3"]
    captions: Sequence[str]
    articles: Sequence[str]


def read_validation_set(split: Split, model: Model) -> ValidationSet:
    """The first pairs of the validation split, decoded once and held in memory: 0.3 GB at 224 px."""
    images = SplitImages(split, model.image_processor)
    rows = range(min(MAX_VALIDATION_PAIRS, len(split)))
    pixels = np.empty((len(rows), *images.shape[1:]), np.uint8)
    decode_into(images, pixels)
    return ValidationSet(pixels, split.take("caption", rows), split.take("article", rows))


def validate(
    model: Model,
    validation_set: ValidationSet,
    batch_size: int,
    loss: Loss = contrastive_loss,
    loss_params: Params | None = None,
) -> tuple[dict[str, Any], Int[np.ndarray, "n 2"]]:
    """Loss in batches as in training, recall averaged over both directions, and the ranks of each pair.

    Nothing is augmented. `loss_params` holds what the loss needs beside the model's own parameters. WorkError where
    embeddings are not finite.
    """
    images, texts = embed_pixels(model, validation_set.pixels), embed_texts(model, validation_set.captions)
    if not (np.isfinite(images).all() and np.isfinite(texts).all()):
        raise WorkError("the weights give embeddings that are not finite: start again with a lower --lr.")
    size = min(batch_size, len(images))
    params, targets = model.params | (loss_params or {}), hard_targets(size, size)
    batches = [slice(start, start + size) for start in range(0, len(images) - size + 1, size)]
    losses = [float(loss(jnp.asarray(images[at]), jnp.asarray(texts[at]), params, *targets)) for at in batches]
    pair_ranks = np.stack(ranks(images, texts), axis=1)
    recalls = {f"R@{k}": recall_at_k(pair_ranks, k) for k in KS}
    mean_recall = float(np.mean(list(recalls.values())))
    metrics = {"validation_loss": float(np.mean(losses)), **recalls, "mean_recall": mean_recall}
    return metrics | {"num_candidates": len(images)}, pair_ranks


def recall_change(
    before: Int[np.ndarray, "n 2"], after: Int[np.ndarray, "n 2"], articles: Sequence[str], seed: int
) -> Estimate:
    """Change of the mean recall between two ranks of the same pairs, with its 95 % interval over articles."""
    hits_before, hits_after = (np.mean([pair_ranks <= k for k in KS], axis=(0, 2)) for pair_ranks in (before, after))
    return estimate(hits_after - hits_before, articles, lambda difference: float(difference.mean()), seed)


def wise_ft(
    first: Params, last: Params, evaluate: Callable[[Params], dict[str, Any]]
) -> list[tuple[dict[str, Any], Params]]:
    """Evaluate weights between the first and the last ones (WiSE-FT, Wortsman et al. 2022, equation 1).

    Each record has the weight `alpha` of the last ones.
    """
    results = []
    for alpha in ALPHAS:
        params: Params = {name: _interpolate(first[name], p, alpha) for name, p in last.items()}
        results.append(({"alpha": alpha, **evaluate(params)}, params))
    return results


def _interpolate(first: AnyArray, last: AnyArray, alpha: float) -> jax.Array:
    """`first + alpha (last - first)`; exact, bit for bit, at the last end and where both are equal (-0, denormals)."""
    first, last = jnp.asarray(first), jnp.asarray(last)
    return last if alpha == 1 else jnp.where(first == last, first, first + alpha * (last - first))

"""How good the weights are on pairs that are not trained on, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medclip.data.dataset import Split
from medclip.encode.encoder import embed_pixels, embed_texts
from medclip.metrics import KS, interval, ranks, recall_at_k
from medclip.model.checkpoint import Model
from medclip.model.towers import Params
from medclip.train.data import Pictures, decoded
from medclip.train.losses import contrastive, hard_targets
from medclip.train.step import Loss

VALIDATION_PAIRS = 2000  # enough for one point of standard error at R@1 = 31 %
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class ValidationSet:
    """Validation pairs made ready for a model: pixels u8 (n, s, s, 3), row i of everything being pair i."""

    pixels: np.ndarray
    captions: Sequence[str]
    articles: Sequence[str]


def read_validation_set(split: Split, model: Model) -> ValidationSet:
    """The first pairs of the validation split, decoded once and held in memory: 0.3 GB at 224 px."""
    pictures = Pictures(split, model.preprocessor)
    rows = range(min(VALIDATION_PAIRS, len(split)))
    pixels = decoded(pictures, np.empty((len(rows), *pictures.shape[1:]), np.uint8))
    return ValidationSet(pixels, split.take("caption", rows), split.take("article", rows))


def validate(
    model: Model, unseen: ValidationSet, batch: int, loss: Loss = contrastive, params: Params | None = None
) -> tuple[dict[str, Any], np.ndarray]:
    """Validation loss in batches of `batch`, as in training, recall both ways averaged, and ranks i64 (n, 2).

    Nothing is augmented. `params`, where given, holds what the loss needs beside the model's own.
    """
    images, texts = embed_pixels(model, unseen.pixels), embed_texts(model, unseen.captions)
    size = min(batch, len(images))
    chunks = [slice(start, start + size) for start in range(0, len(images) - size + 1, size)]
    scales = model.params | (params or {})
    losses = [float(loss(images[chunk], texts[chunk], scales, *hard_targets(size, size))) for chunk in chunks]
    found = np.stack(ranks(images, texts), axis=1)
    recalls = {f"R@{k}": recall_at_k(found, k) for k in KS}
    mean = float(np.mean(list(recalls.values())))
    return {"validation_loss": float(np.mean(losses)), **recalls, "mean_recall": mean, "pool": len(images)}, found


def recall_change(before: np.ndarray, now: np.ndarray, articles: Sequence[str], seed: int) -> dict[str, float]:
    """Change of the mean recall from ranks `before` to ranks `now` (n, 2) of the same pairs, with its 95 % interval."""
    hits = [np.mean([found <= k for k in KS], axis=(0, 2)) for found in (before, now)]
    return interval(hits[1] - hits[0], articles, lambda difference: float(difference.mean()), seed)


def wise_ft(
    first: Params, last: Params, measure: Callable[[Params], dict[str, Any]]
) -> list[tuple[dict[str, Any], Params]]:
    """What `measure` says of the weights between the first and the last (WiSE-FT, Wortsman et al. 2022, equation 1).

    Each record has the `share` of the last weights in it.
    """
    found = []
    for share in SHARES:
        params = {name: (1 - share) * first[name] + share * p for name, p in last.items()}
        found.append(({"share": share, **measure(params)}, params))
    return found

"""Pools of towers that do not learn: computed once, and used in every epoch (LiT, Zhai et al. 2022)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

from medclip.data.foils import swap_left_right
from medclip.data.images import mean_std
from medclip.encode.encoder import in_batches, normalize
from medclip.model.checkpoint import Model
from medclip.model.towers import pooled_image_features, pooled_text_features
from medclip.progress import progress
from medclip.train.data import Pictures
from medclip.train.feed import Pairs
from medclip.train.optim import is_frozen


def with_cached_features(pairs: Pairs, model: Model, shares: Mapping[str, float]) -> Pairs:
    """The pairs with pools in place of what a frozen tower would see; `shares` are the tensors' learning rates."""
    if is_frozen(model.config.vision, shares):
        pairs = dataclasses.replace(pairs, images=_image_pools(model, pairs.images))
    if is_frozen(model.config.text, shares):
        pairs = dataclasses.replace(pairs, pools=_text_pools(model, pairs))
    return pairs


def _image_pools(model: Model, pictures: Pictures | np.ndarray) -> np.ndarray:
    mean, std = mean_std(model.preprocessor)
    encode = jax.jit(lambda params, x: pooled_image_features(params, normalize(x, mean, std), model.config))
    with progress("pool of the frozen vision tower", len(pictures), "pictures") as advance:
        return in_batches(lambda x: encode(model.params, x), (pictures,), advance)


def _text_pools(model: Model, pairs: Pairs) -> dict[str, np.ndarray]:
    said = pairs.split.column("caption")
    captions = list(dict.fromkeys([*said, *filter(None, map(swap_left_right, said))]))
    encode = jax.jit(lambda params, ids, valid: pooled_text_features(params, ids, valid, model.config))
    with progress("pool of the frozen text tower", len(captions), "captions") as advance:
        pools = in_batches(lambda *x: encode(model.params, *x), model.tokenizer.encode(captions), advance)
    return dict(zip(captions, pools, strict=True))

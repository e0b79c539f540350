"""Pools of towers that do not learn: computed once, and used in every epoch (LiT, Zhai et al. 2022)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from medclip.data.foils import swap_left_right
from medclip.encode.encoder import caption_features, pixel_features
from medclip.model.checkpoint import Model
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
    with progress("pool of the frozen vision tower", len(pictures), "pictures") as advance:
        return pixel_features(model, pictures, advance)


def _text_pools(model: Model, pairs: Pairs) -> dict[str, np.ndarray]:
    said = pairs.split.column("caption")
    captions = list(dict.fromkeys([*said, *filter(None, map(swap_left_right, said))]))
    with progress("pool of the frozen text tower", len(captions), "captions") as advance:
        pools = caption_features(model, captions, advance)
    return dict(zip(captions, pools, strict=True))

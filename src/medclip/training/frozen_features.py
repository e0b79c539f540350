"""What frozen towers give, computed once before the first step: of images, of augmented views of them, of captions."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
from jaxtyping import Float32

from medclip.data.dataset import Split
from medclip.data.images import decode_ahead
from medclip.encode.decode import BATCH_SIZE
from medclip.encode.encoder import (
    Backend,
    normalize,
    run_in_batches,
    split_pixels,
    stream_captions,
    stream_features,
)
from medclip.encode.feature_cache import digest_of
from medclip.model.checkpoint import Model
from medclip.model.towers import AnyArray, Params, image_features
from medclip.progress import progress
from medclip.training import step
from medclip.training.config import ResolvedTrainConfig


def frozen_images(backend: Backend, split: Split, rows: Sequence[int] | None = None) -> Float32[np.ndarray, "n w"]:
    """The features of a split's images (of `rows`, if given) by a frozen vision tower."""
    with progress("features of the frozen vision tower", len(split if rows is None else rows), "images") as advance:
        return np.concatenate(list(stream_features(backend, split, "images", rows, advance)))


def frozen_views(backend: Backend, split: Split, config: ResolvedTrainConfig) -> Float32[np.ndarray, "n v w"]:
    """Features of `cached_views` augmented views of every image; they follow from the image, the settings and the seed.

    Each step draws one of them, so the views of an epoch are as independent as v allows.
    """
    model, store = backend.model, backend.image_store
    settings = repr((config.min_crop_scale, config.rotation, config.color_jitter)).encode()
    settings += inspect.getsource(step).encode()  # what an augmentation does
    encode = jax.jit(lambda params, pixels, keys: _view_features(model, config, params, pixels, keys))

    def compute(inputs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        arrays = [np.stack(parts) for parts in zip(*inputs, strict=True)]
        return run_in_batches(partial(encode, model.params), arrays, batch_sizes=(BATCH_SIZE,))

    def read(row: int) -> tuple[list[bytes], list[np.ndarray], np.ndarray | None]:
        image = digest_of(split.image(row))
        seeds = [digest_of(image, str((config.seed, view)).encode()) for view in range(config.cached_views)]
        keys = [digest_of(image, seed, settings) for seed in seeds]
        pixels = None if all(key in store for key in keys) else split_pixels(split, row, model.image_processor)
        return keys, [np.frombuffer(seed[:8], np.uint32) for seed in seeds], pixels

    batches = []
    with progress("features of augmented views", len(split), "images") as advance:
        try:
            for rows in decode_ahead(read, range(len(split)), BATCH_SIZE):
                views = [
                    store.complete([row[0][view] for row in rows], [(row[2], row[1][view]) for row in rows], compute)
                    for view in range(config.cached_views)
                ]
                batches.append(np.stack(views, axis=1))
                advance(len(rows))
        finally:
            store.save()
    return np.concatenate(batches)


def _view_features(
    model: Model, config: ResolvedTrainConfig, params: Params, pixels: jax.Array, keys: jax.Array
) -> AnyArray:
    views = step.augment(jax.random.wrap_key_data(keys), pixels, config)
    return image_features(params, normalize(views, model.image_processor), model.config)


def frozen_captions(backend: Backend, captions: Sequence[str]) -> Float32[np.ndarray, "n w"]:
    """The features of captions by a frozen text tower."""
    with progress("features of the frozen text tower", len(captions), "captions") as advance:
        return np.concatenate(list(stream_captions(backend, captions, advance)))

"""What frozen towers give, computed once before the first step: of images, of augmented views of them, of captions.

Of a ViT whose first layers alone are frozen, what these give.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Int, UInt32

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
    tower_batch_size,
)
from medclip.encode.feature_cache import SIZE_VARIABLE, FeatureStore, digest_of, open_store, tower_digest
from medclip.errors import UserError
from medclip.model.checkpoint import Model
from medclip.model.image_processor import ImageProcessor
from medclip.model.shapes_init import in_tower
from medclip.model.towers import AnyArray, Params, image_features, image_tokens
from medclip.progress import progress
from medclip.training import step
from medclip.training.config import ResolvedTrainConfig
from medclip.training.optim import is_frozen, num_frozen_layers


def frozen_images(backend: Backend, split: Split, rows: Sequence[int] | None = None) -> Float32[np.ndarray, "n w"]:
    """The features of a split's images (of `rows`, if given) by a frozen vision tower."""
    with progress("features of the frozen vision tower", len(split if rows is None else rows), "images") as advance:
        return np.concatenate(list(stream_features(backend, split, "images", rows, advance)))


class CachedViews:
    """What frozen layers of the vision tower gave for v views of each of n images, read when it is asked for.

    Of a whole frozen tower it is the features (w,), else the tokens (t, w) after its first `num_layers` layers.
    """

    def __init__(self, store: FeatureStore, keys: Sequence[Sequence[bytes]], num_layers: int | None, width: int):
        self._store, self._keys, self.num_layers, self._width = store, keys, num_layers, width

    def __len__(self) -> int:
        return len(self._keys)

    def draw(self, rows: Int[np.ndarray, "*b"], numbers: UInt32[np.ndarray, "*b"]) -> Float32[np.ndarray, "*b ..."]:
        """One view of each of those images: that of its random number."""
        keys = [self._keys[row] for row in rows.flat]
        features = np.stack([self._store[own[n % len(own)]] for own, n in zip(keys, numbers.flat, strict=True)])
        return features.reshape(*rows.shape, *(() if self.num_layers is None else (-1,)), self._width)


def frozen_views(
    backend: Backend,
    split: Split,
    config: ResolvedTrainConfig,
    scales: Mapping[str, float],
    rows: Sequence[int] | None = None,
) -> CachedViews:
    """What the frozen layers give for `cached_views` augmented views of each image of a split (of `rows`, if given).

    They follow from the image, the settings and the seed. Each step draws one of them, so the views of an epoch are as
    independent as v allows. `scales` are the tensors' learning-rate scales. UserError where no layer is frozen, and
    where the views have no room in the feature cache.
    """
    model, tower = backend.model, backend.model.config.vision
    num_layers = None if is_frozen(tower, scales) else num_frozen_layers(tower, scales)
    if num_layers == 0:
        raise UserError("--cached-views are of frozen layers: --freeze 'vision_model.*', or a ViT's first ones.")
    store = backend.image_store if num_layers is None else _token_store(backend, num_layers, scales)
    encode = jax.jit(lambda params, pixels, keys: _encode_views(model, config, num_layers, params, pixels, keys))

    def compute(inputs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        arrays = [np.stack(parts) for parts in zip(*inputs, strict=True)]
        return run_in_batches(partial(encode, model.params), arrays, (tower_batch_size("images"),))

    rows = range(len(split)) if rows is None else rows
    width = _check_room(store, encode, model, config.cached_views * len(rows))
    read = partial(_read_views, store, split, model.image_processor, *_view_parts(config))
    keys = []
    with progress("features of views", len(rows), "images") as advance:
        try:
            for batch in decode_ahead(read, zip(rows, split.iter_images(rows), strict=True), BATCH_SIZE):
                for view in range(config.cached_views):
                    store.keep([row[0][view] for row in batch], [(row[2], row[1][view]) for row in batch], compute)
                keys += [row[0] for row in batch]
                advance(len(batch))
        finally:
            store.save()
    return CachedViews(store, keys, num_layers, tower.hidden_size if num_layers else width)


def plain_tokens(
    backend: Backend, split: Split, config: ResolvedTrainConfig, scales: Mapping[str, float], rows: Sequence[int]
) -> CachedViews:
    """What the frozen first layers give for the images of `rows` as they are; errors as of `frozen_views`."""
    plain = dataclasses.replace(config, cached_views=1, min_crop_scale=1.0, rotation=0.0, color_jitter=0.0)
    return frozen_views(backend, split, plain, scales, rows)


def _token_store(backend: Backend, num_layers: int, scales: Mapping[str, float]) -> FeatureStore:
    """The store of a tower's first layers, whatever those above them are."""
    model, tower = backend.model, backend.model.config.vision
    frozen = {name: p for name, p in model.params.items() if in_tower(name, tower) and not scales[name]}
    first = dataclasses.replace(tower, num_hidden_layers=num_layers)
    return open_store(lambda: tower_digest(frozen, first, model.image_processor), backend.cache)


def _check_room(store: FeatureStore, encode: Callable[..., Any], model: Model, num_views: int) -> int:
    """The numbers that a view has. UserError where all views are more than the feature cache holds."""
    side = model.image_processor.side
    pixels, key = jax.ShapeDtypeStruct((1, side, side, 3), np.uint8), jax.ShapeDtypeStruct((1, 2), np.uint32)
    size = jax.eval_shape(encode, model.params, pixels, key).size
    if store.folder is not None and 4 * size * num_views > store.max_bytes:
        raise UserError(
            f"--cached-views: {num_views:,} views take {4 * size * num_views / 1e9:,.1f} GB, more than the feature "
            f"cache holds: give fewer, or {SIZE_VARIABLE}, now {store.max_bytes / 1e9:g}."
        )
    return size


def _view_parts(config: ResolvedTrainConfig) -> tuple[list[bytes], bytes]:
    """What tells the views of an image apart, and what decides an augmentation besides its random key."""
    settings = (config.min_crop_scale, config.rotation, config.color_jitter)
    seed = config.seed if settings != (1, 0, 0) else 0  # nothing is random
    views = [str((seed, view)).encode() for view in range(config.cached_views)]
    return views, repr(settings).encode() + inspect.getsource(step).encode()


def _read_views(
    store: FeatureStore,
    split: Split,
    processor: ImageProcessor,
    views: Sequence[bytes],
    augmentation: bytes,
    numbered: tuple[int, bytes],
) -> tuple[list[bytes], list[np.ndarray], np.ndarray | None]:
    """The keys of an image's views, the random keys of these, and its pixels unless all views are in the store."""
    row, content = numbered
    image = digest_of(content)
    seeds = [digest_of(image, view) for view in views]
    keys = [digest_of(image, seed, augmentation) for seed in seeds]
    pixels = None if all(key in store for key in keys) else split_pixels(split, row, processor, content)
    return keys, [np.frombuffer(seed[:8], np.uint32) for seed in seeds], pixels


def _encode_views(
    model: Model,
    config: ResolvedTrainConfig,
    num_layers: int | None,
    params: Params,
    pixels: jax.Array,
    keys: jax.Array,
) -> AnyArray:
    views = normalize(step.augment(jax.random.wrap_key_data(keys), pixels, config), model.image_processor)
    if num_layers is None:
        return image_features(params, views, model.config)
    return image_tokens(params, views, model.config, num_layers).reshape(len(views), -1)


def frozen_captions(backend: Backend, captions: Sequence[str]) -> Float32[np.ndarray, "n w"]:
    """The features of captions by a frozen text tower."""
    with progress("features of the frozen text tower", len(captions), "captions") as advance:
        return np.concatenate(list(stream_captions(backend, captions, advance)))

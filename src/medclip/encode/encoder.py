"""A model at work: images and captions in, unit vectors out, in batches of one compiled shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medclip.data.images import mean_std, preprocess
from medclip.model.checkpoint import Model
from medclip.model.config import ModelConfig
from medclip.model.families import TEXT
from medclip.model.towers import Params, encode_image, encode_text, pooled_image_features
from medclip.progress import Advance

BATCH = 64
SIZES = (1, BATCH)  # the compiled shapes: a query, and everything else


def normalize(pixels: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Pixels u8 (or f32 in 0-255) to the model's input, channel by channel."""
    return (pixels.astype(jnp.float32) / 255 - jnp.array(mean)) / jnp.array(std)


@partial(jax.jit, static_argnames=("config", "mean", "std"))
def _images(params: Params, pixels: jax.Array, config: ModelConfig, mean: tuple, std: tuple) -> jax.Array:
    return encode_image(params, normalize(pixels, mean, std), config)


@partial(jax.jit, static_argnames=("config", "mean", "std"))
def _pools(params: Params, pixels: jax.Array, config: ModelConfig, mean: tuple, std: tuple) -> jax.Array:
    return pooled_image_features(params, normalize(pixels, mean, std), config)


_texts = jax.jit(encode_text, static_argnames="config")


def embed_pixels(
    model: Model, pixels: np.ndarray, advance: Advance | None = None, sizes: Sequence[int] = SIZES
) -> np.ndarray:
    """Unit vectors f32 (n, p) of fitted pixels u8 (n, s, s, 3), in batches of `sizes`: see `batched`."""
    mean, std = mean_std(model.preprocessor)
    return in_batches(lambda x: _images(model.params, x, model.config, mean, std), (pixels,), advance, sizes)


def features_of_pixels(model: Model, pixels: np.ndarray) -> np.ndarray:
    """Pools f32 (n, w), what the vision tower hands to its projection, of fitted pixels u8 (n, s, s, 3)."""
    mean, std = mean_std(model.preprocessor)
    return in_batches(lambda x: _pools(model.params, x, model.config, mean, std), (pixels,), None).astype(np.float32)


def embed_texts(
    model: Model,
    captions: Sequence[str],
    advance: Advance | None = None,
    sizes: Sequence[int] = SIZES,
    lengths: Sequence[int] = (),
) -> np.ndarray:
    """Unit vectors f32 (n, p) of captions, in batches of `sizes`: see `batched`.

    Padding is cut off down to the least of `lengths` (ascending) that holds every caption; each is another compiled
    shape. Of a tower that attends to padding, as SigLIP's, it never is.
    """
    arrays = model.tokenizer.encode(captions)
    if TEXT[model.config.text.model_type].attends != "all":
        longest = int(arrays[1].sum(axis=1).max(initial=0))
        kept = next((length for length in lengths if length >= longest), arrays[1].shape[1])
        arrays = tuple(array[:, :kept] for array in arrays)
    return in_batches(lambda ids, valid: _texts(model.params, ids, valid, config=model.config), arrays, advance, sizes)


def embed_images(model: Model, images: Sequence[bytes | Path], advance: Advance | None = None) -> np.ndarray:
    """Unit vectors f32 (n, p) of encoded images. Raises ImageError at one that cannot be read."""
    found = []
    for vectors in stream_images(images, model.preprocessor, partial(embed_pixels, model)):
        found.append(vectors)
        if advance:
            advance(len(vectors))
    return np.concatenate(found)


def stream_images(
    images: Iterable[bytes | Path], preprocessor: dict[str, Any], embed: Callable[[np.ndarray], np.ndarray]
) -> Iterator[np.ndarray]:
    """What `embed` makes of the fitted pixels of up to BATCH images, batch after batch, in order.

    The next are decoded while one batch is embedded. Raises ImageError at an image that cannot be read.
    """
    left = iter(images)
    with ThreadPoolExecutor() as pool:

        def decoding() -> list[Future]:
            return [pool.submit(preprocess, image, preprocessor) for image in islice(left, BATCH)]

        following = decoding()
        while following:
            batch, following = following, decoding()
            yield embed(np.stack([fitted.result() for fitted in batch]))


def in_batches(
    encode: Callable, arrays: Sequence[np.ndarray], advance: Advance | None, sizes: Sequence[int] = SIZES
) -> np.ndarray:
    """`encode` of rows of arrays (n, …), padded to batches of one compiled shape; `advance` hears of each batch.

    That is the smallest of `sizes` (ascending) that holds all rows, or the largest.
    """
    found = []
    size = next((size for size in sizes if size >= len(arrays[0])), sizes[-1])
    for start in range(0, len(arrays[0]), size):
        parts = [np.asarray(a[start : start + size]) for a in arrays]
        n = len(parts[0])
        padded = [np.concatenate([p, np.repeat(p[-1:], size - n, axis=0)]) if n < size else p for p in parts]
        found.append(np.asarray(encode(*padded))[:n])
        if advance:
            advance(n)
    return np.concatenate(found)

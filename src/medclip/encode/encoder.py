"""A model at work: images and captions in, embeddings out, in batches of few compiled shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt8
from PIL import Image

from medclip.data.dataset import Split
from medclip.data.images import ImageInput
from medclip.encode.decode import BATCH_SIZE, Pixels, decode_pixels, pixel_batches
from medclip.errors import ImageError, UserError, WorkError
from medclip.model.checkpoint import Model
from medclip.model.config import ModelConfig
from medclip.model.image_processor import ImageProcessor
from medclip.model.towers import AnyArray, Params, encode_image, encode_text, image_features, text_features
from medclip.progress import Advance

BATCH_SIZES = (1, BATCH_SIZE)  # compiled ones: a query, and everything else
Kind = Literal["images", "captions"]
Embeddings = Float32[np.ndarray, "n p"]
Features = Float32[np.ndarray, "n w"]


@dataclass(frozen=True)
class Backend:
    """A model and what runs its towers."""

    name: str
    model: Model
    embed_pixels: Callable[[np.ndarray], np.ndarray]
    """Embeddings f32 (n, p) of preprocessed pixels u8 (n, s, s, 3)."""
    embed_texts: Callable[[Sequence[str]], np.ndarray]
    """Embeddings f32 (n, p) of captions."""


def jax_backend(model: Model) -> Backend:
    """A model run by JAX."""
    return Backend("jax", model, partial(embed_pixels, model), partial(embed_texts, model))


def normalize(
    pixels: UInt8[AnyArray, "*b s s 3"] | Float32[AnyArray, "*b s s 3"], processor: ImageProcessor
) -> Float32[Array, "*b s s 3"]:
    """Pixels u8 (or f32 in 0–255) to a tower's input, channel by channel."""
    return (jnp.asarray(pixels).astype(jnp.float32) / 255 - jnp.array(processor.mean)) / jnp.array(processor.std)


def embed_pixels(
    model: Model, pixels: Pixels, advance: Advance | None = None, batch_sizes: Sequence[int] = BATCH_SIZES
) -> Embeddings:
    """Embeddings of preprocessed pixels, in batches of one of `batch_sizes` (see `run_in_batches`)."""

    def encode(x: np.ndarray) -> Array:
        return _encode_image(model.params, x, model.config, model.image_processor)

    return run_in_batches(encode, (pixels,), advance, batch_sizes)


def embed_texts(
    model: Model,
    captions: Sequence[str],
    advance: Advance | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    lengths: Sequence[int] = (),
) -> Embeddings:
    """Embeddings of captions, in batches of one of `batch_sizes` (see `run_in_batches`).

    Padding is cut off down to the least of `lengths` (ascending) that holds every caption; each is another compiled
    shape. It stays where a tower attends to padding, as SigLIP's does.
    """
    if isinstance(captions, str):
        raise TypeError("captions is a single string, not a list of strings")
    if not len(captions):
        return np.zeros((0, model.config.projection_dim), np.float32)
    ids, valid = model.tokenizer.encode(captions)
    if not model.config.text.family.reads_padding:
        end = int(np.flatnonzero(valid.any(axis=0)).max(initial=-1)) + 1  # all of it where padding comes first
        length = next((length for length in lengths if length >= end), ids.shape[1])
        ids, valid = ids[:, :length], valid[:, :length]

    def encode(ids: np.ndarray, valid: np.ndarray) -> Array:
        return _encode_text(model.params, ids, valid, model.config)

    return run_in_batches(encode, (ids, valid), advance, batch_sizes)


def embed_images(
    model: Model, images: Iterable[ImageInput], advance: Advance | None = None, batch_size: int = BATCH_SIZE
) -> Embeddings:
    """Embeddings of images, drawn, decoded and encoded `batch_size` at a time.

    Raises UserError that names the first image that cannot be read, TypeError that names an item that is not an image,
    TypeError for a single image.
    """
    if isinstance(images, str | bytes | Path | Image.Image):
        raise TypeError("images is a single image, not a list of images")
    read_pixels = partial(_named_pixels, processor=model.image_processor)
    batches = pixel_batches(enumerate(images), read_pixels, batch_size)
    embeddings = (embed_pixels(model, pixels, advance, (1, batch_size)) for pixels in batches)
    return _concatenate(embeddings, model.config.projection_dim)


def _named_pixels(item: tuple[int, object], processor: ImageProcessor) -> UInt8[np.ndarray, "s s 3"]:
    position, image = item
    name = str(image) if isinstance(image, str | Path) else f"images[{position}]"
    if not isinstance(image, ImageInput):
        raise TypeError(f"{name} is {type(image).__name__}, not a path, bytes, a PIL image or an array")
    try:
        return decode_pixels(image, processor)
    except ImageError as error:
        raise UserError(f"{name}: {error}.") from None


def embed_split(
    model: Model | Backend, split: Split, kind: Kind, rows: Sequence[int] | None = None, advance: Advance | None = None
) -> Embeddings:
    """Embeddings of the images or captions of a split (of `rows`, if given), in order; errors as in `stream_split`."""
    backend = model if isinstance(model, Backend) else jax_backend(model)
    return _concatenate(stream_split(backend, split, kind, rows, advance), backend.model.config.projection_dim)


def stream_split(
    backend: Backend,
    split: Split,
    kind: Kind,
    rows: Sequence[int] | np.ndarray | None = None,
    advance: Advance | None = None,
) -> Iterator[Embeddings]:
    """Embeddings of the images or captions of a split's rows, batch after batch in order.

    Raises WorkError where an image cannot be read, with its id, and where an embedding is not finite.
    """
    rows = range(len(split)) if rows is None else rows
    if kind == "images":
        read_pixels = partial(split_pixels, split, processor=backend.model.image_processor)
        stream = (backend.embed_pixels(pixels) for pixels in pixel_batches(map(int, rows), read_pixels, BATCH_SIZE))
    else:
        starts = range(0, len(rows), BATCH_SIZE)
        stream = (backend.embed_texts(split.take("caption", rows[at : at + BATCH_SIZE])) for at in starts)
    for embeddings in stream:
        if not np.isfinite(embeddings).all():
            raise WorkError("the model gives embeddings that are not finite: its weights are damaged.")
        yield embeddings
        if advance:
            advance(len(embeddings))


def split_pixels(split: Split, row: int, processor: ImageProcessor) -> UInt8[np.ndarray, "s s 3"]:
    """Pixels of the image of one row. WorkError names its pair where it cannot be read."""
    try:
        return decode_pixels(split.image(row), processor)
    except ImageError as error:
        (id,) = split.take("id", [row])
        raise WorkError(
            f"the image of {id} in split {split.name!r} of {split.folder} cannot be decoded ({error}): "
            "its shard was damaged after it was written. Prepare the dataset again."
        ) from None


def pixel_features(model: Model, pixels: Pixels, advance: Advance | None = None) -> Features:
    """What the vision tower gives before its projection, of preprocessed pixels."""

    def encode(x: np.ndarray) -> AnyArray:
        return _image_features(model.params, x, model.config, model.image_processor)

    return run_in_batches(encode, (pixels,), advance)


def caption_features(model: Model, captions: Sequence[str], advance: Advance | None = None) -> Features:
    """What the text tower gives before its projection, of captions."""
    arrays = model.tokenizer.encode(captions)
    return run_in_batches(lambda ids, valid: _text_features(model.params, ids, valid, model.config), arrays, advance)


def run_in_batches(
    encode: Callable[..., Array | np.ndarray],
    arrays: Sequence[np.ndarray],
    advance: Advance | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
) -> Float32[np.ndarray, "n d"]:
    """`encode` of arrays (n, …), n > 0, padded to batches of one compiled shape; `advance` is called for each batch.

    The shape is the smallest of `batch_sizes` (ascending) that holds all rows, or the largest.
    """
    outputs = []
    size = next((size for size in batch_sizes if size >= len(arrays[0])), batch_sizes[-1])
    for start in range(0, len(arrays[0]), size):
        parts = [np.asarray(a[start : start + size]) for a in arrays]
        n = len(parts[0])
        padded = [np.concatenate([p, np.repeat(p[-1:], size - n, axis=0)]) if n < size else p for p in parts]
        outputs.append(np.asarray(encode(*padded), np.float32)[:n])
        if advance:
            advance(n)
    return np.concatenate(outputs)


def _concatenate(batches: Iterable[np.ndarray], width: int) -> Embeddings:
    return np.concatenate([np.zeros((0, width), np.float32), *batches])  # none at all are (0, p) too


@partial(jax.jit, static_argnames=("config", "processor"))
def _encode_image(params: Params, pixels: jax.Array, config: ModelConfig, processor: ImageProcessor) -> jax.Array:
    return encode_image(params, normalize(pixels, processor), config)


@partial(jax.jit, static_argnames=("config", "processor"))
def _image_features(params: Params, pixels: jax.Array, config: ModelConfig, processor: ImageProcessor) -> AnyArray:
    return image_features(params, normalize(pixels, processor), config)


_encode_text = jax.jit(encode_text, static_argnames="config")
_text_features = jax.jit(text_features, static_argnames="config")

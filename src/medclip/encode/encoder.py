"""A model at work: images and captions in, embeddings out, in batches of few compiled shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt8
from PIL import Image

from medclip.data.dataset import Split
from medclip.data.decode_workers import isolate
from medclip.data.images import decode_ahead
from medclip.data.pixel_arrays import ImageInput
from medclip.encode.caption_lengths import LENGTHS, WINDOW, batch_rows, caption_batches
from medclip.encode.decode import BATCH_SIZE, Pixels, decode_pixels, pixel_batches, query_error
from medclip.encode.feature_cache import FeatureStore, digest_of, open_store, tower_digest
from medclip.errors import ImageError, WorkError
from medclip.model.checkpoint import Model
from medclip.model.config import ModelConfig, TextConfig, VisionConfig
from medclip.model.image_processor import ImageProcessor
from medclip.model.towers import AnyArray, Params, image_features, l2_normalize, project, text_features
from medclip.progress import Advance

T = TypeVar("T")
CachedPixels = tuple[bytes, UInt8[np.ndarray, "s s 3"] | None]
"""The key of an image in the feature cache, and its pixels; None where its features are in there."""
Kind = Literal["images", "captions"]
_CPU_BATCH_SIZES: dict[Kind, int] = {"images": 8, "captions": 16}  # 64 take as long for each, or longer (docs/log.md)
Embeddings = Float32[np.ndarray, "n p"]
Features = Float32[np.ndarray, "n w"]


def tower_batch_size(kind: Kind) -> int:
    """How many a tower takes at once, where there is more than one; fewer are padded to that many."""
    return _CPU_BATCH_SIZES[kind] if jax.default_backend() == "cpu" else BATCH_SIZE


@dataclass(frozen=True)
class Backend:
    """A model and what runs its towers, in padded batches of one shape: a row does not depend on what is beside it."""

    name: str
    model: Model
    image_features: Callable[[np.ndarray], np.ndarray]
    """Features f32 (n, w) of preprocessed pixels u8 (n, s, s, 3)."""
    text_features: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """Features f32 (n, w) of token ids i32 (n, t) and of where these are real tokens."""
    project: Callable[[np.ndarray, VisionConfig | TextConfig], np.ndarray]
    """Embeddings f32 (n, p) of features of a tower."""
    text_lengths: Sequence[int] = ()
    """The lengths that `text_features` takes besides the context length, ascending."""
    cache: bool = False
    """Whether features are read from and saved in the feature cache."""
    version: str = ""
    """Of the library, where it is not JAX."""

    @cached_property
    def image_store(self) -> FeatureStore:
        """The features of images, as far as they are cached."""
        model = self.model
        return open_store(
            lambda: tower_digest(model.params, model.config.vision, model.image_processor, self._engine), self.cache
        )

    @cached_property
    def text_store(self) -> FeatureStore:
        """The features of captions, as far as they are cached."""
        model = self.model
        return open_store(lambda: tower_digest(model.params, model.config.text, engine=self._engine), self.cache)

    @property
    def _engine(self) -> str:
        return f"{self.name} {self.version}".strip()


def jax_backend(model: Model, cache: bool = False) -> Backend:
    """A model run by JAX; with `cache`, the features of what it is given are kept on the disk."""

    def text(ids: np.ndarray, valid: np.ndarray) -> Features:
        return run_in_batches(partial(_run_text, model), (ids, valid), (batch_rows(ids.shape[1]),))

    def image(pixels: np.ndarray) -> Features:
        return run_in_batches(partial(_run_image, model), (pixels,), (tower_batch_size("images"),))

    return Backend("jax", model, image, text, partial(project_features, model), LENGTHS, cache)


def project_features(model: Model, features: Features, tower: VisionConfig | TextConfig) -> Embeddings:
    """Embeddings of a tower's features."""
    return run_in_batches(partial(_embed, model.params, tower=tower), (features,), (BATCH_SIZE,))


def normalize(
    pixels: UInt8[AnyArray, "*b s s 3"] | Float32[AnyArray, "*b s s 3"], processor: ImageProcessor
) -> Float32[Array, "*b s s 3"]:
    """Pixels u8 (or f32 in 0–255) to a tower's input, channel by channel."""
    return (jnp.asarray(pixels).astype(jnp.float32) / 255 - jnp.array(processor.mean)) / jnp.array(processor.std)


def embed_pixels(
    model: Model, pixels: Pixels, advance: Advance | None = None, batch_sizes: Sequence[int] | None = None
) -> Embeddings:
    """Embeddings of preprocessed pixels, in batches of one of `batch_sizes` (see `run_in_batches`).

    By default these are 1 and `tower_batch_size`.
    """

    def encode(x: np.ndarray) -> Array:
        return _embed(model.params, _run_image(model, x), tower=model.config.vision)

    return run_in_batches(encode, (pixels,), batch_sizes or (1, tower_batch_size("images")), advance)


def embed_texts(
    model: Model,
    captions: Sequence[str],
    batch_sizes: Sequence[int] | None = None,
    lengths: Sequence[int] = LENGTHS,
) -> Embeddings:
    """Embeddings of a few captions, in as little time as they allow; of many see `embed_captions`.

    Those that need the same of `lengths` (see `caption_batches`) are encoded together, in batches of one of
    `batch_sizes` (see `run_in_batches`; by default 1 and `tower_batch_size`), or of `batch_rows` where that is less.
    Each pair of both is another compiled shape, in which a component differs by 1e-6 at most.
    """
    if isinstance(captions, str):
        raise TypeError("captions is a single string, not a list of strings")
    embeddings = np.zeros((len(captions), model.config.projection_dim), np.float32)
    if not len(captions):
        return embeddings
    ids, valid = model.tokenizer.encode(captions)

    def encode(ids: np.ndarray, valid: np.ndarray) -> Array:
        return _embed(model.params, _run_text(model, ids, valid), tower=model.config.text)

    for rows, length in caption_batches(ids, valid, model.config.text, lengths):
        sizes = [min(size, batch_rows(length)) for size in batch_sizes or (1, tower_batch_size("captions"))]
        embeddings[rows] = run_in_batches(encode, (ids[rows, :length], valid[rows, :length]), sizes)
    return embeddings


def embed_images(model: Model, images: Iterable[ImageInput], batch_size: int | None = None) -> Embeddings:
    """Embeddings of images, drawn, decoded and encoded `batch_size` at a time, by default `tower_batch_size`.

    Raises UserError that names the first image that cannot be read, TypeError that names an item that is not an image,
    TypeError for a single image.
    """
    if isinstance(images, str | bytes | Path | Image.Image):
        raise TypeError("images is a single image, not a list of images")
    read_pixels = partial(_named_pixels, processor=model.image_processor)
    batch_size = batch_size or tower_batch_size("images")
    batches = pixel_batches(enumerate(images), read_pixels, batch_size)
    embeddings = (embed_pixels(model, pixels, batch_sizes=(1, batch_size)) for pixels in batches)
    return _concatenate(embeddings, model.config.projection_dim)


def _named_pixels(item: tuple[int, object], processor: ImageProcessor) -> UInt8[np.ndarray, "s s 3"]:
    position, image = item
    name = str(image) if isinstance(image, str | Path) else f"images[{position}]"
    if not isinstance(image, ImageInput):
        raise TypeError(f"{name} is {type(image).__name__}, not a path, bytes, a PIL image or an array")
    try:
        if isinstance(image, str | bytes | Path):
            return isolate(decode_pixels, image, processor)
        return decode_pixels(image, processor)
    except ImageError as error:
        raise query_error(name, error) from None


def embed_split(
    model: Model | Backend, split: Split, kind: Kind, rows: Sequence[int] | None = None, advance: Advance | None = None
) -> Embeddings:
    """Embeddings of the images or captions of a split (of `rows`, if given), in order; errors as in `stream_split`."""
    backend = model if isinstance(model, Backend) else jax_backend(model)
    return _concatenate(stream_split(backend, split, kind, rows, advance), backend.model.config.projection_dim)


def embed_captions(backend: Backend, captions: Sequence[str], advance: Advance | None = None) -> Embeddings:
    """Embeddings of captions, in order; one does not depend on what is beside it, to the last bit."""
    streamed, config = stream_captions(backend, captions, advance), backend.model.config
    return _concatenate((backend.project(x, config.text) for x in streamed), config.projection_dim)


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
    tower = backend.model.config.vision if kind == "images" else backend.model.config.text
    for features in stream_features(backend, split, kind, rows, advance):
        embeddings = backend.project(features, tower)
        if not np.isfinite(embeddings).all():
            raise WorkError("the model gives embeddings that are not finite: its weights are damaged.")
        yield embeddings


def stream_features(
    backend: Backend,
    split: Split,
    kind: Kind,
    rows: Sequence[int] | np.ndarray | None = None,
    advance: Advance | None = None,
) -> Iterator[Features]:
    """What a tower gives before its projection, of a split's rows, batch after batch in order; cached where it can be.

    Raises WorkError where an image cannot be read, with its id.
    """
    rows = range(len(split)) if rows is None else rows
    if kind == "images":
        read = partial(read_split_image, split, processor=backend.model.image_processor, stores=[backend.image_store])
        images = zip(map(int, rows), split.iter_images(map(int, rows)), strict=True)
        yield from stream_images(backend, images, read, advance)
    else:
        windows = (split.take("caption", rows[at : at + WINDOW]) for at in range(0, len(rows), WINDOW))
        yield from stream_captions(backend, chain.from_iterable(windows), advance)


def stream_images(
    backend: Backend, images: Iterable[T], read: Callable[[T], CachedPixels], advance: Advance | None = None
) -> Iterator[Features]:
    """Features of images, batch after batch in order; `read` gives an image's key, and its pixels if not cached."""
    try:
        for batch in decode_ahead(read, images, BATCH_SIZE):
            yield image_batch(backend, batch)
            if advance:
                advance(len(batch))
    finally:
        backend.image_store.save()


def image_batch(backend: Backend, batch: Sequence[CachedPixels]) -> Features:
    """Features of a batch of images, of which those without pixels are in the cache."""
    keys, pixels = zip(*batch, strict=True)
    return backend.image_store.complete(keys, pixels, lambda missing: backend.image_features(np.stack(missing)))


def stream_captions(backend: Backend, captions: Iterable[str], advance: Advance | None = None) -> Iterator[Features]:
    """Features of captions in order, as many of them at a time as are put in order of their length."""
    remaining = iter(captions)
    try:
        while window := list(islice(remaining, WINDOW)):
            yield caption_features(backend, window, advance)
    finally:
        backend.text_store.save()


def caption_features(backend: Backend, captions: Sequence[str], advance: Advance | None = None) -> Features:
    """Features of captions, n > 0, in order; equal ones, by the token ids that the tower is given, are encoded once."""
    store = backend.text_store
    ids, valid = backend.model.tokenizer.encode(captions)
    keys = [digest_of(*tokens) for tokens in zip(ids, valid, strict=True)]
    features = {key: store[key] for key in keys if key in store}
    missing = np.array([*{key: row for row, key in enumerate(keys) if key not in features}.values()], int)
    if advance:
        advance(len(keys) - len(missing))

    def encode(rows: list[int], length: int) -> Features:
        return backend.text_features(ids[rows, :length], valid[rows, :length])

    for part, length in caption_batches(ids[missing], valid[missing], backend.model.config.text, backend.text_lengths):
        rows = missing[part].tolist()
        new = [keys[row] for row in rows]
        features |= zip(new, store.complete(new, rows, partial(encode, length=length)), strict=True)
        if advance:
            advance(len(rows))
    return np.stack([features[key] for key in keys])


def read_split_image(
    split: Split, numbered: tuple[int, bytes], processor: ImageProcessor, stores: Sequence[FeatureStore]
) -> CachedPixels:
    """The key of a row's image, and its pixels unless every store has its features; errors as in `split_pixels`."""
    row, image = numbered
    key = digest_of(image)
    return key, None if all(key in store for store in stores) else split_pixels(split, row, processor, image)


def split_pixels(
    split: Split, row: int, processor: ImageProcessor, image: bytes | None = None
) -> UInt8[np.ndarray, "s s 3"]:
    """Pixels of the image of one row, read unless it is given. WorkError names its pair where it cannot be read."""
    return split.read_image(row, partial(decode_pixels, processor=processor), image)


def run_in_batches(
    encode: Callable[..., Array | np.ndarray],
    arrays: Sequence[np.ndarray],
    batch_sizes: Sequence[int],
    advance: Advance | None = None,
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


def _run_image(model: Model, pixels: np.ndarray) -> AnyArray:
    return _image_features(model.params, pixels, model.config, model.image_processor)


def _run_text(model: Model, ids: np.ndarray, valid: np.ndarray) -> AnyArray:
    return _text_features(model.params, ids, valid, model.config)


@partial(jax.jit, static_argnames=("config", "processor"))
def _image_features(params: Params, pixels: jax.Array, config: ModelConfig, processor: ImageProcessor) -> AnyArray:
    return image_features(params, normalize(pixels, processor), config)


@partial(jax.jit, static_argnames="tower")
def _embed(params: Params, features: jax.Array, tower: VisionConfig | TextConfig) -> jax.Array:
    return l2_normalize(project(params, features, tower))


_text_features = jax.jit(text_features, static_argnames="config")

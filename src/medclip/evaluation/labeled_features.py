"""Features of labeled images: each image decoded once for all encoders, unreadable ones counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from medclip.bounded_files import TooLargeError, read_bounded
from medclip.data.decode_workers import isolate
from medclip.data.images import decode_ahead
from medclip.data.paths import special_kind
from medclip.data.sources.image_cells import MAX_MEMBER_BYTES
from medclip.data.sources.labeled_sets import LabeledImage
from medclip.encode.decode import BATCH_SIZE, decode_pixels
from medclip.encode.encoder import Backend, CachedPixels, image_batch
from medclip.encode.feature_cache import FeatureStore, digest_of
from medclip.errors import ImageError, UserError, WorkError
from medclip.evaluation.labeled import Labeled
from medclip.model.checkpoint import Model
from medclip.model.image_processor import ImageProcessor
from medclip.model.shapes_init import init_params
from medclip.progress import progress


def encode_labeled(
    images: Labeled, backends: Sequence[Backend], project: bool
) -> tuple[Labeled, list[Float32[np.ndarray, "n w"]]]:
    """The images that can be read, and what each model makes of them: embeddings, or without `project` features.

    The models have one image processor.

    UserError where none can be read, WorkError where a model gives values that are not finite.
    """
    reasons: list[str | None] = []
    outputs: list[list[np.ndarray]] = [[] for _ in backends]
    read = partial(_read_image, processor=backends[0].model.image_processor, stores=[b.image_store for b in backends])
    with progress(f"embed {images.name}", len(images), "images") as advance:
        for batch in decode_ahead(read, images.rows, BATCH_SIZE):
            reasons += [result if isinstance(result, str) else None for result in batch]
            if pixels := [result for result in batch if not isinstance(result, str)]:
                for parts, backend in zip(outputs, backends, strict=True):
                    values = image_batch(backend, pixels)
                    parts.append(backend.project(values, backend.model.config.vision) if project else values)
            advance(len(batch))
    for backend in backends:
        backend.image_store.save()
    readable = images.exclude(lambda i: reasons[i])
    if not len(readable):
        raise UserError(f"no image of {images.dataset['source']}, {images.name}, can be read: {readable.excluded}.")
    features = [np.concatenate(parts) for parts in outputs]
    if not all(np.isfinite(values).all() for values in features):
        raise WorkError("the model gives vectors that are not finite: its weights are damaged.")
    return readable, features


def _read_image(row: LabeledImage, processor: ImageProcessor, stores: Sequence[FeatureStore]) -> CachedPixels | str:
    """An image as `stream_images` takes it, or the reason why it cannot be read."""
    if isinstance(row.image, Path) and (kind := special_kind(row.image)):
        return kind
    try:
        image = row.image if isinstance(row.image, bytes) else read_bounded(row.image, MAX_MEMBER_BYTES)
        key = digest_of(image)
    except (OSError, TooLargeError):
        image, key = row.image, b""  # in no store: decoding finds the reason
    if all(key in store for store in stores):
        return key, None
    try:
        return key, isolate(decode_pixels, image, processor)
    except ImageError as error:
        return str(error)


def with_random_weights(model: Model, seed: int) -> Model:
    """The same architecture, tokenizer and image processor with fresh weights, as a baseline."""
    fresh = {name: jnp.asarray(value) for name, value in init_params(model.config, seed).items()}
    return dataclasses.replace(model, params=fresh)

"""Features of labeled images: each image decoded once for all encoders, unreadable ones counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from medclip.data.images import decode_ahead
from medclip.data.sources.labeled_sets import LabeledImage
from medclip.encode.decode import BATCH_SIZE, decode_pixels
from medclip.errors import ImageError, UserError, WorkError
from medclip.evaluation.labeled import Labeled
from medclip.model.checkpoint import Model
from medclip.model.image_processor import ImageProcessor
from medclip.model.shapes_init import init_params
from medclip.progress import progress

Encoder = Callable[[np.ndarray], np.ndarray]
"""Features f32 (n, w) of pixels u8 (n, s, s, 3)."""


def encode_labeled(
    images: Labeled, processor: ImageProcessor, encoders: Sequence[Encoder]
) -> tuple[Labeled, list[Float32[np.ndarray, "n w"]]]:
    """The images that can be read, and the features that each encoder makes of them.

    UserError where none can be read, WorkError where an encoder gives values that are not finite.
    """
    reasons: list[str | None] = []
    outputs: list[list[np.ndarray]] = [[] for _ in encoders]
    with progress(f"embed {images.name}", len(images), "images") as advance:
        for batch in decode_ahead(lambda row: _pixels_or_reason(row, processor), images.rows, BATCH_SIZE):
            reasons += [result if isinstance(result, str) else None for result in batch]
            if pixels := [result for result in batch if not isinstance(result, str)]:
                for parts, encode in zip(outputs, encoders, strict=True):
                    parts.append(encode(np.stack(pixels)))
            advance(len(batch))
    readable = images.exclude(lambda i: reasons[i])
    if not len(readable):
        raise UserError(f"no image of {images.dataset['source']}, {images.name}, can be read: {readable.excluded}.")
    features = [np.concatenate(parts) for parts in outputs]
    if not all(np.isfinite(values).all() for values in features):
        raise WorkError("the model gives vectors that are not finite: its weights are damaged.")
    return readable, features


def _pixels_or_reason(row: LabeledImage, processor: ImageProcessor) -> np.ndarray | str:
    try:
        return decode_pixels(row.image, processor)
    except ImageError as error:
        return str(error)


def with_random_weights(model: Model, seed: int) -> Model:
    """The same architecture, tokenizer and image processor with fresh weights, as a baseline."""
    fresh = {name: jnp.asarray(value) for name, value in init_params(model.config, seed).items()}
    return dataclasses.replace(model, params=fresh)

"""What encoders make of labeled images: each decoded once, those that cannot be read counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from medclip.data.images import decode_ahead
from medclip.encode.decode import BATCH_SIZE, decode_pixels
from medclip.errors import ImageError, UserError, WorkError
from medclip.evaluate.labeled import Labeled, Row
from medclip.model.checkpoint import Model
from medclip.model.shapes_init import init_params
from medclip.progress import progress


def encoded(
    found: Labeled, preprocessor: Mapping[str, Any], encoders: Sequence[Callable[[np.ndarray], np.ndarray]]
) -> tuple[Labeled, list[np.ndarray]]:
    """The images that can be read, and what each encoder makes of their pixels u8 (n, s, s, 3): f32 (n, …).

    UserError where none can be read, WorkError where an encoder makes values that are not finite.
    """
    reasons: list[str | None] = []
    made: list[list[np.ndarray]] = [[] for _ in encoders]
    with progress(f"embed {found.name}", len(found), "pictures") as advance:
        for fitted in decode_ahead(lambda row: _fitted(row, preprocessor), found.rows, BATCH_SIZE):
            reasons += [why if isinstance(why, str) else None for why in fitted]
            if pixels := [one for one in fitted if not isinstance(one, str)]:
                for parts, encode in zip(made, encoders, strict=True):
                    parts.append(encode(np.stack(pixels)))
            advance(len(fitted))
    kept = found.without(lambda i: reasons[i])
    if not len(kept):
        raise UserError(f"no image of {found.dataset['source']}, {found.name}, can be read: {kept.left_out}.")
    features = [np.concatenate(parts) for parts in made]
    if not all(np.isfinite(of).all() for of in features):
        raise WorkError("the model makes vectors that are not finite: its weights are damaged.")
    return kept, features


def _fitted(row: Row, preprocessor: Mapping[str, Any]) -> np.ndarray | str:
    try:
        return decode_pixels(row.image, preprocessor)
    except ImageError as error:
        return str(error)


def with_random_weights(model: Model, seed: int) -> Model:
    """The same architecture, tokens and preprocessor with fresh weights: what its structure alone gives."""
    fresh = {name: jnp.asarray(value) for name, value in init_params(model.config, seed).items()}
    return dataclasses.replace(model, params=fresh)

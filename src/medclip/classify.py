"""Which of some classes a picture shows, by their names alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from medclip.data.refused import ImageError
from medclip.encoder import embed_images
from medclip.errors import UserError
from medclip.evaluate.calibration import softmax
from medclip.evaluate.prompts import read_prompts
from medclip.evaluate.zero_shot import class_vectors
from medclip.model.hub import Model
from medclip.model.towers import logits

MOST = 100  # classes: each is said in several ways


def classify(
    model: Model, images: Sequence[bytes | Path], classes: Sequence[str], label: str = "default"
) -> np.ndarray:
    """Probabilities f64 (n, k) of pictures among classes, in their order; a row sums to 1, whatever is shown.

    Classes are said in the ways of `prompts/radiology.toml` for this label, as `medclip evaluate zero-shot` says them.
    UserError where there are fewer than two classes, more than MOST, an empty or repeated one, or a picture cannot be
    read.
    """
    if not 2 <= len(classes) <= MOST:
        raise UserError(f"give 2 to {MOST} classes to tell apart; there were {len(classes)}.")
    if not all(name.strip() for name in classes) or len({name.strip().lower() for name in classes}) < len(classes):
        raise UserError("a class is empty or was given twice.")
    said = read_prompts(None, label, several=False)
    texts = class_vectors(model, [said.of(name) for name in classes])
    try:
        vectors = embed_images(model, images)
    except ImageError as error:
        raise UserError(f"the picture: {error}.") from None
    return softmax(np.asarray(logits(model.params, jnp.asarray(vectors), jnp.asarray(texts)), np.float64))

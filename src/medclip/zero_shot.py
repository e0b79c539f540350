"""Which of some classes an image shows, by their names alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import softmax

from medclip.encode.encoder import embed_texts
from medclip.errors import UserError, WorkError
from medclip.model.checkpoint import Model
from medclip.model.towers import logits
from medclip.prompts import PLACE, read_prompts

MOST = 100  # classes: each is said in several ways


def classify(
    model: Model,
    images: np.ndarray,
    classes: Sequence[str],
    label: str = "default",
    texts: Callable[[Model, Sequence[str]], np.ndarray] = embed_texts,
    templates: Sequence[str] = (),
) -> np.ndarray:
    """Probabilities f64 (n, k) of images, unit vectors f32 (n, p), among classes; a row sums to 1, whatever is shown.

    Classes are said in the ways of `prompts/radiology.toml` for this label, as `medclip evaluate zero-shot` says them,
    or by `templates`, and `texts` makes unit vectors of that. UserError where there are fewer than two classes, more
    than MOST, or an empty or repeated one.
    """
    if not 2 <= len(classes) <= MOST:
        raise UserError(f"give 2 to {MOST} classes to tell apart; there were {len(classes)}.")
    if not all(name.strip() for name in classes) or len({name.strip().lower() for name in classes}) < len(classes):
        raise UserError("a class is empty or was given twice.")
    said = read_prompts(None, label, several=False)
    if templates:
        if bad := [template for template in templates if template.count(PLACE) != 1]:
            raise UserError(f"template {bad[0]!r} must hold {PLACE} once, where the name of a class goes.")
        said = replace(said, templates=tuple(templates))
    means = class_embeddings(model, [said.of(name) for name in classes], texts)
    # in numpy: any number of classes would be another shape to compile
    params = {name: np.asarray(model.params[name]) for name in ("logit_scale", "logit_bias") if name in model.params}
    return softmax(np.asarray(logits(params, images, means), np.float64), axis=1)


def class_embeddings(
    model: Model, texts: Sequence[Sequence[str]], embed: Callable[[Model, Sequence[str]], np.ndarray] = embed_texts
) -> np.ndarray:
    """For the texts of each class the mean of their unit vectors, of length 1 again: f32 (k, p).

    Radford et al. 2021, section 3.1.4. WorkError where there is none, as with vectors that are not finite.
    """
    vectors = embed(model, [text for of in texts for text in of])
    ends = np.cumsum([len(of) for of in texts])[:-1]
    means = np.stack([part.mean(axis=0) for part in np.split(vectors, ends)])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    if not (np.isfinite(means).all() and lengths.all()):
        raise WorkError("the model makes text vectors without a direction; its weights are damaged.")
    return means / lengths

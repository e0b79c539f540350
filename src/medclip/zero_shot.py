"""Zero-shot classification: which of some classes an image shows, by their names alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32, Float64
from scipy.special import softmax

from medclip.encode.encoder import embed_texts
from medclip.errors import UserError, WorkError
from medclip.model.checkpoint import Model
from medclip.model.towers import Params, logits
from medclip.prompts import PLACEHOLDER, read_prompts

MAX_CLASSES = 100  # each has several prompts
EmbedTexts = Callable[[Model, Sequence[str]], np.ndarray]


def classify(
    model: Model,
    embeddings: Float32[np.ndarray, "n p"],
    classes: Sequence[str],
    label: str = "default",
    embed: EmbedTexts = embed_texts,
    templates: Sequence[str] = (),
) -> Float64[np.ndarray, "n k"]:
    """Probabilities of classes for the embeddings of images. A row sums to 1, even where none of them is shown.

    A class is embedded by the prompts of `prompts/radiology.toml` for this label, as in `medclip evaluate zero-shot`,
    or by `templates`; `embed` gives their embeddings. Raises UserError for fewer than two classes, more than
    MAX_CLASSES, an empty one, or two of the same prompts.
    """
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise UserError(f"give 2 to {MAX_CLASSES} classes; there were {len(classes)}.")
    if not all(name.strip() for name in classes):
        raise UserError("a class is empty.")
    prompts = read_prompts(None, label, multilabel=False)
    if templates:
        if wrong := [template for template in templates if template.count(PLACEHOLDER) != 1]:
            raise UserError(f"template {wrong[0]!r} must hold {PLACEHOLDER} once, where the name of a class goes.")
        prompts = replace(prompts, templates=tuple(templates), negated_templates=())
    texts = [prompts.affirm(name) for name in classes]
    check_distinct(classes, texts)
    means = class_embeddings(model, texts, embed)
    # in numpy: any number of classes would be another shape to compile
    scales: Params = {
        name: np.asarray(model.params[name]) for name in ("logit_scale", "logit_bias") if name in model.params
    }
    return softmax(np.asarray(logits(scales, embeddings, means), np.float64), axis=1)


def check_distinct(classes: Sequence[str], texts: Sequence[Sequence[str]]) -> None:
    """UserError where two classes have the same texts, as "Pleural_Effusion" and "pleural effusion"."""
    class_of: dict[tuple[str, ...], str] = {}
    for name, own in zip(classes, texts, strict=True):
        if tuple(own) in class_of:
            raise UserError(f"classes {class_of[tuple(own)]!r} and {name!r} have the same prompts: give them one name.")
        class_of[tuple(own)] = name


def class_embeddings(
    model: Model, texts: Sequence[Sequence[str]], embed: EmbedTexts = embed_texts
) -> Float32[np.ndarray, "k p"]:
    """The mean embedding of the texts of each class (Radford et al. 2021, section 3.1.4); see `mean_directions`."""
    embeddings = embed(model, [text for class_texts in texts for text in class_texts])
    ends = np.cumsum([len(class_texts) for class_texts in texts])[:-1]
    return mean_directions(np.split(embeddings, ends))


def mean_directions(parts: Sequence[Float[np.ndarray, "_ p"]]) -> Float[np.ndarray, "k p"]:
    """The mean of the rows of each part, at unit length.

    Raises WorkError where one has no direction or is not finite.
    """
    means = np.stack([part.mean(axis=0) for part in parts])
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    if not (np.isfinite(means).all() and norms.all()):
        raise WorkError("the model gives text embeddings without a direction: its weights are damaged.")
    return means / norms

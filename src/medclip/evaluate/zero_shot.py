"""Classes told apart by their names alone: an image against the vectors of what is said for each class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from medclip.encode.encoder import embed_pixels
from medclip.errors import UserError
from medclip.evaluate.calibration import calibration
from medclip.evaluate.classification_metrics import FIGURES, THRESHOLD, any_of, one_of, predicted
from medclip.evaluate.config import EvalConfig
from medclip.evaluate.labeled import LabelConfig, Labeled, measured_rows
from medclip.evaluate.labeled_features import encoded, with_random_weights
from medclip.evaluate.results import provenance, write_results
from medclip.model.checkpoint import Model, load
from medclip.model.towers import logits
from medclip.prompts import Prompts, read_prompts
from medclip.zero_shot import class_embeddings


def evaluate_zero_shot(subject: EvalConfig, task: LabelConfig, prompts: Path | None = None) -> dict[str, Any]:
    """Measure how well the classes of a label are told apart by prompts, each image by the most probable class.

    Where images can have several values, each is judged for itself, by prompts that affirm and deny it.
    """
    found = measured_rows(subject, task)
    classes = task.among(found.classes)
    if len(classes) < (1 if found.several else 2):
        shown = f"one class only, {classes[0]!r}" if classes else "no class"
        raise UserError(f"{subject.data} shows {shown}: there is nothing to tell apart.")
    said = read_prompts(prompts, found.label, found.several)
    models = [load(subject.model)]
    models += [with_random_weights(models[0], subject.seed)] if task.random_weights else []
    judge = _findings if found.several else _exclusive
    texts = [_class_embeddings(model, said, classes, found.several) for model in models]
    found, pictures = encoded(found, models[0].preprocessor, [partial(embed_pixels, model) for model in models])
    (figures, items), *others = (
        judge(model, images, *of, found, classes, subject.seed)
        for model, images, of in zip(models, pictures, texts, strict=True)
    )
    results = {
        "task": "findings" if found.several else "classes",
        "label": found.label,
        "pictures": len(found),
        "left_out": found.left_out,
        **figures,
        "random_weights": _beside(others[0][0]) if others else None,
        "prompts": {name: said.of(name) + (said.against(name) if found.several else []) for name in classes},
        **provenance(subject, found),
    }
    kept = {"id": [row.id for row in found.rows], "article": found.articles, **items}
    return write_results(subject.out, "zero-shot", results, kept)


def _class_embeddings(model: Model, said: Prompts, classes: Sequence[str], several: bool) -> list[np.ndarray]:
    """Of what affirms each class, and where images can have several values of what denies it."""
    ways = (said.of, said.against) if several else (said.of,)
    return [class_embeddings(model, [way(name) for name in classes]) for way in ways]


def _exclusive(
    model: Model, images: np.ndarray, texts: np.ndarray, found: Labeled, classes: list[str], seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures and items where each image is of one class; probabilities are the softmax of scaled cosines."""
    scaled = _scaled(model, images, texts)
    truth = np.array([classes.index(values[0]) for values in found.labels])
    probabilities = softmax(scaled, axis=1)
    chosen = predicted(probabilities, truth)
    figures = one_of(probabilities, truth, classes, found.articles, seed)
    figures["calibration"] = calibration(scaled, truth, chosen == truth, found.articles, seed)
    return figures, {
        "label": [classes[c] for c in truth],
        "predicted": [classes[c] for c in chosen],
        "correct": (chosen == truth).astype(float),
        "probability": probabilities[np.arange(len(truth)), truth],
    }


def _findings(
    model: Model, images: np.ndarray, texts: np.ndarray, denials: np.ndarray, found: Labeled, classes: list[str],
    seed: int,
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """Figures and items where an image shows any of the findings.

    The probability of a finding is the softmax over what affirms and what denies it (Tiu et al. 2022). Of an item,
    `correct` is the share of findings that are judged rightly, `probability` the mean that the truth was given.
    """
    there = np.array([[name in values for name in classes] for values in found.labels])
    both = np.stack([_scaled(model, images, denials), _scaled(model, images, texts)], axis=2)
    probabilities = softmax(both.reshape(-1, 2), axis=1).reshape(both.shape)[:, :, 1]
    called = probabilities > THRESHOLD
    return any_of(probabilities, there, classes, found.articles, seed), {
        "label": _joined(there, classes),
        "predicted": _joined(called, classes),
        "correct": (called == there).mean(axis=1),
        "probability": np.where(there, probabilities, 1 - probabilities).mean(axis=1),
    }


def _scaled(model: Model, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    return np.asarray(logits(model.params, jnp.asarray(images), jnp.asarray(texts)), np.float64)


def _joined(marked: np.ndarray, classes: list[str]) -> list[str]:
    return [";".join(classes[c] for c in np.flatnonzero(row)) for row in marked]


def _beside(figures: dict[str, Any]) -> dict[str, Any]:
    """What stands beside the measured model, of another one."""
    return {name: figures[name] for name in FIGURES if name in figures}

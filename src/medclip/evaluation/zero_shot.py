"""Zero-shot classification: images against the text embeddings of class prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from medclip.encode.encoder import embed_pixels
from medclip.errors import UserError
from medclip.evaluation.calibration import calibration
from medclip.evaluation.classification_metrics import (
    DECISION_THRESHOLD,
    MACRO_METRICS,
    confusions,
    exclusive_facts,
    exclusive_metrics,
    majority_facts,
    multilabel_facts,
    multilabel_metrics,
    predict,
)
from medclip.evaluation.config import EvalConfig
from medclip.evaluation.labeled import LabelConfig, Labeled, labeled_rows
from medclip.evaluation.labeled_features import encode_labeled, with_random_weights
from medclip.evaluation.results import (
    ConfusionMatrix,
    Fact,
    Kind,
    Metric,
    ReliabilityCurve,
    Results,
    metric_name,
    provenance,
    write_results,
)
from medclip.model.checkpoint import Model, load
from medclip.model.towers import logits
from medclip.prompts import Prompts, read_prompts
from medclip.zero_shot import class_embeddings

COLUMN = "correct"


@dataclass(frozen=True)
class _Scores:
    """Metrics, facts and items of one model's probabilities."""

    metrics: list[Metric]
    facts: dict[str, Fact]
    items: dict[str, list[str] | np.ndarray]
    confusion_matrices: tuple[ConfusionMatrix, ...] = ()
    reliability_curves: tuple[ReliabilityCurve, ...] = ()


def evaluate_zero_shot(config: EvalConfig, labels: LabelConfig, prompts: Path | None = None) -> Results:
    """Measure how well prompts tell the classes of a label apart, each image by the most probable class.

    Where images can have several values, each is judged for itself, by prompts that affirm and deny it.
    """
    images = labeled_rows(config, labels)
    classes = labels.choose(images.classes)
    if len(classes) < (1 if images.multilabel else 2):
        shown = f"one class only, {classes[0]!r}" if classes else "no class"
        raise UserError(f"{config.data} shows {shown}: there is nothing to tell apart.")
    class_prompts = read_prompts(prompts, images.label, images.multilabel)
    models = [load(config.model)]
    models += [with_random_weights(models[0], config.seed)] if labels.random_weights else []
    texts = [_class_embeddings(model, class_prompts, classes, images.multilabel) for model in models]
    images, embeddings = encode_labeled(images, models[0].image_processor, [partial(embed_pixels, m) for m in models])
    score = _score_findings if images.multilabel else _score_classes
    scores, *others = (
        score(model, image_embeddings, text_embeddings, images, classes, config.seed)
        for model, image_embeddings, text_embeddings in zip(models, embeddings, texts, strict=True)
    )
    by_class = {name: class_prompts.affirm(name) for name in classes}
    if images.multilabel:
        by_class = {name: affirmed + class_prompts.deny(name) for name, affirmed in by_class.items()}
    results = Results(
        kind=Kind.ZERO_SHOT,
        metrics=(*scores.metrics, *(m for other in others for m in _of_random_weights(other.metrics))),
        facts={
            "task": "findings" if images.multilabel else "classes",
            "label": images.label,
            "num_images": len(images),
            **{metric_name("excluded", reason): n for reason, n in images.excluded.items()},
            **scores.facts,
            **{metric_name("prompts", name): tuple(texts) for name, texts in by_class.items()},
        },
        confusion_matrices=scores.confusion_matrices,
        reliability_curves=scores.reliability_curves,
        provenance=provenance(config, images),
    )
    items = {"id": [row.id for row in images.rows], "article": images.articles, **scores.items}
    return write_results(config.out, results, items)


def _class_embeddings(model: Model, prompts: Prompts, classes: Sequence[str], multilabel: bool) -> list[np.ndarray]:
    """Embeddings of each class's affirming prompts, and where images can have several values of its denying ones."""
    sides = (prompts.affirm, prompts.deny) if multilabel else (prompts.affirm,)
    return [class_embeddings(model, [fill(name) for name in classes]) for fill in sides]


def _score_classes(
    model: Model, embeddings: np.ndarray, texts: Sequence[np.ndarray], images: Labeled, classes: list[str], seed: int
) -> _Scores:
    """Of images of one class each; probabilities are the softmax of scaled cosines."""
    (affirmed,) = texts
    scaled = _scaled_cosines(model, embeddings, affirmed)
    truth = np.array([classes.index(values[0]) for values in images.labels])
    probabilities = softmax(scaled, axis=1)
    predicted = predict(probabilities, truth)
    metrics = exclusive_metrics(probabilities, truth, classes, images.articles, seed, column=COLUMN)
    calibration_metrics, facts, curves = calibration(scaled, truth, predicted == truth, images.articles, seed)
    return _Scores(
        metrics=metrics + calibration_metrics,
        facts=majority_facts(truth, truth, classes) | exclusive_facts(truth, classes) | facts,
        items={
            "label": [classes[c] for c in truth],
            "predicted": [classes[c] for c in predicted],
            COLUMN: (predicted == truth).astype(float),
            "probability": probabilities[np.arange(len(truth)), truth],
        },
        confusion_matrices=(confusions(probabilities, truth, classes, "prompts"),),
        reliability_curves=tuple(curves),
    )


def _score_findings(
    model: Model, embeddings: np.ndarray, texts: Sequence[np.ndarray], images: Labeled, classes: list[str], seed: int
) -> _Scores:
    """Of images that show any of the findings.

    The probability of a finding is the softmax over what affirms and what denies it (Tiu et al. 2022). Of an item,
    `correct` is the share of findings that are judged rightly, `probability` the mean that the truth was given.
    """
    affirmed, denied = texts
    truth = np.array([[name in values for name in classes] for values in images.labels])
    both = np.stack([_scaled_cosines(model, embeddings, denied), _scaled_cosines(model, embeddings, affirmed)], axis=2)
    probabilities = softmax(both.reshape(-1, 2), axis=1).reshape(both.shape)[:, :, 1]
    predicted = probabilities > DECISION_THRESHOLD
    return _Scores(
        metrics=multilabel_metrics(probabilities, truth, classes, images.articles, seed, column=COLUMN),
        facts=multilabel_facts(truth, classes),
        items={
            "label": _join(truth, classes),
            "predicted": _join(predicted, classes),
            COLUMN: (predicted == truth).mean(axis=1),
            "probability": np.where(truth, probabilities, 1 - probabilities).mean(axis=1),
        },
    )


def _scaled_cosines(model: Model, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    return np.asarray(logits(model.params, jnp.asarray(images), jnp.asarray(texts)), np.float64)


def _join(present: np.ndarray, classes: list[str]) -> list[str]:
    return [";".join(classes[c] for c in np.flatnonzero(row)) for row in present]


def _of_random_weights(metrics: Sequence[Metric]) -> list[Metric]:
    """The macro metrics of random weights, reported beside the model's."""
    return [
        replace(metric, name=f"random_weights/{metric.name}", column=None, statistic=None, role="reported")
        for metric in metrics
        if metric.name in MACRO_METRICS
    ]

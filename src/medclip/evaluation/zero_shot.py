"""Zero-shot classification: images against the text embeddings of class prompts, by this package and by others."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medclip.encode.encoder import embed_captions, jax_backend
from medclip.errors import UserError
from medclip.evaluation.calibration import calibration
from medclip.evaluation.classification_metrics import (
    MACRO_METRICS,
    confusions,
    exclusive_facts,
    exclusive_metrics,
    joint_exclusive_metrics,
    joint_multilabel_metrics,
    majority_facts,
    multilabel_facts,
    multilabel_metrics,
    predict,
)
from medclip.evaluation.config import EvalConfig, LabelConfig, ProtocolChoice, ProtocolName
from medclip.evaluation.labeled import Labeled, labeled_rows
from medclip.evaluation.labeled_features import encode_labeled, with_random_weights
from medclip.evaluation.protocols import (
    PROTOCOLS,
    ClassTexts,
    Scores,
    own_scores,
    own_texts,
    protocol_scores,
    protocol_texts,
)
from medclip.evaluation.provenance import provenance
from medclip.evaluation.results import ConfusionMatrix, Fact, Kind, ReliabilityCurve, Results, write_results
from medclip.model.checkpoint import Model, load
from medclip.named_metrics import Metric, metric_name
from medclip.prompts import Prompts, class_key, read_prompts
from medclip.zero_shot import check_distinct

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
ANSWERS = {"absent", "f", "false", "n", "neg", "negative", "no", "pos", "positive", "present", "t", "true", "y", "yes"}
"""Values that answer a question which they do not repeat."""
COLUMN = "correct"
OWN = "own prompts"
_Method = ProtocolName | None
"""A protocol; None: this package's own prompts."""
_Texts = dict[_Method, list[ClassTexts]]
"""The prompts of each class by method."""


@dataclass(frozen=True)
class _Headline:
    """Metrics, facts and items of the method at the top of the results."""

    metrics: list[Metric]
    facts: dict[str, Fact]
    items: dict[str, list[str] | np.ndarray]
    confusion_matrices: tuple[ConfusionMatrix, ...] = ()
    reliability_curves: tuple[ReliabilityCurve, ...] = ()


def evaluate_zero_shot(
    config: EvalConfig, labels: LabelConfig, prompts: Path | None = None, protocol: ProtocolChoice = "all"
) -> Results:
    """Measure how well prompts tell the classes of a label apart, each image by the most fitting class.

    Where images can have several values, each is judged for itself. `protocol` is the one to measure by; "all": the
    package's own prompts (or those of the file `prompts`), and below `protocols/` every protocol with the same names.
    """
    images = labeled_rows(config, labels)
    classes = labels.choose(images.classes)
    if len(classes) < (1 if images.multilabel else 2):
        shown = f"one class only, {classes[0]!r}" if classes else "no class"
        raise UserError(f"{config.data} shows {shown}: there is nothing to tell apart.")
    read = read_prompts(prompts, images.label, images.multilabel)
    _check_words(classes, read, images.label)
    methods: list[_Method] = [None, *PROTOCOLS] if protocol == "all" else [protocol]
    headline, *beside = methods
    texts: _Texts = {method: _class_texts(method, read, classes, images.multilabel, config.seed) for method in methods}
    check_distinct(classes, [c.affirmed for c in texts[headline]])
    models = [load(config.model)]
    models += [with_random_weights(models[0], config.seed)] if labels.random_weights else []
    images, scores = _score_images(images, models, texts, config.cache)
    truth = np.array([[name in values for name in classes] for values in images.labels])
    top, *random = (_headline(of_model[headline], headline, truth, images, classes, config.seed) for of_model in scores)
    metrics = [*top.metrics, *(m for baseline in random for m in _of_random_weights(baseline.metrics))]
    facts: dict[str, Fact] = {
        "task": "findings" if images.multilabel else "classes",
        "label": images.label,
        "protocol": headline or OWN,
        "num_images": len(images),
        "split_sha256": split_digest(images, truth, classes),
        **{metric_name("excluded", reason): n for reason, n in images.excluded.items()},
        **top.facts,
        **_prompt_facts(texts[headline], classes, ()),
    }
    for method in beside:
        facts |= _prompt_facts(texts[method], classes, ("protocols", str(method)))
    metrics += _protocol_metrics(
        {str(method): scores[0][method] for method in beside}, truth, images, classes, config.seed
    )
    results = Results(
        kind=Kind.ZERO_SHOT,
        metrics=tuple(metrics),
        facts=facts,
        confusion_matrices=top.confusion_matrices,
        reliability_curves=top.reliability_curves,
        provenance=provenance(config, images),
    )
    items = {"id": [row.id for row in images.rows], "article": images.articles, **top.items}
    return write_results(config.out, results, items)


def _check_words(classes: Sequence[str], prompts: Prompts, label: str) -> None:
    """UserError where a class is a number, or an answer, without a name: its prompts would say nothing of an image."""
    if wordless := [c for c in classes if not _says_something(c) and class_key(c) not in prompts.names]:
        are_truth_values = any({c.casefold() for c in classes} <= values for values in ({"0", "1"}, {"false", "true"}))
        finding = f" A column of labels.csv that holds 1 and 0 is a finding: --classes {shlex.quote(label)} alone."
        raise UserError(
            f"class {wordless[0]!r} of {label!r} has no word that a text could say. Write words in place of numbers "
            f"and answers in the data, or name them in a file for --prompts: under [{_toml_key(label)}.names], "
            f'{_toml_key(wordless[0])} = ["pneumonia"].'
            f"{finding if are_truth_values else ''}"
        )


def _says_something(name: str) -> bool:
    return any(map(str.isalpha, name)) and name.casefold() not in ANSWERS


def _toml_key(name: str) -> str:
    """A name as a key of TOML, where 0.5 would be two keys."""
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def split_digest(images: Labeled, truth: np.ndarray, classes: Sequence[str]) -> str:
    """SHA-256 of what is measured, whatever its order: sorted lines "id<tab>labels", the labels joined by semicolons.

    It is that of the columns `id` and `label` of the results' items.
    """
    lines = sorted(f"{row.id}\t{label}" for row, label in zip(images.rows, _join(truth, classes), strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _class_texts(
    method: _Method, prompts: Prompts, classes: Sequence[str], multilabel: bool, seed: int
) -> list[ClassTexts]:
    if method is None:
        return [own_texts(prompts, name, multilabel) for name in classes]
    return [protocol_texts(method, prompts, name, seed) for name in classes]


def _prompt_facts(texts: Sequence[ClassTexts], classes: Sequence[str], path: tuple[str, ...]) -> dict[str, Fact]:
    return {
        metric_name(*path, "prompts", name): (*of_class.affirmed, *of_class.denied)
        for name, of_class in zip(classes, texts, strict=True)
    }


def _embed(model: Model, texts: _Texts) -> dict[str, np.ndarray]:
    """The unit embedding f64 (p,) of every prompt."""
    prompts = (text for by_class in texts.values() for c in by_class for text in (*c.affirmed, *c.denied))
    distinct = list(dict.fromkeys(prompts))
    return dict(zip(distinct, embed_captions(jax_backend(model), distinct).astype(np.float64), strict=True))


def _score_images(
    images: Labeled, models: Sequence[Model], texts: _Texts, cache: bool
) -> tuple[Labeled, list[dict[_Method, Scores]]]:
    """The images that can be read, and of each model their scores by every method."""
    vectors = [_embed(model, texts) for model in models]
    images, embeddings = encode_labeled(images, [jax_backend(model, cache) for model in models], project=True)
    scores: list[dict[_Method, Scores]] = [
        {method: _score(method, model, image_embeddings.astype(np.float64), by_text, texts[method]) for method in texts}
        for model, image_embeddings, by_text in zip(models, embeddings, vectors, strict=True)
    ]
    return images, scores


def _score(
    method: _Method,
    model: Model,
    images: np.ndarray,
    vectors: Mapping[str, np.ndarray],
    texts: Sequence[ClassTexts],
) -> Scores:
    """The scores of one method, from unit embeddings f64 of images (n, p) and of prompts."""
    affirmed = [np.stack([vectors[text] for text in c.affirmed]) for c in texts]
    denied = [np.stack([vectors[text] for text in c.denied]) for c in texts if c.denied]
    scale = float(np.exp(np.float64(model.params["logit_scale"])))
    if method is None:
        return own_scores(images, affirmed, denied, scale)
    return protocol_scores(method, images, affirmed, denied, scale)


def _headline(
    scores: Scores, method: _Method, truth: np.ndarray, images: Labeled, classes: list[str], seed: int
) -> _Headline:
    column = COLUMN if method is None else metric_name(method, COLUMN)
    if images.multilabel:
        return _score_findings(scores, truth, images, classes, seed, column)
    return _score_classes(scores, truth.argmax(axis=1), images, classes, seed, column)


def _score_classes(
    scores: Scores, truth: np.ndarray, images: Labeled, classes: list[str], seed: int, column: str
) -> _Headline:
    """Of images of one class each; where scores are a softmax over the classes also their calibration."""
    predicted = predict(scores.values, truth)
    metrics = exclusive_metrics(scores.values, truth, classes, images.articles, seed, column=column)
    facts, curves = majority_facts(truth, truth, classes) | exclusive_facts(truth, classes), []
    if scores.logits is not None:
        calibration_metrics, calibration_facts, curves = calibration(
            scores.logits, truth, predicted == truth, images.articles, seed
        )
        metrics, facts = metrics + calibration_metrics, facts | calibration_facts
    return _Headline(
        metrics=metrics,
        facts=facts,
        items={
            "label": [classes[c] for c in truth],
            "predicted": [classes[c] for c in predicted],
            column: (predicted == truth).astype(float),
            "probability" if scores.are_probabilities else "score": scores.values[np.arange(len(truth)), truth],
        },
        confusion_matrices=(confusions(scores.values, truth, classes, "prompts"),),
        reliability_curves=tuple(curves),
    )


def _score_findings(
    scores: Scores, truth: np.ndarray, images: Labeled, classes: list[str], seed: int, column: str
) -> _Headline:
    """Of images that show any of the findings.

    Of an item, `correct` is the share of findings that are judged rightly, `probability` the mean that the truth was
    given; both only where the method has a threshold.
    """
    by_threshold = (
        {} if scores.threshold is None else _threshold_items(scores.values, scores.threshold, truth, classes, column)
    )
    metrics = multilabel_metrics(
        scores.values, truth, classes, images.articles, seed, column=column, threshold=scores.threshold
    )
    return _Headline(
        metrics, multilabel_facts(truth, classes, scores.threshold), {"label": _join(truth, classes), **by_threshold}
    )


def _threshold_items(
    probabilities: np.ndarray, threshold: float, truth: np.ndarray, classes: list[str], column: str
) -> dict[str, list[str] | np.ndarray]:
    predicted = probabilities > threshold
    return {
        "predicted": _join(predicted, classes),
        column: (predicted == truth).mean(axis=1),
        "probability": np.where(truth, probabilities, 1 - probabilities).mean(axis=1),
    }


def _protocol_metrics(
    scores: Mapping[str, Scores], truth: np.ndarray, images: Labeled, classes: list[str], seed: int
) -> list[Metric]:
    """The metrics of protocols beside the headline, below `protocols/NAME`."""
    values = {("protocols", name): (of_protocol.values, of_protocol.threshold) for name, of_protocol in scores.items()}
    if not scores:
        return []
    if images.multilabel:
        return joint_multilabel_metrics(values, truth, classes, images.articles, seed)
    matrices = {path: matrix for path, (matrix, _) in values.items()}
    return joint_exclusive_metrics(matrices, truth.argmax(axis=1), classes, images.articles, seed)


def _join(present: np.ndarray, classes: Sequence[str]) -> list[str]:
    return [";".join(classes[int(c)] for c in np.flatnonzero(row)) for row in present]


def _of_random_weights(metrics: Sequence[Metric]) -> list[Metric]:
    """The macro metrics of random weights, reported beside the model's."""
    return [
        replace(metric, name=f"random_weights/{metric.name}", column=None, statistic=None, role="reported")
        for metric in metrics
        if metric.name in MACRO_METRICS
    ]

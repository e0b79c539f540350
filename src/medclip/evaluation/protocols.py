"""Zero-shot classification as other projects publish it: their prompts' form and their scores of fixed embeddings."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from jaxtyping import Float64
from scipy.special import expit, softmax

from medclip.evaluation.classification_metrics import DECISION_THRESHOLD
from medclip.evaluation.config import ProtocolName
from medclip.prompts import Prompts, class_key
from medclip.zero_shot import mean_directions

PROTOCOLS: tuple[ProtocolName, ...] = get_args(ProtocolName)
_TEMPLATES: dict[str, tuple[str, str]] = {
    "chexzero": ("{}", "no {}"),
    "biomedclip": ("this is a photo of {}", "this is a photo with no {}"),
}
_NUM_PROMPTS = {"gloria": 5, "medclip": 10, "medclip-max": 10}  # drawn for each class, as in their READMEs


@dataclass(frozen=True)
class ClassTexts:
    """The prompts of a class."""

    affirmed: tuple[str, ...]
    denied: tuple[str, ...] = ()
    """Those of its absence; none where the method has none."""


@dataclass(frozen=True)
class Scores:
    """How well images (n) fit classes (k)."""

    values: Float64[np.ndarray, "n k"]
    """The most fitting class of a row has the largest."""
    logits: Float64[np.ndarray, "n k"] | None = None
    """Where `values` are their softmax over the classes."""
    threshold: float | None = None
    """Above it a finding is called present; None: the method says nothing of a single finding."""

    @property
    def are_probabilities(self) -> bool:
        """Whether values lie between 0 and 1."""
        return self.logits is not None or self.threshold is not None


def own_texts(prompts: Prompts, label: str, multilabel: bool) -> ClassTexts:
    """Every template with every name of a class; of findings also those that deny it."""
    return ClassTexts(tuple(prompts.affirm(label)), tuple(prompts.deny(label)) if multilabel else ())


def protocol_texts(protocol: ProtocolName, prompts: Prompts, label: str, seed: int) -> ClassTexts:
    """The prompts of a class in a protocol.

    CheXzero and BiomedCLIP put the first name of the class in their template. GLoRIA and MedCLIP draw 5 and 10 of
    severity × subtype × location at random (of another class: of its names); the draw here is by `seed` and class.
    """
    if protocol not in _TEMPLATES:
        texts, number = prompts.combine(label), _NUM_PROMPTS[protocol]
        draw = random.Random(f"{seed} {class_key(label)}")
        return ClassTexts(tuple(draw.sample(texts, number) if len(texts) > number else texts))
    affirming, denying = _TEMPLATES[protocol]
    names = {class_key(label): tuple(prompts.phrases(label)[:1])}
    single = replace(prompts, templates=(affirming,), negated_templates=(denying,), names=names)
    return ClassTexts(tuple(single.affirm(label)), tuple(single.deny(label)) if protocol == "chexzero" else ())


def own_scores(
    images: Float64[np.ndarray, "n p"],
    affirmed: Sequence[Float64[np.ndarray, "_ p"]],
    denied: Sequence[Float64[np.ndarray, "_ p"]],
    scale: float,
) -> Scores:
    """Softmax of `scale` × cosine with the mean embeddings: over the classes, or of each finding over both sides.

    Radford et al. 2021, section 3.1.4; for findings Tiu et al. 2022 with the model's own scale.
    """
    logits = scale * images @ mean_directions(affirmed).T
    if not denied:
        return Scores(softmax(logits, axis=1), logits)
    return Scores(expit(logits - scale * images @ mean_directions(denied).T), threshold=DECISION_THRESHOLD)


def protocol_scores(
    protocol: ProtocolName,
    images: Float64[np.ndarray, "n p"],
    affirmed: Sequence[Float64[np.ndarray, "_ p"]],
    denied: Sequence[Float64[np.ndarray, "_ p"]],
    scale: float,
) -> Scores:
    """Scores of unit image embeddings against the unit embeddings of each class's prompts.

    chexzero: exp(a) / (exp(a) + exp(d)) of the cosines with what affirms and denies a class, without a scale.
    biomedclip: softmax over the classes of `scale` × cosine. gloria: the largest cosine of a class's prompts,
    standardized over the images (a model with one vector an image has no local similarity). medclip: `scale` × the mean
    cosine of a class's prompts; medclip-max: the largest.
    """
    if protocol == "chexzero":
        return own_scores(images, affirmed, denied, 1.0)
    if protocol == "biomedclip":
        return own_scores(images, affirmed, (), scale)
    reduce = np.mean if protocol == "medclip" else np.max
    similarities = np.stack([reduce(images @ texts.T, axis=1) for texts in affirmed], axis=1)
    if protocol != "gloria":
        return Scores(scale * similarities)
    return Scores(_standardize(similarities) if len(images) > 1 else similarities)


def _standardize(values: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, "n k"]:
    """Mean 0 and standard deviation 1 (over n) of every column; 0 where it is constant."""
    centered, spread = values - values.mean(axis=0), values.std(axis=0)
    return np.divide(centered, spread, out=np.zeros_like(values), where=spread > 0)

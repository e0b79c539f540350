"""How far to believe a search by text, calibrated on validation pairs: `calibration.json` beside the weights. No JAX.

Of an index of N images with cosines c_1 >= c_2 >= ... to a text, the first k hold the share

    m_k = sum(exp(scale c_i), i <= k) / sum(exp(scale c_i), i <= N)

of the evidence: the probability that the right image is among them where any may be right and the densities of right
and of wrong cosines have the ratio exp(scale c), as CLIP's loss takes them to have. More images add to the sum below,
so it carries over to an index of another size. Platt's line (1999) corrects it, with the share k / N of chance beside:

    logit P_k = share_slope logit(m_k) + chance_slope logit(k / N) + intercept

P_k says nothing of a text whose image the index lacks.

Whether there is a match at all: `no_match`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from medclip import NOT_CLINICAL
from medclip.atomic_io import CHECKSUM, has_checksum, read_object, write_with_checksum
from medclip.errors import UserError
from medclip.no_match import (
    FALSE_NO_MATCH_RATE,
    NUM_TOP,
    ExcerptCosines,
    Threshold,
    Withheld,
    fit_thresholds,
    withhold,
)
from medclip.random_pools import Pool, draw_pools, highest, pool_sizes

CALIBRATION_FILE = "calibration.json"
FORMAT = 2  # of the file; 1 had a single threshold for texts of any length
KS = (1, 2, 5, 10, 20, 50)
MAX_LOG_SCALE = np.log(1000)
TIE_TOLERANCE = 1e-9
SAMPLE_ROUNDING = 1e-6  # of sampled cosines, which are float32
_MAX_NUMBER = 1e15  # products of two, and integers, are exact enough in float64
OTHER_FORMAT = (
    f"the model's {CALIBRATION_FILE} is of another version of medclip: delete it, then the `medclip train` that made "
    "the model, with --resume, writes it anew and trains no step."
)
FITTED = ("scale", "share_slope", "chance_slope", "intercept", "false_no_match_rate")
READING = {
    "probability": "that the right image is among k hits of an index of n images, if the index holds it; its logit is "
    "share_slope * logit(m) + chance_slope * logit(k / n) + intercept, m being the hits' share of the sum of "
    "exp(scale * cosine) over the index",
    "no_match": f"the mean of the {NUM_TOP} highest cosines is below the threshold for the text's number of words (of "
    "the largest min_words not above it) and the index's size, interpolated over the logarithm of the size; a text "
    "of that length whose image is there falls below at false_no_match_rate, or less often where the index is larger "
    "than validation",
    "withheld": "texts of a length about one organ at a time, searched among the images of the others: how many have "
    "no match",
    "holds_for": "captions and images like those of the validation split, and the first words of such captions, taken "
    "together; not for each single one",
}


@dataclass(frozen=True)
class ValidationRecall:
    """R@10 from texts to images of the validation split, which also chose the weights, with its 95 % interval."""

    value: float
    low: float
    high: float
    chance: float
    num_images: int
    num_captions: int

    @property
    def is_near_chance(self) -> bool:
        """Whether it may be less than twice what a random order has."""
        return self.low < 2 * self.chance


@dataclass(frozen=True)
class Calibration:
    """The content of `calibration.json`."""

    model_sha256: str
    data_sha256: str
    """Of the validation split."""
    recall_at_10: ValidationRecall
    scale: float
    share_slope: float
    chance_slope: float
    intercept: float
    false_no_match_rate: float
    thresholds: tuple[Threshold, ...]
    """By length of the text and number of images, ascending; none where validation has too few texts for the rate."""
    withheld: tuple[Withheld, ...]
    """By length of the text; none of a length at which no organ is named by enough."""

    def probabilities(
        self, cosines: Float64[np.ndarray, " k"], counts: Int[np.ndarray, " k"], log_total: float, num_images: int
    ) -> Float64[np.ndarray, " k"]:
        """P_1 … P_k of hits, best first; `counts` are the images that each stands for, `log_total` the log of the sum.

        In [0, 1], never falling; 1 where the hits are all images of the index.
        """
        share, chance = np.cumsum(counts * np.exp(self.scale * cosines - log_total)), np.cumsum(counts) / num_images
        line = self.share_slope * _logit(share) + self.chance_slope * _logit(chance) + self.intercept
        return np.where(chance >= 1, 1.0, _sigmoid(line))

    def log_total(self, highest: Float64[np.ndarray, " h"], sample: Float[np.ndarray, " m"], num_images: int) -> float:
        """Log of the sum of exp(scale c) over an index: of its `highest` cosines, and for the others by a `sample`.

        Sampled cosines that are not below all of the highest are of these; several that equal the lowest of them stand
        for what ties with it.
        """
        terms, lowest, rest = self.scale * highest, highest.min(), num_images - len(highest)
        if rest <= 0:
            return float(_log_sum(terms))
        below, tied = sample[sample < lowest - SAMPLE_ROUNDING].astype(np.float64), _count_near(sample, lowest)
        num_below, num_tied = len(below) * num_images / len(sample), 0.0
        if tied > 1 or not len(below):
            num_tied = max(tied * num_images / len(sample) - _count_near(highest, lowest), 0.0 if len(below) else 1.0)
        each = rest / (num_below + num_tied)
        if num_tied:
            terms = np.append(terms, self.scale * lowest + np.log(num_tied * each))
        if len(below):
            terms = np.append(terms, _log_sum(self.scale * below) + np.log(num_below * each / len(below)))
        return float(_log_sum(terms))


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write `calibration.json` into a model's folder."""
    content = {"format": FORMAT} | dataclasses.asdict(calibration) | {"reading": READING, "notice": NOT_CLINICAL}
    write_with_checksum(folder / CALIBRATION_FILE, content)


def read_calibration(folder: Path, model_sha256: str) -> Calibration:
    """The calibration in a model's folder. UserError where it is absent, damaged, or of another model or format."""
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        raise UserError(f"the model has no {CALIBRATION_FILE}, which medclip train writes at its end.")
    try:
        fields = read_object(path, "a model folder")
        if fields.get("format") != FORMAT:
            raise UserError(OTHER_FORMAT)
        calibration = _parse(fields)
    except (KeyError, TypeError, ValueError, OverflowError) as error:  # the last of Infinity in place of a count
        raise UserError(f"the model's {CALIBRATION_FILE} is damaged ({error}).") from None
    if calibration.model_sha256 != model_sha256:
        raise UserError(f"the model's {CALIBRATION_FILE} is of other weights or another config than these.")
    if CHECKSUM in fields and not has_checksum(fields):
        raise UserError(f"the model's {CALIBRATION_FILE} is damaged (it is not as it was written).")
    return calibration


def _parse(fields: Mapping[str, Any]) -> Calibration:
    """KeyError, TypeError or ValueError where a field is missing or wrong."""
    recall = fields["recall_at_10"]
    calibration = Calibration(
        model_sha256=str(fields["model_sha256"]),
        data_sha256=str(fields["data_sha256"]),
        recall_at_10=ValidationRecall(
            **{name: _number(recall[name]) for name in ("value", "low", "high", "chance")},
            **{name: _count(recall[name]) for name in ("num_images", "num_captions")},
        ),
        **{name: _number(fields[name]) for name in FITTED},
        thresholds=tuple(
            Threshold(_count(t["min_words"]), _count(t["num_images"]), _number(t["cosine"]))
            for t in fields["thresholds"]
        ),
        withheld=tuple(
            Withheld(_count(w["min_words"]), _count(w["num_queries"]), _number(w["no_match_rate"]))
            for w in fields["withheld"]
        ),
    )
    places = [(threshold.min_words, threshold.num_images) for threshold in calibration.thresholds]
    if places != sorted({*places}):
        raise ValueError("its thresholds are not in the order of their lengths and sizes")
    return calibration


def _count(value: Any) -> int:
    count = int(value)
    if not 0 < count < _MAX_NUMBER:
        raise ValueError(f"{value} is not a count")
    return count


def _number(value: Any) -> float:
    number = float(value)
    if not abs(number) < _MAX_NUMBER:
        raise ValueError(f"{value} is not a number")
    return number


def fit_calibration(
    cosines: Float64[np.ndarray, "q n"],
    right: Bool[np.ndarray, "q n"],
    excerpts: ExcerptCosines,
    recall_at_10: ValidationRecall,
    model_sha256: str,
    data_sha256: str,
    seed: int,
) -> Calibration:
    """Calibrate on the cosines of q captions with n images, at least two; `right` says which belong together.

    The `excerpts` of the captions (`cut_captions`) give the thresholds of no match.
    """
    rng, scale = np.random.default_rng(seed), _fit_scale(cosines, right)
    pools = {size: next(draw_pools(cosines, right, size, rng)) for size in pool_sizes(cosines.shape[1])}
    thresholds = tuple(fit_thresholds(excerpts, seed))
    share_slope, chance_slope, intercept = _fit_line(scale, pools)
    return Calibration(
        model_sha256=model_sha256,
        data_sha256=data_sha256,
        recall_at_10=recall_at_10,
        scale=scale,
        share_slope=share_slope,
        chance_slope=chance_slope,
        intercept=intercept,
        false_no_match_rate=FALSE_NO_MATCH_RATE,
        thresholds=thresholds,
        withheld=tuple(withhold(thresholds, excerpts)),
    )


def _fit_scale(cosines: np.ndarray, right: np.ndarray) -> float:
    """The scale of the softmax that makes the right images most probable."""
    from scipy.optimize import minimize_scalar

    own = highest(np.where(right, cosines, -np.inf), int(right.sum(axis=1).max()))

    def loss(log_scale: float) -> float:
        scale = np.exp(log_scale)
        return float((_log_sum(scale * cosines) - _log_sum(scale * own)).mean())

    optimum: Any = minimize_scalar(loss, bounds=(-MAX_LOG_SCALE, MAX_LOG_SCALE), method="bounded")
    return float(np.exp(optimum.x))


def _fit_line(scale: float, pools: Mapping[int, Pool]) -> tuple[float, float, float]:
    """The slopes (never below 0) and the intercept of the logit of P_k, over a pool of each size, k below the size."""
    rows, hits = [], []
    for size, (own, others) in pools.items():
        scaled = scale * np.column_stack([own, others])
        share = np.cumsum(np.exp(highest(scaled, max(KS)) - _log_sum(scaled)[:, None]), axis=1)
        rank = 1 + (others >= own[:, None] - TIE_TOLERANCE).sum(axis=1)
        for k in KS:
            if k < size:
                logit_share = _logit(share[:, k - 1])
                rows.append(np.column_stack([logit_share, _logit(np.full(len(own), k / size)), np.ones(len(own))]))
                hits.append(rank <= k)
    x, hit = np.concatenate(rows), np.concatenate(hits)
    target = np.where(hit, (hit.sum() + 1) / (hit.sum() + 2), 1 / ((~hit).sum() + 2))  # Platt's: none is certain
    line = _fit_logistic(x, target)
    return float(line[0]), float(line[1]), float(line[2])


def _fit_logistic(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Coefficients of logistic regression with targets in [0, 1], which scikit-learn takes as classes alone.

    All but the last are at least 0.
    """
    from scipy.optimize import minimize

    def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        line = x @ coefficients
        return float((np.logaddexp(0, line) - target * line).mean()), x.T @ (_sigmoid(line) - target) / len(x)

    bounds = [*[(0.0, None)] * (x.shape[1] - 1), (None, None)]
    start = np.eye(1, x.shape[1])[0]  # the share as it is
    return minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x


def _count_near(cosines: np.ndarray, cosine: float) -> int:
    return int(np.count_nonzero(np.abs(cosines - cosine) <= SAMPLE_ROUNDING))


def _log_sum(values: np.ndarray) -> np.ndarray:
    """Log of the sum of exp over the last axis."""
    largest = values.max(axis=-1, keepdims=True)
    return (largest + np.log(np.exp(values - largest).sum(axis=-1, keepdims=True)))[..., 0]


def _sigmoid(line: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(line / 2)) / 2  # which does not overflow


def _logit(probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability, 1e-12, 1 - 1e-12)
    return np.log(clipped / (1 - clipped))

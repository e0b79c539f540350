"""Whether probabilities are to be believed: calibration error, reliability, temperature scaling. Guo et al. 2017."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Num
from scipy.special import log_softmax, softmax

from medclip.evaluation.results import Fact, ReliabilityBin, ReliabilityCurve
from medclip.metrics import estimate
from medclip.named_metrics import Metric, to_metric

NUM_BINS = 15
NUM_FOLDS = 5
MAX_LOG_TEMPERATURE = np.log(1000)  # only a model right, or wrong, about all would go further


def calibration(
    logits: Float[np.ndarray, "n k"],
    truth: Int[np.ndarray, " n"],
    correct: Bool[np.ndarray, " n"],
    articles: Sequence[str],
    seed: int,
) -> tuple[list[Metric], dict[str, Fact], list[ReliabilityCurve]]:
    """Calibration error and reliability of softmax(logits), before and after temperature scaling.

    `correct` is whether the most probable class is the true one, which no temperature changes. Nothing is scaled where
    all images are of one article: a temperature is never measured on an article it was fitted on.
    """
    facts: dict[str, Fact] = {"calibration/num_bins": NUM_BINS}
    logits_by_name = {"raw": logits.astype(np.float64)}
    if len(set(articles)) > 1:
        logits_by_name["scaled"], temperatures = cross_scaled(logits, truth, articles)
        n = len(temperatures)
        facts |= {
            "calibration/temperature": float(np.median(temperatures)),
            "calibration/fold_temperatures": tuple(temperatures),
            "calibration/fitted": f"on the other {n - 1} of {n} parts of the measured images, articles kept together",
        }
    metrics, curves = [], []
    for name, values in logits_by_name.items():
        rows = np.column_stack([softmax(values, axis=1).max(axis=1), correct])
        # the error is never below zero, so resampling raises it: its interval may lie above it
        error = estimate(rows, articles, lambda resample: ece(resample[:, 0], resample[:, 1]), seed)
        metrics.append(to_metric(f"calibration/{name}/ece", error))
        curves.append(ReliabilityCurve(name, tuple(_bins(rows[:, 0], rows[:, 1]))))
    return metrics, facts, curves


def ece(confidence: Float[np.ndarray, " n"], correct: Num[np.ndarray, " n"] | Bool[np.ndarray, " n"]) -> float:
    """Expected calibration error: sum over bins of (n_bin / n) |accuracy - mean confidence| (Guo et al. 2017, eq. 3).

    Bins have equal width, and hold their upper edge. `confidence` (n,) is the largest probability of each row.
    """
    errors = (b.num_images * abs(b.accuracy - b.confidence) for b in _bins(confidence, correct))
    return float(sum(errors) / len(correct))


def temperature(logits: Float[np.ndarray, "n k"], truth: Int[np.ndarray, " n"]) -> float:
    """The T > 0 for which softmax(logits / T) makes the true classes (n,) most probable (Guo et al. 2017, section 4.2).

    scikit-learn has it for classifiers that it fits itself, on rows in which every class occurs.
    """
    from scipy.optimize import minimize_scalar

    def loss(log: float) -> float:
        return -float(log_softmax(logits / np.exp(log), axis=1)[np.arange(len(truth)), truth].mean())

    bounds = (-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE)
    optimum: Any = minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(np.exp(optimum.x))


def cross_scaled(
    logits: Float[np.ndarray, "n k"], truth: Int[np.ndarray, " n"], articles: Sequence[str]
) -> tuple[Float[np.ndarray, "n k"], list[float]]:
    """Logits of each part divided by the temperature of the other parts, articles kept together; the temperatures."""
    from sklearn.model_selection import GroupKFold

    scaled, temperatures = np.empty_like(logits, dtype=np.float64), []
    for others, part in GroupKFold(min(NUM_FOLDS, len(set(articles)))).split(logits, truth, articles):
        temperatures.append(temperature(logits[others], truth[others]))
        scaled[part] = logits[part] / temperatures[-1]
    return scaled, temperatures


def _bins(confidence: np.ndarray, correct: np.ndarray) -> Iterator[ReliabilityBin]:
    """Every bin that holds any row."""
    number = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    n = np.bincount(number, minlength=NUM_BINS)
    sums = [np.bincount(number, weights=values, minlength=NUM_BINS) for values in (confidence, correct)]
    for b in np.flatnonzero(n):
        yield ReliabilityBin((int(b) + 1) / NUM_BINS, int(n[b]), float(sums[0][b] / n[b]), float(sums[1][b] / n[b]))

"""Whether probabilities are to be believed: calibration error, reliability, temperature scaling. Guo et al. 2017."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import softmax

from medclip.metrics import interval

BINS = 15
FOLDS = 5
_WIDEST = np.log(1000)  # temperatures from 1/1000 to 1000: only a model right, or wrong, about all would go further


def calibration(logits: np.ndarray, truth: np.ndarray, correct: np.ndarray, articles: Sequence[str], seed: int) -> Any:
    """Calibration error and reliability of softmax(logits (n, k)), before and after temperature scaling.

    `correct` (n,) is whether the most probable class is the true one, which no temperature changes. None for the scaled
    ones where all images are of one article: a temperature is never measured on an article it was fitted on.
    """
    said: dict[str, Any] = {
        "bins": BINS,
        "raw": _reliability(softmax(logits.astype(np.float64), axis=1), correct, articles, seed),
    }
    if len(set(articles)) < 2:
        return {**said, "scaled": None, "temperature": None}
    scaled, temperatures = cross_scaled(logits, truth, articles)
    return {
        **said,
        "scaled": _reliability(softmax(scaled, axis=1), correct, articles, seed),
        "temperature": {"median": float(np.median(temperatures)), "folds": temperatures},
        "fitted": f"on the other {len(temperatures) - 1} of {len(temperatures)} parts of the measured images, "
        "articles kept together",
    }


def ece(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: sum over bins of (n_bin / n) |accuracy - mean confidence| (Guo et al. 2017, eq. 3).

    Bins have equal width, and hold their upper edge. `confidence` (n,) is the largest probability of each row.
    """
    return float(sum(n * abs(right - said) for _, n, said, right in _bins(confidence, correct, bins)) / len(correct))


def temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The T > 0 for which softmax(logits / T) makes the true classes (n,) most probable (Guo et al. 2017, section 4.2).

    scikit-learn has it for classifiers that it fits itself, on rows in which every class occurs.
    """
    from scipy.optimize import minimize_scalar

    def loss(log: float) -> float:
        scaled = logits / np.exp(log)
        scaled = scaled - scaled.max(axis=1, keepdims=True)
        return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(truth)), truth]).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-_WIDEST, _WIDEST), method="bounded").x))


def cross_scaled(logits: np.ndarray, truth: np.ndarray, articles: Sequence[str]) -> tuple[np.ndarray, list[float]]:
    """Logits of each part divided by the temperature of the other parts, articles kept together; the temperatures."""
    from sklearn.model_selection import GroupKFold

    scaled, found = np.empty_like(logits, dtype=np.float64), []
    for others, part in GroupKFold(min(FOLDS, len(set(articles)))).split(logits, truth, articles):
        found.append(temperature(logits[others], truth[others]))
        scaled[part] = logits[part] / found[-1]
    return scaled, found


def _reliability(probabilities: np.ndarray, correct: np.ndarray, articles: Sequence[str], seed: int) -> dict[str, Any]:
    """The error, its interval, and the values of the reliability curve: bins that hold any image.

    The error is never below zero, so resampling raises it: its interval may lie above it.
    """
    rows = np.column_stack([probabilities.max(axis=1), correct])
    keys = ("up_to", "pictures", "confidence", "accuracy")
    return {
        "ece": interval(rows, articles, lambda drawn: ece(drawn[:, 0], drawn[:, 1]), seed),
        "curve": [dict(zip(keys, one, strict=True)) for one in _bins(rows[:, 0], rows[:, 1], BINS)],
    }


def _bins(confidence: np.ndarray, correct: np.ndarray, bins: int) -> list[tuple[float, int, float, float]]:
    """Upper edge, rows, mean confidence and accuracy of every bin that holds any row."""
    number = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    n = np.bincount(number, minlength=bins)
    said, right = (np.bincount(number, weights=of, minlength=bins) for of in (confidence, correct))
    return [((b + 1) / bins, int(n[b]), said[b] / n[b], right[b] / n[b]) for b in range(bins) if n[b]]

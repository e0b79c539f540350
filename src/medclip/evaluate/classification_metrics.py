"""How well classes are told apart: figures of plain matrices, with intervals.

The definitions are scikit-learn's, and tests hold them equal to it. They are written out because each is needed a
thousand times for an interval: with scikit-learn's own, which check their input anew each time, that takes
half a minute where this takes a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medclip.metrics import intervals

THRESHOLD = 0.5
"""A finding of which the probability is above is called present."""
FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "auroc")
"""What is measured of classes; not the second where an image can show several."""
_TIE = 1e-9


def predicted(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The most probable class of each row, i64 (n,); where others are as probable as the true one, one of those.

    Else a model that cannot choose would get every image of the class that comes first.
    """
    scores = probabilities.astype(np.float64)
    scores[np.arange(len(scores)), truth] -= _TIE
    return scores.argmax(axis=1)


def one_of(
    probabilities: np.ndarray, truth: np.ndarray, classes: Sequence[str], articles: Sequence[str], seed: int
) -> dict[str, Any]:
    """Figures of images (n) that belong to one of k classes each, from probabilities (n, k) and true numbers (n,).

    `balanced_accuracy` (the mean recall), `macro_f1` and `auroc` (one class against the rest) are means over the
    classes that occur; a class that does not, or that all images belong to, has no AUROC (None). Beside them stand
    chance and what calling everything by the most frequent class would give. Raises ValueError on scores that are not
    finite.
    """
    from sklearn.metrics import confusion_matrix

    k = len(classes)
    true, chosen = np.eye(k)[truth], predicted(probabilities, truth)

    def measure(rows: np.ndarray) -> dict[str, float]:
        true, chosen, scores = np.split(rows, 3, axis=1)
        areas = auroc(scores, true > 0)
        each = {f"auroc {name}": area for name, area in zip(classes, areas, strict=True)}
        return {**shares(chosen > 0, true > 0), "auroc": _mean(areas), **each}

    found = intervals(np.hstack([true, np.eye(k)[chosen], _finite(probabilities)]), articles, measure, seed)
    counts = true.sum(axis=0).astype(int)
    return {
        **{name: found[name] for name in FIGURES},
        "chance": 1 / k,
        "majority": {"class": classes[counts.argmax()], "accuracy": float(counts.max() / counts.sum())},
        "classes": {
            name: {"pictures": int(counts[c]), "auroc": found[f"auroc {name}"]} for c, name in enumerate(classes)
        },
        "confusion": confusion_matrix(truth, chosen, labels=range(k)).tolist(),
    }


def any_of(
    probabilities: np.ndarray, truth: np.ndarray, classes: Sequence[str], articles: Sequence[str], seed: int
) -> dict[str, Any]:
    """Figures of images (n) that show any of k findings, from probabilities (n, k) and what is there, bool (n, k).

    `macro_f1` and `accuracy` (over all images and findings) call present what is above `THRESHOLD`. Means and
    undefined figures as in `one_of`.
    """
    k = len(classes)

    def measure(rows: np.ndarray) -> dict[str, float]:
        scores, true = rows[:, :k], rows[:, k:] > 0
        areas, shares = auroc(scores, true), f1(scores > THRESHOLD, true)
        return {
            "accuracy": float(((scores > THRESHOLD) == true).mean()),
            "macro_f1": _mean(shares),
            "auroc": _mean(areas),
            **{f"auroc {name}": area for name, area in zip(classes, areas, strict=True)},
            **{f"f1 {name}": share for name, share in zip(classes, shares, strict=True)},
        }

    found = intervals(np.hstack([_finite(probabilities), truth]), articles, measure, seed)
    each = {
        name: {
            "pictures": int(truth[:, c].sum()),
            "prevalence": float(truth[:, c].mean()),
            "auroc": found[f"auroc {name}"],
            "f1": found[f"f1 {name}"],
        }
        for c, name in enumerate(classes)
    }
    return {**{name: found[name] for name in FIGURES if name in found}, "threshold": THRESHOLD, "classes": each}


def shares(called: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro-F1 where each row (bool, (n, k)) has one column called and one true."""
    return {
        "accuracy": float((called & truth).sum() / len(truth)),
        "balanced_accuracy": _mean(recall(called, truth)),
        "macro_f1": _mean(f1(called, truth)),
    }


def auroc(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of every column, f64 (k,): how often a true row scores above another, ties half.

    NaN where all rows of a column are true, or none (Mann and Whitney 1947). `truth` is bool (n, k).
    """
    from scipy.stats import rankdata

    true = truth.sum(axis=0)
    with np.errstate(invalid="ignore"):
        above = (rankdata(scores, axis=0) * truth).sum(axis=0) - true * (true + 1) / 2
        return above / (true * (len(truth) - true))


def recall(called: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Share of the true rows of every column (bool, (n, k)) that are called so, f64 (k,); NaN where none is true."""
    with np.errstate(invalid="ignore"):
        return (called & truth).sum(axis=0) / truth.sum(axis=0)


def f1(called: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall of every column (bool, (n, k)), f64 (k,); NaN where no row is true."""
    both = truth.sum(axis=0) + called.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(truth.any(axis=0), 2 * (called & truth).sum(axis=0) / both, np.nan)


def _mean(of: np.ndarray) -> float:
    """The mean of those that are defined; NaN where none is."""
    known = of[~np.isnan(of)]
    return float(known.mean()) if len(known) else float("nan")


def _finite(scores: np.ndarray) -> np.ndarray:
    if not np.isfinite(scores).all():
        raise ValueError("scores hold values that are not finite")
    return scores

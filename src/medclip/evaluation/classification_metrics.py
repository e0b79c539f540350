"""Accuracy, F1 and AUROC of plain matrices, with intervals.

The definitions are scikit-learn's, and tests hold them equal to it. They are written out because each is needed a
thousand times for an interval: with scikit-learn's own, which check their input anew each time, that takes
half a minute where this takes a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from medclip.evaluation.results import ConfusionMatrix, Fact
from medclip.metrics import SHARE, TIE_TOLERANCE, estimates
from medclip.named_metrics import Metric, Role, metric_name, name_parts, to_metric

DECISION_THRESHOLD = 0.5
"""A finding with a higher probability is called present."""
MACRO_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc")
"""What is measured over all classes; not the second where an image can show several."""
AUROC_CHANCE = 0.5
Path = tuple[str, ...]
"""The parts of a metric's name above its last ones."""
# Metrics that are means of whether each image was called rightly: the statistic, and their role in comparisons.
OF_CORRECT: dict[str, tuple[str, Role]] = {
    "accuracy": ("mean", "gated"),
    "balanced_accuracy": ("mean_over_classes", "compared"),
}


def predict(probabilities: Num[np.ndarray, "n k"], truth: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The most probable class of each row; where others are as probable as the true one, one of those.

    Otherwise a model that cannot choose would get every image of the class that comes first.
    """
    scores = probabilities.astype(np.float64)
    scores[np.arange(len(scores)), truth] -= TIE_TOLERANCE
    return scores.argmax(axis=1)


def exclusive_metrics(
    probabilities: Float[np.ndarray, "n k"],
    truth: Int[np.ndarray, " n"],
    classes: Sequence[str],
    articles: Sequence[str],
    seed: int,
    path: Sequence[str] = (),
    column: str | None = None,
    per_class: bool = True,
) -> list[Metric]:
    """Metrics, below `path`, of images that belong to one of k classes each, from the numbers of their true classes.

    `balanced_accuracy` (the mean recall), `macro_f1` and `auroc` (one class against the rest) are means over the
    classes that occur; a class that does not, or that all images belong to, has no AUROC. `column` holds of each image
    whether it is called rightly. Without `per_class`, only the means. Raises ValueError on scores that are not finite.
    """
    scores = {tuple(path): probabilities}
    return joint_exclusive_metrics(scores, truth, classes, articles, seed, column=column, per_class=per_class)


def joint_exclusive_metrics(
    scores: Mapping[Path, Float[np.ndarray, "n k"]],
    truth: Int[np.ndarray, " n"],
    classes: Sequence[str],
    articles: Sequence[str],
    seed: int,
    column: str | None = None,
    per_class: bool = True,
) -> list[Metric]:
    """`exclusive_metrics` of several scores of the same images, each below its path, from the same resamples."""
    k, m = len(classes), len(scores)
    called = [np.eye(k)[predict(values, truth)] for values in scores.values()]

    def measure(rows: np.ndarray) -> dict[str, float]:
        true, *parts = np.split(rows, 1 + 2 * m, axis=1)
        areas = auroc(np.hstack(parts[m:]), np.tile(true > 0, m)).reshape(m, k)
        return {
            f"{_above(path)}{name}": value
            for path, part, of_classes in zip(scores, parts[:m], areas, strict=True)
            for name, value in (
                accuracy_metrics(part > 0, true > 0)
                | {"auroc": _mean(of_classes)}
                | (_by_class("auroc", classes, of_classes) if per_class else {})
            ).items()
        }

    chance = {"accuracy": 1 / k, "balanced_accuracy": 1 / k, "auroc": AUROC_CHANCE}
    rows = np.hstack([np.eye(k)[truth], *called, *map(_finite, scores.values())])
    return _metrics(rows, articles, measure, seed, chance, column)


def multilabel_metrics(
    probabilities: Float[np.ndarray, "n k"],
    truth: Bool[np.ndarray, "n k"],
    classes: Sequence[str],
    articles: Sequence[str],
    seed: int,
    column: str | None = None,
    threshold: float | None = DECISION_THRESHOLD,
) -> list[Metric]:
    """Metrics of images that show any of k findings, from whether each is present.

    `macro_f1` and `accuracy` (over all images and findings) call present what is above `threshold`; None: they are not
    defined. Means, undefined metrics and `column` as in `exclusive_metrics`.
    """
    return joint_multilabel_metrics({(): (probabilities, threshold)}, truth, classes, articles, seed, column=column)


def joint_multilabel_metrics(
    scores: Mapping[Path, tuple[Float[np.ndarray, "n k"], float | None]],
    truth: Bool[np.ndarray, "n k"],
    classes: Sequence[str],
    articles: Sequence[str],
    seed: int,
    column: str | None = None,
) -> list[Metric]:
    """`multilabel_metrics` of several scores and their thresholds, each below its path, from the same resamples."""
    k, m = len(classes), len(scores)

    def measure(rows: np.ndarray) -> dict[str, float]:
        true, *parts = np.split(rows, 1 + m, axis=1)
        areas = auroc(np.hstack(parts), np.tile(true > 0, m)).reshape(m, k)
        return {
            f"{_above(path)}{name}": value
            for (path, (_, threshold)), part, of_classes in zip(scores.items(), parts, areas, strict=True)
            for name, value in (
                _threshold_metrics(part, true > 0, classes, threshold)
                | {"auroc": _mean(of_classes)}
                | _by_class("auroc", classes, of_classes)
            ).items()
        }

    rows = np.hstack([truth, *(_finite(values) for values, _ in scores.values())])
    return _metrics(rows, articles, measure, seed, {"auroc": AUROC_CHANCE}, column)


def _threshold_metrics(
    scores: np.ndarray, true: np.ndarray, classes: Sequence[str], threshold: float | None
) -> dict[str, float]:
    """Accuracy and F1 of what is called present; nothing without a threshold."""
    if threshold is None:
        return {}
    called = scores > threshold
    f1_scores = f1(called, true)
    means = {"accuracy": float((called == true).mean()), "macro_f1": _mean(f1_scores)}
    return means | _by_class("f1", classes, f1_scores)


def _above(path: Path) -> str:
    return f"{metric_name(*path)}/" if path else ""


def _by_class(metric: str, classes: Sequence[str], values: Float[np.ndarray, " k"]) -> dict[str, float]:
    return {metric_name("classes", name, metric): float(v) for name, v in zip(classes, values, strict=True)}


def _metrics(
    rows: np.ndarray,
    articles: Sequence[str],
    measure: Callable[[np.ndarray], dict[str, float]],
    seed: int,
    chance: Mapping[str, float],
    column: str | None,
) -> list[Metric]:
    """Metrics of what `measure` computes; those that are not defined have no value."""
    names = list(measure(rows))
    ranges = {name: SHARE for name in names if name_parts(name)[-1] == "accuracy"}  # the others are no means of images
    measured = estimates(rows, articles, measure, seed, ranges)
    metrics = []
    for name in names:
        last = name_parts(name)[-1]
        statistic, role = OF_CORRECT.get(last, (None, "reported")) if column else (None, "reported")
        source = column if statistic else None
        metrics.append(to_metric(name, measured.get(name), chance.get(last), source, statistic, role))
    return metrics


def exclusive_facts(truth: Int[np.ndarray, " n"], classes: Sequence[str], path: Sequence[str] = ()) -> dict[str, Fact]:
    """How many images each class has."""
    counts = np.bincount(truth, minlength=len(classes)).tolist()
    return {metric_name(*path, "classes", name, "num_images"): n for name, n in zip(classes, counts, strict=True)}


def majority_facts(
    train: Int[np.ndarray, " m"], truth: Int[np.ndarray, " n"], classes: Sequence[str]
) -> dict[str, Fact]:
    """The most frequent class of `train`, and the accuracy on `truth` of calling everything by it."""
    majority = int(np.bincount(train, minlength=len(classes)).argmax())
    return {"majority/class": classes[majority], "majority/accuracy": float((truth == majority).mean())}


def multilabel_facts(
    truth: Bool[np.ndarray, "n k"], classes: Sequence[str], threshold: float | None = DECISION_THRESHOLD
) -> dict[str, Fact]:
    """The number and the fraction of images that show each finding, and the threshold where there is one."""
    facts: dict[str, Fact] = {} if threshold is None else {"threshold": threshold}
    for name, present in zip(classes, truth.T, strict=True):
        facts[metric_name("classes", name, "num_images")] = int(present.sum())
        facts[metric_name("classes", name, "prevalence")] = float(present.mean())
    return facts


def confusions(
    probabilities: Float[np.ndarray, "n k"], truth: Int[np.ndarray, " n"], classes: Sequence[str], name: str
) -> ConfusionMatrix:
    """The confusion matrix of the most probable classes."""
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(truth, predict(probabilities, truth), labels=range(len(classes))).tolist()
    return ConfusionMatrix(name, tuple(classes), tuple(map(tuple, counts)))


def accuracy_metrics(called: Bool[np.ndarray, "n k"], truth: Bool[np.ndarray, "n k"]) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro F1 where each row has one column called and one true."""
    return {
        "accuracy": float((called & truth).sum() / len(truth)),
        "balanced_accuracy": _mean(recall(called, truth)),
        "macro_f1": _mean(f1(called, truth)),
    }


def auroc(scores: Num[np.ndarray, "n k"], truth: Bool[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    """Area under the ROC curve of every column: how often a true row scores above another, ties half.

    NaN where all rows of a column are true, or none (Mann and Whitney 1947).
    """
    from scipy.stats import rankdata

    true = truth.sum(axis=0)
    with np.errstate(invalid="ignore"):
        above = (rankdata(scores, axis=0) * truth).sum(axis=0) - true * (true + 1) / 2
        return above / (true * (len(truth) - true))


def recall(called: Bool[np.ndarray, "n k"], truth: Bool[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    """Share of the true rows of every column that are called so; NaN where none is true."""
    with np.errstate(invalid="ignore"):
        return (called & truth).sum(axis=0) / truth.sum(axis=0)


def f1(called: Bool[np.ndarray, "n k"], truth: Bool[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    """Harmonic mean of precision and recall of every column; NaN where no row is true."""
    both = truth.sum(axis=0) + called.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(truth.any(axis=0), 2 * (called & truth).sum(axis=0) / both, np.nan)


def _mean(values: np.ndarray) -> float:
    """The mean of those that are defined; NaN where none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _finite(scores: np.ndarray) -> np.ndarray:
    if not np.isfinite(scores).all():
        raise ValueError("scores hold values that are not finite")
    return scores

"""Probes of frozen features: logistic regression and nearest neighbors, with all labels and with a few.

Features are those before the projection, as in Radford et al. 2021 (appendix A.3).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from medclip.encode.encoder import jax_backend
from medclip.errors import UserError
from medclip.evaluation.classification_metrics import (
    accuracy_metrics,
    confusions,
    exclusive_facts,
    exclusive_metrics,
    majority_facts,
    predict,
)
from medclip.evaluation.config import EvalConfig, LabelConfig
from medclip.evaluation.labeled import Labeled, probe_rows
from medclip.evaluation.labeled_features import encode_labeled, with_random_weights
from medclip.evaluation.provenance import provenance
from medclip.evaluation.results import ConfusionMatrix, Fact, Kind, Results, write_results
from medclip.metrics import Estimate
from medclip.model.checkpoint import load
from medclip.named_metrics import Metric, metric_name, to_metric
from medclip.progress import Advance, progress

SHOTS = (1, 4, 16)
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Candidates for C of the logistic regression, on standardized features."""
NEIGHBORS = (1, 3, 5, 10, 20, 50)
NUM_FOLDS = 5
CI_OF_FEW_SHOT = "95 %, Student's t over draws of the training images; which images are measured is not covered"
REGRESSION, NEAREST, RANDOM = "logistic_regression", "nearest_neighbors", "random_weights"

Features = Float[np.ndarray, "n w"]
Classes = Int[np.ndarray, " n"]
"""Numbers of classes."""


@dataclass(frozen=True)
class Predictions:
    """Probabilities f64 (n, k) of the test images, by the classifiers on one model's features."""

    regression: np.ndarray
    c: float
    nearest: np.ndarray
    num_neighbors: int
    few_shot: dict[int, list[np.ndarray]]
    """By shots, for each draw."""


def evaluate_probe(config: EvalConfig, labels: LabelConfig, num_draws: int = 5) -> Results:
    """Measure both classifiers on a split, trained on the split train, beside random weights of the same architecture.

    `num_draws` is how often the images of few-shot learning are drawn.
    """
    if num_draws < 2:
        raise UserError("--num-draws must be at least 2: an interval over draws needs two.")
    train, test = probe_rows(config, labels)
    model = load(config.model)
    models = [model, *([with_random_weights(model, config.seed)] if labels.random_weights else [])]
    backends = [jax_backend(model, config.cache) for model in models]
    train, train_features = encode_labeled(train, backends, project=False)
    test, test_features = encode_labeled(test, backends, project=False)
    classes = labels.choose([*train.classes, *test.classes])
    if len(train.classes) < 2:
        raise UserError(f"the training images of {config.data} show one class only: there is nothing to learn.")
    train_truth, truth = (np.array([classes.index(values[0]) for values in rows.labels]) for rows in (train, test))
    predictions, articles = [], np.array(train.articles)
    with progress("probe", len(models) * (2 + num_draws * len(SHOTS)), "fits") as advance:
        for known, new in zip(train_features, test_features, strict=True):
            predictions.append(
                predict_probes(known, train_truth, articles, new, len(classes), num_draws, config.seed, advance)
            )
    metrics: list[Metric] = []
    matrices: list[ConfusionMatrix] = []
    facts: dict[str, Fact] = {
        "label": test.label,
        "num_images": len(test),
        **{metric_name("excluded", reason): n for reason, n in test.excluded.items()},
        **_train_facts(train, train_truth, classes),
        "features": f"{train_features[0].shape[1]} numbers an image, before the projection",
        **majority_facts(train_truth, truth, classes),
        "num_draws": num_draws,
        "few_shot_ci_method": CI_OF_FEW_SHOT,
    }
    for path, predicted in zip(((), (RANDOM,)), predictions, strict=False):
        metrics += _metrics(path, predicted, truth, classes, test.articles, config.seed)
        matrices.append(confusions(predicted.regression, truth, classes, metric_name(*path, REGRESSION)))
        facts[metric_name(*path, REGRESSION, "C")] = predicted.c
        facts[metric_name(*path, NEAREST, "k")] = predicted.num_neighbors
        facts |= exclusive_facts(truth, classes, (*path, REGRESSION))
    results = Results(
        kind=Kind.PROBE,
        metrics=tuple(metrics),
        facts=facts,
        confusion_matrices=tuple(matrices),
        provenance=provenance(config, test),
    )
    items = {"id": [row.id for row in test.rows], "article": test.articles, **_items(predictions[0], truth, classes)}
    return write_results(config.out, results, items)


def _train_facts(train: Labeled, truth: Classes, classes: Sequence[str]) -> dict[str, Fact]:
    counts = np.bincount(truth, minlength=len(classes)).tolist()
    return {
        "trained_on/num_images": len(train),
        **{metric_name("trained_on", "excluded", reason): n for reason, n in train.excluded.items()},
        **{metric_name("trained_on", "classes", name): n for name, n in zip(classes, counts, strict=True)},
        "trained_on/sha256": train.digest,
    }


def fit_regression(features: Features, truth: Classes, articles: np.ndarray, seed: int) -> Any:
    """Logistic regression on standardized features.

    C is the one that does best in cross-validation over folds of articles, and 1 where no class has two articles.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    grid = {"logisticregression__C": STRENGTHS}
    return _grid_search(regression, grid, features, truth, article_folds(truth, articles, seed))


def fit_neighbors(features: Features, truth: Classes, articles: np.ndarray, seed: int) -> Any:
    """The vote of the nearest rows by cosine; their number is chosen in the same way, else 1."""
    from sklearn.neighbors import KNeighborsClassifier

    folds = article_folds(truth, articles, seed)
    grid = {"n_neighbors": [k for k in NEIGHBORS if all(k <= len(rest) for rest, _ in folds)]}
    return _grid_search(KNeighborsClassifier(1, metric="cosine"), grid, features, truth, folds)


def _grid_search(classifier: Any, grid: dict[str, Any], features: Features, truth: Classes, folds: list[Any]) -> Any:
    """The classifier fitted to all rows, with the values of the grid that get most held-out rows right."""
    from sklearn.model_selection import GridSearchCV
    from threadpoolctl import threadpool_limits

    # The matrices are small: on a busy machine BLAS's threads waited for each other 60 times as long as they worked.
    with threadpool_limits(1):
        if not folds:
            return classifier.fit(features, truth)
        return GridSearchCV(classifier, grid, cv=folds).fit(features, truth).best_estimator_


def draw_shots(truth: Classes, shots: int, seed: int) -> Int[np.ndarray, " m"]:
    """Rows of `shots` images of each class, or of all where a class has fewer."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(np.flatnonzero(truth == c))[:shots] for c in np.unique(truth)])


def mean_over_draws(values: Sequence[float]) -> Estimate:
    """Mean of a metric over draws of the training images, with the 95 % interval of that mean (Student's t).

    Draws that all give the same say nothing of how others differ: its ends are NaN.
    """
    from scipy.stats import sem, t

    mean = float(np.mean(values))
    if not np.ptp(values):
        return Estimate(mean, math.nan, math.nan)
    margin = float(sem(values)) * float(t.ppf(0.975, len(values) - 1))
    return Estimate(mean, max(0.0, mean - margin), min(1.0, mean + margin))


def predict_probes(
    features: Features,
    truth: Classes,
    articles: np.ndarray,
    test_features: Float[np.ndarray, "m w"],
    num_classes: int,
    num_draws: int,
    seed: int,
    advance: Advance,
) -> Predictions:
    """Fit all classifiers on `features` and let them predict `test_features`."""
    regression = fit_regression(features, truth, articles, seed)
    advance()
    nearest = fit_neighbors(features, truth, articles, seed)
    advance()
    few_shot: dict[int, list[np.ndarray]] = {shots: [] for shots in SHOTS}
    for shots, draws in few_shot.items():
        for draw in range(num_draws):
            rows = draw_shots(truth, shots, seed + draw)
            classifier = fit_regression(features[rows], truth[rows], articles[rows], seed)
            draws.append(_probabilities(classifier, test_features, num_classes))
            advance()
    return Predictions(
        regression=_probabilities(regression, test_features, num_classes),
        c=regression.named_steps["logisticregression"].C,
        nearest=_probabilities(nearest, test_features, num_classes),
        num_neighbors=nearest.n_neighbors,
        few_shot=few_shot,
    )


def _probabilities(classifier: Any, features: Features, num_classes: int) -> np.ndarray:
    """Probabilities f64 (n, num_classes); a class that was not in the training images has none."""
    probabilities = np.zeros((len(features), num_classes))
    probabilities[:, classifier.classes_] = classifier.predict_proba(features)
    return probabilities


def _metrics(
    path: tuple[str, ...],
    predictions: Predictions,
    truth: Classes,
    classes: Sequence[str],
    articles: Sequence[str],
    seed: int,
) -> Iterator[Metric]:
    """Of both classifiers and of few shots, below `path`; those of the model itself can be compared."""
    for name, values in ((REGRESSION, predictions.regression), (NEAREST, predictions.nearest)):
        column = None if path else f"{name}/correct"
        per_class = name == REGRESSION
        yield from exclusive_metrics(values, truth, classes, articles, seed, (*path, name), column, per_class)
    true = np.eye(len(classes), dtype=bool)
    chance = {"accuracy": 1 / len(classes), "balanced_accuracy": 1 / len(classes)}
    for shots, draws in predictions.few_shot.items():
        by_draw = [accuracy_metrics(true[predict(values, truth)], true[truth]) for values in draws]
        for name in by_draw[0]:
            measured = mean_over_draws([metrics[name] for metrics in by_draw])
            yield to_metric(metric_name(*path, "few_shot", str(shots), name), measured, chance.get(name))


def _items(predictions: Predictions, truth: Classes, classes: Sequence[str]) -> dict[str, list[str] | np.ndarray]:
    """Columns of the items; `predicted` and `probability` are the logistic regression's."""
    predicted = predict(predictions.regression, truth)
    return {
        "label": [classes[int(c)] for c in truth],
        "predicted": [classes[int(c)] for c in predicted],
        "probability": predictions.regression[np.arange(len(truth)), truth],
        f"{REGRESSION}/correct": (predicted == truth).astype(float),
        f"{NEAREST}/correct": (predict(predictions.nearest, truth) == truth).astype(float),
    }


def article_folds(truth: Classes, articles: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and held-out rows of each fold: no article in both, classes spread evenly.

    Empty where no class has two articles. A class with fewer articles than folds is missing from some.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    max_articles = max(len(set(articles[truth == c])) for c in np.unique(truth))
    if max_articles < 2:
        return []
    splitter = StratifiedGroupKFold(min(NUM_FOLDS, max_articles), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        folds = list(splitter.split(truth, truth, articles))
    return [(train, test) for train, test in folds if len(np.unique(truth[train])) > 1 and len(test)]

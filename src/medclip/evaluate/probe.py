"""What frozen features hold: logistic regression and nearest neighbors on them, with all labels and with a few.

Features are those before the projection, as in Radford et al. 2021 (appendix A.3).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from medclip.encode.encoder import pixel_features
from medclip.errors import UserError
from medclip.evaluate.classification_metrics import FIGURES, one_of, predicted, shares
from medclip.evaluate.config import EvalConfig
from medclip.evaluate.labeled import LabelConfig, probed_rows
from medclip.evaluate.labeled_features import encoded, with_random_weights
from medclip.evaluate.results import provenance, write_results
from medclip.model.checkpoint import load
from medclip.progress import Advance, progress

SHOTS = (1, 4, 16)
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Candidates for C of the logistic regression, on standardized features."""
NEIGHBORS = (1, 3, 5, 10, 20, 50)
FOLDS = 5


def evaluate_probe(subject: EvalConfig, task: LabelConfig, seeds: int = 5) -> dict[str, Any]:
    """Measure both classifiers on a split, learnt from the split train, beside random weights of the same architecture.

    `seeds` is how often the images of few-shot learning are drawn.
    """
    if seeds < 2:
        raise UserError("--num-draws must be at least 2: an interval over draws needs two.")
    train, measured = probed_rows(subject, task)
    model = load(subject.model)
    models = {"model": model}
    models |= {"random_weights": with_random_weights(model, subject.seed)} if task.random_weights else {}
    encoders = [partial(pixel_features, one) for one in models.values()]
    (train, known), (measured, asked) = (encoded(rows, model.preprocessor, encoders) for rows in (train, measured))
    classes = task.among([*train.classes, *measured.classes])
    if len(train.classes) < 2:
        raise UserError(f"the training images of {subject.data} show one class only: there is nothing to learn.")
    of, truth = (np.array([classes.index(values[0]) for values in rows.labels]) for rows in (train, measured))
    learnt = {}
    with progress("probe", len(models) * (2 + seeds * len(SHOTS)), "fits") as advance:
        for name, features, vectors in zip(models, known, asked, strict=True):
            articles = np.array(train.articles)
            learnt[name] = _learn(features, of, articles, vectors, len(classes), seeds, subject.seed, advance)
    of_model, *others = (_figures(one, truth, classes, measured.articles, subject.seed) for one in learnt.values())
    counts = np.bincount(of, minlength=len(classes))
    results = {
        "label": measured.label,
        "pictures": len(measured),
        "left_out": measured.left_out,
        "trained_on": {
            "pictures": len(train),
            "left_out": train.left_out,
            "classes": dict(zip(classes, counts.tolist(), strict=True)),
            "sha256": train.digest,
        },
        "features": f"{known[0].shape[1]} numbers an image, before the projection",
        "chance": 1 / len(classes),
        "majority": {"class": classes[counts.argmax()], "accuracy": float((truth == counts.argmax()).mean())},
        "draws": seeds,
        **of_model,
        "random_weights": others[0] if others else None,
        **provenance(subject, measured),
    }
    items = {"id": [row.id for row in measured.rows], "article": measured.articles}
    return write_results(subject.out, "probe", results, items | _items(learnt["model"], truth, classes))


def fitted(features: np.ndarray, truth: np.ndarray, articles: np.ndarray, seed: int) -> Any:
    """Logistic regression on standardized features (m, w) of class numbers (m,).

    C is the one that does best on parts of these rows in turn held out, articles kept together, and 1 where no class
    has two articles.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    grid = {"logisticregression__C": STRENGTHS}
    return _best(regression, grid, features, truth, _folds(truth, articles, seed))


def neighbors(features: np.ndarray, truth: np.ndarray, articles: np.ndarray, seed: int) -> Any:
    """The vote of the nearest rows by cosine; how many is chosen in the same way, and 1 where it cannot be."""
    from sklearn.neighbors import KNeighborsClassifier

    folds = _folds(truth, articles, seed)
    grid = {"n_neighbors": [k for k in NEIGHBORS if all(k <= len(rest) for rest, _ in folds)]}
    return _best(KNeighborsClassifier(1, metric="cosine"), grid, features, truth, folds)


def _best(classifier: Any, grid: dict[str, Any], features: np.ndarray, truth: np.ndarray, folds: list[Any]) -> Any:
    """The classifier fitted to all rows, with the values of the grid that get most held-out rows right."""
    from sklearn.model_selection import GridSearchCV
    from threadpoolctl import threadpool_limits

    # The matrices are small: on a busy machine BLAS's threads waited for each other 60 times as long as they worked.
    with threadpool_limits(1):
        if not folds:
            return classifier.fit(features, truth)
        return GridSearchCV(classifier, grid, cv=folds).fit(features, truth).best_estimator_


def drawn(truth: np.ndarray, shots: int, seed: int) -> np.ndarray:
    """Rows of `shots` images of each class, or of all where a class has fewer, i64 (m,)."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(np.flatnonzero(truth == c))[:shots] for c in np.unique(truth)])


def over_draws(values: Sequence[float]) -> dict[str, float]:
    """Mean of a figure over draws of the training images, with the 95 % interval of that mean (Student's t)."""
    from scipy.stats import sem, t

    mean, error = float(np.mean(values)), float(sem(values))
    reach = error * float(t.ppf(0.975, len(values) - 1))
    return {"value": mean, "low": max(0.0, mean - reach), "high": min(1.0, mean + reach)}


@dataclass(frozen=True)
class _Learnt:
    """What the classifiers on one model's features say of the measured images: probabilities f64 (n, k)."""

    regression: np.ndarray
    c: float
    nearest: np.ndarray
    k: int
    few: dict[int, list[np.ndarray]]
    """By shots, for each draw."""


def _learn(
    features: np.ndarray, truth: np.ndarray, articles: np.ndarray, asked: np.ndarray, classes: int, draws: int,
    seed: int, advance: Advance,
) -> _Learnt:  # fmt: skip
    """Fit all classifiers on `features` (m, w) and let them judge `asked` (n, w)."""
    regression = fitted(features, truth, articles, seed)
    advance()
    nearest = neighbors(features, truth, articles, seed)
    advance()
    few: dict[int, list[np.ndarray]] = {shots: [] for shots in SHOTS}
    for shots, of in few.items():
        for draw in range(draws):
            rows = drawn(truth, shots, seed + draw)
            of.append(_judged(fitted(features[rows], truth[rows], articles[rows], seed), asked, classes))
            advance()
    return _Learnt(
        regression=_judged(regression, asked, classes),
        c=regression.named_steps["logisticregression"].C,
        nearest=_judged(nearest, asked, classes),
        k=nearest.n_neighbors,
        few=few,
    )


def _judged(classifier: Any, asked: np.ndarray, classes: int) -> np.ndarray:
    """Probabilities f64 (n, classes); a class that was not learnt has none."""
    found = np.zeros((len(asked), classes))
    found[:, classifier.classes_] = classifier.predict_proba(asked)
    return found


def _figures(
    learnt: _Learnt, truth: np.ndarray, classes: Sequence[str], articles: Sequence[str], seed: int
) -> dict[str, Any]:
    regression = one_of(learnt.regression, truth, classes, articles, seed)
    nearest = one_of(learnt.nearest, truth, classes, articles, seed)
    true, few = np.eye(len(classes), dtype=bool), {}
    for shots, draws in learnt.few.items():
        each = [shares(true[predicted(of, truth)], true[truth]) for of in draws]
        few[str(shots)] = {name: over_draws([one[name] for one in each]) for name in each[0]}
    kept = (*FIGURES, "classes", "confusion")
    return {
        "logistic_regression": {**{name: regression[name] for name in kept}, "C": learnt.c},
        "nearest_neighbors": {**{name: nearest[name] for name in FIGURES}, "k": learnt.k},
        "few_shot": few,
    }


def _items(learnt: _Learnt, truth: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """What the classifiers make of each image; `predicted` and `probability` are the logistic regression's."""
    chosen = predicted(learnt.regression, truth)
    return {
        "label": [classes[c] for c in truth],
        "predicted": [classes[c] for c in chosen],
        "probability": learnt.regression[np.arange(len(truth)), truth],
        "correct_logistic_regression": (chosen == truth).astype(float),
        "correct_nearest_neighbors": (predicted(learnt.nearest, truth) == truth).astype(float),
    }


def _folds(truth: np.ndarray, articles: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to learn from and rows held out, in turn: no article in both, classes spread evenly; none where no class has
    two articles. A class with fewer articles than parts is missing from some.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    most = max(len(set(articles[truth == c])) for c in np.unique(truth))
    if most < 2:
        return []
    parts = StratifiedGroupKFold(min(FOLDS, most), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        every = list(parts.split(truth, truth, articles))
    return [(rest, part) for rest, part in every if len(np.unique(truth[rest])) > 1 and len(part)]

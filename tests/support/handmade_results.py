"""Evaluations made by hand: results and items of known values, as `medclip evaluate` writes them."""

from dataclasses import replace

import numpy as np

from medclip.evaluation.provenance import Provenance
from medclip.evaluation.results import (
    ConfusionMatrix,
    Kind,
    ReliabilityBin,
    ReliabilityCurve,
    Results,
    write_results,
)
from medclip.evaluation.retrieval import ROLES
from medclip.metrics import DIRECTIONS, Estimate
from medclip.named_metrics import Metric, metric_name, to_metric

PROVENANCE = Provenance(
    model="a" * 64,
    contamination="unknown",
    contamination_reason="made by hand",
    data="made-up",
    data_sha256="d" * 64,
    synthetic=False,
    split="validation",
    seed=0,
    medclip_version="0",
)


def metric(name, value, low=None, high=None, **more) -> Metric:
    if value is None:
        return to_metric(name, None, **more)
    return to_metric(name, Estimate(value, value if low is None else low, value if high is None else high), **more)


def articles_of(n, size=2):
    return [f"article {i // size}" for i in range(n)]


def retrieval(out, image_to_text, text_to_image, ids=None, articles=None, **origin):
    """A retrieval evaluation with these ranks."""
    both = {"image_to_text": np.asarray(image_to_text), "text_to_image": np.asarray(text_to_image)}
    n = len(both["image_to_text"])
    statistics = {f"R@{k}": lambda ranks, k=k: (ranks <= k).mean() for k in (1, 5, 10)}
    statistics |= {"median_rank": np.median, "geometric_mean_rank": lambda ranks: np.exp(np.log(ranks).mean())}
    results = Results(
        kind=Kind.RETRIEVAL,
        facts={"num_candidates": n},
        metrics=tuple(
            metric(
                f"{direction}/{name}",
                float(statistic(both[direction])),
                chance=min(1.0, int(name[2:]) / n) if name.startswith("R@") else None,
                column=f"{direction}/rank",
                statistic=name,
                role=ROLES[name],
            )
            for direction in DIRECTIONS
            for name, statistic in statistics.items()
        ),
        provenance=replace(PROVENANCE, **origin),
    )
    items = {"id": ids or [f"item {i}" for i in range(n)], "article": articles or articles_of(n)}
    write_results(out, results, items | {f"{direction}/rank": own for direction, own in both.items()})
    return out


def classes(out, labels, correct, label="modality", excluded=None, num_absent=0, **origin):
    """A zero-shot evaluation of these true classes, of which these were recognized, and of some that no image shows."""
    labels, correct = list(labels), np.asarray(correct, float)
    names = sorted(set(labels))
    recalls = [correct[[label == name for label in labels]].mean() for name in names]
    called = [label if right else names[names.index(label) - 1] for label, right in zip(labels, correct, strict=True)]
    counts = [[sum(t == a and c == b for t, c in zip(labels, called, strict=True)) for b in names] for a in names]
    chance = 1 / (len(names) + num_absent)
    results = Results(
        kind=Kind.ZERO_SHOT,
        facts={
            "label": label,
            "num_images": len(labels),
            **{metric_name("excluded", reason): n for reason, n in (excluded or {"without label": 3}).items()},
            "majority/class": names[0],
            "majority/accuracy": 0.5,
            **{metric_name("classes", name, "num_images"): labels.count(name) for name in names},
            "calibration/num_bins": 15,
        },
        metrics=(
            metric(
                "accuracy",
                float(correct.mean()),
                0.1,
                0.9,
                chance=chance,
                column="correct",
                statistic="mean",
                role="gated",
            ),
            metric(
                "balanced_accuracy",
                float(np.mean(recalls)),
                0.1,
                0.9,
                chance=chance,
                column="correct",
                statistic="mean_over_classes",
                role="compared",
            ),
            metric("auroc", 0.75, 0.7, 0.8, chance=0.5),
            *(metric(metric_name("classes", name, "auroc"), 0.7, 0.6, 0.8, chance=0.5) for name in names),
            metric("calibration/raw/ece", 0.2, 0.1, 0.3),
            metric("random_weights/accuracy", float(correct.mean()) / 2, chance=chance),
        ),
        confusion_matrices=(ConfusionMatrix("prompts", tuple(names), tuple(map(tuple, counts))),),
        reliability_curves=(
            ReliabilityCurve("raw", (ReliabilityBin(0.5, 3, 0.4, 0.3), ReliabilityBin(1.0, 5, 0.8, 0.6))),
        ),
        provenance=replace(PROVENANCE, **origin),
    )
    items = {"id": [f"item {i}" for i in range(len(labels))], "article": articles_of(len(labels)), "label": labels}
    write_results(out, results, items | {"correct": correct, "probability": correct / 2})
    return out


RANKS_EXAMPLE = (
    np.array([[1, 0], [0, 1]]),
    np.array([[0.6, 0.8], [0.8, 0.6], [0.8, -0.6]]),
    np.array([[0, 0], [0, 1], [1, 2]]),
)
"""The images, texts and pairs of the docstring of `ranks`."""


def by_hand(query, candidates, right):
    """The place of the best right candidate when every wrong one that ties with it goes first."""
    order = sorted(range(len(candidates)), key=lambda c: (-float(np.dot(query, candidates[c])), c in right))
    return 1 + next(place for place, c in enumerate(order) if c in right)

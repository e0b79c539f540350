"""Evaluations made by hand: results and items of known values, as measures write them."""

import numpy as np

from medclip.evaluate.results import write_results

FROM = {
    "interval": "95 % bootstrap, 1000 resamples of whole articles",
    "model": "a" * 64,
    "data": "made-up",
    "data_sha256": "d" * 64,
    "synthetic": False,
    "split": "validation",
    "seed": 0,
    "medclip": "0",
    "notice": "",
}


def figure(value, low=None, high=None):
    return {"value": value, "low": value if low is None else low, "high": value if high is None else high}


def articles_of(n, size=2):
    return [f"article {i // size}" for i in range(n)]


def retrieval(out, image_to_text, text_to_image, ids=None, articles=None, **said):
    """An evaluation of retrieval with these ranks."""
    found = {"image_to_text": np.asarray(image_to_text), "text_to_image": np.asarray(text_to_image)}
    n = len(found["image_to_text"])
    results = {
        "pool": n,
        **{
            way: {f"R@{k}": figure(float((own <= k).mean())) for k in (1, 5, 10)}
            | {"median_rank": figure(float(np.median(own)))}
            for way, own in found.items()
        },
        "chance": {f"R@{k}": min(1.0, k / n) for k in (1, 5, 10)},
        **FROM,
        **said,
    }
    items = {"id": ids or [f"item {i}" for i in range(n)], "article": articles or articles_of(n)}
    write_results(out, "retrieval", results, items | {f"rank_{way}": own for way, own in found.items()})
    return out


def classes(out, labels, correct, **said):
    """A zero-shot evaluation of these true classes, of which these were told rightly."""
    labels, correct = list(labels), np.asarray(correct, float)
    names = sorted(set(labels))
    recalls = [correct[[label == name for label in labels]].mean() for name in names]
    called = [label if right else names[names.index(label) - 1] for label, right in zip(labels, correct, strict=True)]
    results = {
        "pictures": len(labels),
        "label": "modality",
        "accuracy": figure(float(correct.mean()), 0.1, 0.9),
        "balanced_accuracy": figure(float(np.mean(recalls)), 0.1, 0.9),
        "auroc": figure(0.75, 0.7, 0.8),
        "chance": 1 / len(names),
        "majority": {"class": names[0], "accuracy": 0.5},
        "classes": {name: {"pictures": labels.count(name), "auroc": figure(0.7, 0.6, 0.8)} for name in names},
        "confusion": [
            [sum(t == a and c == b for t, c in zip(labels, called, strict=True)) for b in names] for a in names
        ],
        "calibration": {
            "raw": {
                "ece": figure(0.2, 0.1, 0.3),
                "curve": [
                    {"up_to": 0.5, "pictures": 3, "confidence": 0.4, "accuracy": 0.3},
                    {"up_to": 1.0, "pictures": 5, "confidence": 0.8, "accuracy": 0.6},
                ],
            }
        },
        "few_shot": {str(shots): {"accuracy": figure(0.3 + shots / 100, 0.2, 0.6)} for shots in (1, 4, 16)},
        "random_weights": {"accuracy": figure(float(correct.mean()) / 2)},
        "left_out": {"without label": 3},
        **FROM,
        **said,
    }
    items = {"id": [f"item {i}" for i in range(len(labels))], "article": articles_of(len(labels)), "label": labels}
    write_results(out, "zero-shot", results, items | {"correct": correct, "probability": correct / 2})
    return out


def by_hand(query, candidates, right):
    """The place of the best right candidate when every wrong one that ties with it goes first."""
    order = sorted(range(len(candidates)), key=lambda c: (-float(np.dot(query, candidates[c])), c in right))
    return 1 + next(place for place, c in enumerate(order) if c in right)

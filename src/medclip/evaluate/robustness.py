"""How much of a model's retrieval survives when its images are corrupted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medclip.data.dataset import Split
from medclip.encode.decode import decode_pixels, pixel_batches
from medclip.encode.encoder import embed_pixels, embed_texts
from medclip.evaluate.config import EvalConfig
from medclip.evaluate.corruptions import CORRUPTIONS, corrupted
from medclip.evaluate.results import provenance, write_results
from medclip.metrics import WAYS, interval, ranks
from medclip.model.checkpoint import Model, load
from medclip.progress import Advance, progress

K = 10
CLEAN = ("none", 0)


def evaluate_robustness(subject: EvalConfig) -> dict[str, Any]:
    """Measure retrieval over a split with clean images and with every corruption at three severities."""
    encoder, rows = load(subject.model), subject.rows()
    kinds = [CLEAN, *((name, severity) for name in CORRUPTIONS for severity in (1, 2, 3))]
    with progress("embed", len(rows) * (len(kinds) + 1), "items") as advance:
        texts = embed_texts(encoder, rows.column("caption"), advance)
        found = [judged(_images(encoder, rows, *kind, subject.seed, advance), texts) for kind in kinds]
    ids, articles = rows.column("id"), rows.column("article")
    clean, *changed = (measured(own, found[0], articles, subject.seed) for own in found)
    settings = [setting for corruption in CORRUPTIONS.values() for setting in corruption.settings]
    corruptions = {name: {"settings": about.said, "severities": []} for name, about in CORRUPTIONS.items()}
    for (name, severity), setting, said in zip(kinds[1:], settings, changed, strict=True):
        corruptions[name]["severities"].append({"severity": severity, "setting": setting, **said})
    results = {
        "pool": len(rows),
        "clean": {name: value for name, value in clean.items() if not name.endswith("change")},
        "corruptions": corruptions,
        "worst": min(corruptions, key=lambda name: sum(s["change"]["value"] for s in corruptions[name]["severities"])),
        **provenance(subject, rows),
    }
    items = {
        "id": ids * len(kinds),
        "article": articles * len(kinds),
        "corruption": [name for name, _ in kinds for _ in ids],
        "severity": [severity for _, severity in kinds for _ in ids],
        **{column: np.concatenate([own[column] for own in found]) for column in found[0]},
    }
    return write_results(subject.out, "robustness", results, items)


def judged(images: np.ndarray, texts: np.ndarray) -> dict[str, np.ndarray]:
    """The ranks of every pair both ways and the cosine of the true ones, of unit vectors (n, p)."""
    exact = (images.astype(np.float64) * texts).sum(axis=1)
    found = zip(WAYS, ranks(images, texts), strict=True)
    return {**{f"rank_{way}": own for way, own in found}, "cosine": exact}


def measured(
    found: dict[str, np.ndarray], clean: dict[str, np.ndarray], articles: Sequence[str], seed: int
) -> dict[str, dict[str, float]]:
    """R@10 each way and over both, the mean cosine, and how far the last two differ from the clean images' own.

    Differences are paired: each pair is compared with itself, and its article resampled as a whole.
    """
    ways = ("image_to_text", "text_to_image")
    hits, before = ([(of[f"rank_{way}"] <= K).astype(np.float64) for way in ways] for of in (found, clean))
    values = {
        **dict(zip(ways, hits, strict=True)),
        f"R@{K}": np.mean(hits, axis=0),
        "change": np.mean(hits, axis=0) - np.mean(before, axis=0),
        "cosine": found["cosine"],
        "cosine_change": found["cosine"] - clean["cosine"],
    }
    return {name: interval(value, articles, lambda of: float(of.mean()), seed) for name, value in values.items()}


def _images(model: Model, rows: Split, name: str, severity: int, seed: int, advance: Advance) -> np.ndarray:
    """Vectors of all images, corrupted a batch at a time: never more than a batch of them is in memory."""
    ids = rows.column("id")

    def read_pixels(row: int) -> np.ndarray:
        return decode_pixels(corrupted(rows.image(row), name, severity, ids[row], seed), model.preprocessor)

    return np.concatenate([embed_pixels(model, x, advance) for x in pixel_batches(range(len(rows)), read_pixels)])

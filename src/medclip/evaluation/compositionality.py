"""Compositionality: an image's choice between its own caption and one changed in a single thing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from medclip.data.dataset import Split
from medclip.data.foils import foil_rules
from medclip.encode.encoder import Backend, embed_captions, embed_split, jax_backend
from medclip.errors import UserError
from medclip.evaluation.config import EvalConfig
from medclip.evaluation.provenance import provenance
from medclip.evaluation.results import Fact, Kind, Results, write_results
from medclip.metrics import SHARE, estimate
from medclip.model.checkpoint import load
from medclip.named_metrics import metric_name, to_metric
from medclip.progress import progress

CHANCE = 0.5
MIN_CAPTIONS = 20  # with 20 captions an interval is about 44 points wide; with fewer it says nothing
BY_LABEL = "brain or lung, by label"
PROMPTS = {
    "an image of the head and brain": ("head", "brain", "brain_head"),
    "an image of the chest and lungs": ("chest", "lung", "chest_lung"),
}
"""The two prompts of the choice by label, each with the names of organs that it is true of."""
TIE_TOLERANCE = 1e-6  # cosines of equal float32 vectors differ by less, in any batch


@dataclass(frozen=True, slots=True)
class Question:
    """Which of two captions is true of the image of a row?"""

    test: str
    row: int
    true: str
    false: str


def evaluate_compositionality(config: EvalConfig) -> Results:
    """Measure every test that enough captions of a split allow; the others are excluded with the reason."""
    rows = config.rows()
    captions, labels = rows.column("caption"), [dict(pairs) for pairs in rows.iter_column("labels")]
    candidates = list(questions(captions, labels, config.seed))
    counts = Counter(question.test for question in candidates)
    chosen = [question for question in candidates if counts[question.test] >= MIN_CAPTIONS]
    if not chosen:
        raise UserError(f"split {rows.name!r} of {config.data} has fewer than {MIN_CAPTIONS} captions for each test.")
    image_rows = sorted({question.row for question in chosen})
    ids, articles = (rows.take(name, image_rows) for name in ("id", "article"))
    items: dict[str, list[str] | np.ndarray] = {"id": ids, "article": articles}
    facts: dict[str, Fact] = {"num_images": len(rows)}
    metrics, backend = [], jax_backend(load(config.model), config.cache)
    for test, margin in caption_margins(backend, rows, chosen, image_rows).items():
        path, applies = metric_name("tests", test), ~np.isnan(margin)
        correct = np.where(applies, margin > TIE_TOLERANCE, np.nan)
        items |= {f"{path}/correct": correct, f"{path}/margin": margin}
        groups = [articles[row] for row in np.flatnonzero(applies)]
        accuracy = estimate(correct[applies], groups, lambda values: float(values.mean()), config.seed, SHARE)
        metrics.append(to_metric(f"{path}/accuracy", accuracy, CHANCE, f"{path}/correct", "mean", "gated"))
        facts[f"{path}/num_captions"] = len(groups)
        facts[f"{path}/num_ties"] = int((np.abs(margin[applies]) <= TIE_TOLERANCE).sum())
    for test in (*foil_rules(config.seed), BY_LABEL):
        if counts[test] < MIN_CAPTIONS:
            reason = f"applies to {counts[test]} of {len(rows)} captions, fewer than {MIN_CAPTIONS}"
            facts[metric_name("excluded", test)] = reason
    results = Results(
        kind=Kind.COMPOSITIONALITY, metrics=tuple(metrics), facts=facts, provenance=provenance(config, rows)
    )
    return write_results(config.out, results, items)


def questions(captions: Sequence[str], labels: Sequence[Mapping[str, str]], seed: int) -> Iterator[Question]:
    """Every question that captions and labels allow, test by test; `seed` orders the words that are shuffled."""
    for test, foil in foil_rules(seed).items():
        for row, caption in enumerate(captions):
            if false := foil(caption):
                yield Question(test, row, caption, false)
    (brain, brain_names), (chest, chest_names) = PROMPTS.items()
    for row, values in enumerate(labels):
        if values.get("organ") in brain_names:
            yield Question(BY_LABEL, row, brain, chest)
        elif values.get("organ") in chest_names:
            yield Question(BY_LABEL, row, chest, brain)


def caption_margins(
    backend: Backend, rows: Split, chosen: Sequence[Question], image_rows: Sequence[int]
) -> dict[str, Float64[np.ndarray, " n"]]:
    """How much larger an image's cosine with the true caption is than with the false one, by test.

    A value for each of `image_rows`, NaN where the test does not apply to it.
    """
    captions = list(dict.fromkeys(text for question in chosen for text in (question.true, question.false)))
    with progress("embed", len(image_rows) + len(captions), "items") as advance:
        images = dict(zip(image_rows, embed_split(backend, rows, "images", image_rows, advance), strict=True))
        texts = dict(zip(captions, embed_captions(backend, captions, advance), strict=True))
    positions = {row: i for i, row in enumerate(image_rows)}
    margins = {question.test: np.full(len(image_rows), np.nan) for question in chosen}
    for q in chosen:
        margins[q.test][positions[q.row]] = images[q.row].astype(np.float64) @ (texts[q.true] - texts[q.false])
    return margins

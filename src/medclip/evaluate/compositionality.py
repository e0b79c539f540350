"""What captions mean to a model: an image's choice between its own caption and one changed in a single thing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medclip.data.dataset import Split
from medclip.data.foils import foil_rules
from medclip.encode.encoder import embed_split, embed_texts
from medclip.errors import UserError
from medclip.evaluate.config import EvalConfig
from medclip.evaluate.results import provenance, write_results
from medclip.metrics import interval
from medclip.model.checkpoint import Model, load
from medclip.progress import progress

CHANCE = 0.5
LEAST = 20  # with 20 captions an interval is about 44 points wide; with fewer it says nothing
BY_LABEL = "brain or lung, by label"
PROMPTS = {
    "an image of the head and brain": ("head", "brain", "brain_head"),
    "an image of the chest and lungs": ("chest", "lung", "chest_lung"),
}
"""The two prompts of the choice by label, each with the names of organs that it is true of."""
_TIE = 1e-6  # cosines of equal float32 vectors differ by less, in whatever batch they were made


@dataclass(frozen=True, slots=True)
class Question:
    """Which of two captions is true of the image of a row?"""

    test: str
    row: int
    true: str
    false: str


def evaluate_compositionality(subject: EvalConfig) -> dict[str, Any]:
    """Measure every test that enough captions of a split allow; the others are left out with the reason."""
    rows = subject.rows()
    captions, labels = rows.column("caption"), [dict(said) for said in rows.iter_column("labels")]
    every = list(questions(captions, labels, subject.seed))
    counts = Counter(question.test for question in every)
    asked = [question for question in every if counts[question.test] >= LEAST]
    if not asked:
        raise UserError(f"split {rows.name!r} of {subject.data} has fewer than {LEAST} captions for each test.")
    margin = _margins(load(subject.model), rows, asked)
    items = {
        "id": rows.take("id", (question.row for question in asked)),
        "article": rows.take("article", (question.row for question in asked)),
        "test": [question.test for question in asked],
        "correct": (margin > _TIE).astype(np.float64),
        "margin": margin,
    }
    results = {
        "pool": len(rows),
        "chance": CHANCE,
        "tests": {name: _judged(items, name, subject.seed) for name in counts if counts[name] >= LEAST},
        "left_out": {
            name: f"asked of {counts[name]} of {len(rows)} captions, fewer than {LEAST}"
            for name in (*foil_rules(subject.seed), BY_LABEL)
            if counts[name] < LEAST
        },
        **provenance(subject, rows),
    }
    return write_results(subject.out, "understanding", results, items)


def questions(captions: Sequence[str], labels: Sequence[Mapping[str, str]], seed: int) -> Iterator[Question]:
    """Every question that captions and labels allow, test by test; `seed` orders the words that are shuffled."""
    for name, foil in foil_rules(seed).items():
        for row, caption in enumerate(captions):
            if false := foil(caption):
                yield Question(name, row, caption, false)
    (one, of_one), (other, of_other) = PROMPTS.items()
    for row, said in enumerate(labels):
        if said.get("organ") in of_one:
            yield Question(BY_LABEL, row, one, other)
        elif said.get("organ") in of_other:
            yield Question(BY_LABEL, row, other, one)


def _margins(model: Model, rows: Split, asked: Sequence[Question]) -> np.ndarray:
    """How much more an image's cosine is with what is true than with what is false: f64 (n,)."""
    seen = sorted({question.row for question in asked})
    said = list(dict.fromkeys(text for question in asked for text in (question.true, question.false)))
    with progress("embed", len(seen) + len(said), "items") as advance:
        images = dict(zip(seen, embed_split(model, rows, "images", seen, advance), strict=True))
        texts = dict(zip(said, embed_texts(model, said, advance), strict=True))
    exact = (images[q.row].astype(np.float64) @ (texts[q.true] - texts[q.false]) for q in asked)
    return np.fromiter(exact, np.float64, len(asked))


def _judged(items: Mapping[str, Any], name: str, seed: int) -> dict[str, Any]:
    own = np.array(items["test"]) == name
    correct, articles = items["correct"][own], np.array(items["article"])[own]
    return {
        "captions": len(correct),
        "accuracy": interval(correct, articles, lambda values: float(values.mean()), seed),
        "ties": int((np.abs(items["margin"][own]) <= _TIE).sum()),
    }

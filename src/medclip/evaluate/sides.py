"""Does the model know left from right? Its choice between a caption and the same caption mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medclip.data.captions import mirrored
from medclip.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.evaluate.metrics import interval
from medclip.evaluate.results import provenance, write_results
from medclip.evaluate.subject import Subject
from medclip.model.hub import Model, load
from medclip.progress import progress


def evaluate_sides(subject: Subject) -> dict[str, Any]:
    """Measure the choice over every one-sided caption of a split."""
    encoder, rows = load(subject.model), subject.rows()
    sided = [i for i, caption in enumerate(rows.each("caption")) if mirrored(caption)]
    if not sided:
        raise UserError(f"no caption of split {rows.name!r} in {subject.data} names exactly one of left and right.")
    captions, articles, ids = (rows.values(name, sided) for name in ("caption", "article", "id"))
    with progress("embed", len(sided), "images") as advance:
        images = embed_images(encoder, [rows.image(i) for i in sided], advance)
    right = side_choice(encoder, images, captions)
    results = {
        "captions": len(sided),
        "accuracy": interval(right, articles, lambda values: float(values.mean()), subject.seed),
        "chance": 0.5,
        **provenance(subject, rows),
    }
    return write_results(subject.out, "understanding", results, {"id": ids, "article": articles, "sides": right})


def side_choice(model: Model, images: np.ndarray, captions: Sequence[str]) -> np.ndarray:
    """1.0 for each one-sided caption that scores above its mirror for its own picture, else 0.0: f64 (n,).

    Ties fail, chance is 0.5. `images` are unit vectors (n, p); every caption names exactly one side.
    """
    true = (images * embed_texts(model, captions)).sum(axis=1)
    false = (images * embed_texts(model, [mirrored(caption) for caption in captions])).sum(axis=1)
    return (true > false).astype(np.float64)

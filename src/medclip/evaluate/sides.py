"""Does the model know left from right? Its choice between a caption and the same caption mirrored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medclip.data.captions import mirrored
from medclip.data.places import Place
from medclip.data.shards import Split, only_split
from medclip.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.evaluate.metrics import interval
from medclip.evaluate.retrieval import provenance
from medclip.files import write_json
from medclip.model.hub import Model, load
from medclip.progress import progress


def evaluate_sides(
    model: str | Path,
    data: Place,
    split: str | None = None,
    out: Path | None = None,
    seed: int = 0,
    limit: int | None = None,
) -> dict[str, Any]:
    """Measure the choice over every one-sided caption of a split; writes `out/sides.json` where `out` is given."""
    encoder = load(model)
    rows = Split(data, split or only_split(data), limit)
    sided = [i for i, caption in enumerate(rows.column("caption")) if mirrored(caption)]
    if not sided:
        raise UserError(f"no caption of split {rows.name!r} in {data} names exactly one of left and right.")
    captions, articles = ([column[i] for i in sided] for column in map(rows.column, ("caption", "article")))
    with progress("embed", len(sided), "images") as advance:
        images = embed_images(encoder, [rows.image(i) for i in sided], advance)
    results = {
        "captions": len(sided),
        "accuracy": side_choice(encoder, images, captions, articles, seed),
        "chance": 0.5,
        **provenance(model, rows, seed),
    }
    if out is not None:
        write_json(out / "sides.json", results)
    return results


def side_choice(
    model: Model, images: np.ndarray, captions: Sequence[str], articles: Sequence[str], seed: int
) -> dict[str, float]:
    """Share of one-sided captions that score above their mirror for their own picture; ties fail, chance is 0.5.

    `images` are unit vectors (n, p); every caption names exactly one side.
    """
    true = (images * embed_texts(model, captions)).sum(axis=1)
    false = (images * embed_texts(model, [mirrored(caption) for caption in captions])).sum(axis=1)
    right = (true > false).astype(np.float64)
    return interval(right, articles, lambda values: float(values.mean()), seed)

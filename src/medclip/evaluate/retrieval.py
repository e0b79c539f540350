"""How well captions find their pictures and pictures their captions, over a stated pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medclip import NOT_CLINICAL, __version__
from medclip.data.places import Place
from medclip.data.shards import Split, only_split
from medclip.encoder import embed_images, embed_texts
from medclip.evaluate.metrics import both_ways
from medclip.files import write_json
from medclip.model.hub import load, model_hash
from medclip.progress import progress


def evaluate_retrieval(
    model: str | Path,
    data: Place,
    split: str | None = None,
    out: Path | None = None,
    seed: int = 0,
    limit: int | None = None,
) -> dict[str, Any]:
    """Measure both directions over every pair of a split; writes `out/results.json` where `out` is given."""
    encoder = load(model)
    rows = Split(data, split or only_split(data), limit)
    pictures = [rows.image(i) for i in range(len(rows))]
    captions, articles = rows.column("caption"), rows.column("article")
    with progress("embed", 2 * len(rows), "items") as advance:
        images = embed_images(encoder, pictures, advance)
        texts = embed_texts(encoder, captions, advance)
    results = {**both_ways(images, texts, articles, seed), **provenance(model, rows, seed)}
    if out is not None:
        write_json(out / "results.json", results)
    return results


def provenance(model: str | Path, rows: Split, seed: int) -> dict[str, Any]:
    """What every results file states beside its numbers."""
    return {
        "interval": "95 % bootstrap, 1000 resamples of whole articles",
        "model": model_hash(model),
        "data": rows.dataset["source"],
        "synthetic": rows.dataset["synthetic"],
        "split": rows.name,
        "seed": seed,
        "medclip": __version__,
        "notice": NOT_CLINICAL,
    }

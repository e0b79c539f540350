"""How well captions find their pictures and pictures their captions, over a stated pool."""

from __future__ import annotations

from typing import Any

from medclip.encoder import embed_images, embed_texts
from medclip.evaluate.metrics import ranks, retrieval_metrics
from medclip.evaluate.results import provenance, write_results
from medclip.evaluate.subject import Subject
from medclip.model.hub import load
from medclip.progress import progress


def evaluate_retrieval(subject: Subject) -> dict[str, Any]:
    """Measure both directions over every pair of a split."""
    encoder, rows = load(subject.model), subject.rows()
    with progress("embed", 2 * len(rows), "items") as advance:
        images = embed_images(encoder, [rows.image(i) for i in range(len(rows))], advance)
        texts = embed_texts(encoder, rows.column("caption"), advance)
    articles = rows.column("article")
    found = {"image_to_text": ranks(images, texts), "text_to_image": ranks(texts, images)}
    results = {
        "pool": len(rows),
        **{way: retrieval_metrics(own, articles, subject.seed) for way, own in found.items()},
        **provenance(subject, rows),
    }
    items = {"id": rows.column("id"), "article": articles, **{f"rank_{way}": own for way, own in found.items()}}
    return write_results(subject.out, "retrieval", results, items)

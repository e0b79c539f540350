"""A search by a new process: imports, weights, compiled programs, answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from performance.models import TRANSFORMERS, choose_images, write_model, write_pairs
from performance.record import MEDCLIP, Bounds, Comparison, Result, in_new_process, in_turn, ratios, run

QUERY = "CT of the chest"
SEARCH = (
    TRANSFORMERS
    + """
embeddings = numpy.load(sys.argv[2])
with torch.inference_mode():
    scores = embeddings @ embed_texts([sys.argv[3]])[0]
best = numpy.argsort(-scores)[:10]
print(json.dumps([[int(row), float(scores[row])] for row in best]))
"""
)


def _save_embeddings(index: Path, out: Path) -> None:
    from medclip.search.reader import IndexReader

    reader = IndexReader(index)
    order = np.argsort([int(id) for id in reader.table.column("id").to_pylist()])
    np.save(out, reader.embeddings_at(order))


def measure(bounds: Bounds) -> Iterator[Result]:
    folder = bounds.folder
    model = write_model(bounds, "small")
    pairs = write_pairs(choose_images(bounds, 16), folder / "source")
    run([*MEDCLIP, "prepare", pairs, "--out", folder / "data", "--num-workers", 1])
    run([*MEDCLIP, "index", "build", "--model", model, "--data", folder / "data", "--split", "train",
         "--out", folder / "index"])  # fmt: skip
    in_new_process(_save_embeddings, folder / "index", folder / "embeddings.npy")
    ours = [*MEDCLIP, "search", "--index", folder / "index", QUERY, "--json"]
    theirs = [bounds.peers, "-c", SEARCH, model, folder / "embeddings.npy", QUERY]
    run(ours)  # fills the compilation cache
    run(theirs)
    runs = in_turn(bounds.rounds, {"ours": partial(run, ours), "peer": partial(run, theirs)})
    hits = [json.loads(line) for line in runs["ours"][0].output.splitlines()]
    expected = json.loads(runs["peer"][0].output)
    assert hits, "no hits"
    scores = dict(expected)
    assert all(abs(scores[int(hit["id"])] - hit["score"]) < 1e-4 for hit in hits), (hits, expected)
    size = sum(path.stat().st_size for path in model.iterdir()) / 1e6
    yield Comparison(
        "`medclip search`, new process, DINOv2-S with MiniLM", "a transformers script that opens the same folder",
        ratios(runs["peer"], runs["ours"]), goal=1, checked="the scores of the hits, within 1e-4",
        limit=f"{size:.0f} MB of weights read",
    )  # fmt: skip

"""What the parts of a query are worth, where it is known what every image shows.

    medclip quickstart --out Q --no-app
    python benchmarks/queries.py --index INDEX              # of phantoms, with Q/run; or of pairs with labels

"Like this, but MRI": an image and a text for another modality; right is a hit with the image's organ and the text's
modality. "Without": a text for an organ, and a side not wanted; right is a hit of the organ and not of the side.
Precision at ten with 95 % intervals over queries, for the sum of unit vectors and for the search's own, whose cosines
are first divided by how much they vary over the index.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from medclip import jax_setup

jax_setup.start()

from medclip.metrics import SHARE, estimate  # noqa: E402
from medclip.prompts import class_key, read_prompts  # noqa: E402
from medclip.search.index import Index  # noqa: E402
from medclip.search.query import Query, combine_embeddings  # noqa: E402

NUM_QUERIES, K = 200, 10
NEGATIVE_WEIGHTS = (-0.25, -0.5, -1.0)


def precision(index: Index, embedding: np.ndarray, relevant: np.ndarray) -> float:
    """Precision at K; `relevant` is a mask over the rows."""
    return float(np.mean([relevant[row] for row, _ in index.reader.nearest_rows(embedding[None], K)[0]]))


def plain_sum(parts: list[tuple[np.ndarray, float]]) -> np.ndarray:
    total = np.sum([weight * embedding for embedding, weight in parts], axis=0)
    return total / np.linalg.norm(total)


def report(task: str, precisions: dict[str, list[float]]) -> None:
    for method, values in precisions.items():
        mean = estimate(np.array(values), list(map(str, range(len(values)))), lambda x: float(x.mean()), 0, SHARE)
        rounded = {end: round(value, 3) for end, value in dataclasses.asdict(mean).items()}
        print(json.dumps({"task": task, "method": method, **rounded}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    index, rng = Index.open(args.index), np.random.default_rng(args.seed)
    labels = [dict(pairs) for pairs in index.reader.table.column("labels").to_pylist()]
    values = {name: np.array([row.get(name, "") for row in labels]) for name in ("modality", "organ", "side")}
    modalities, organs = (sorted(set(values[name]) - {""}) for name in ("modality", "organ"))
    print(json.dumps({"num_images": len(labels), "queries": NUM_QUERIES, "seed": args.seed}))
    texts = {}
    for label, classes in (("modality", modalities), ("organ", organs)):
        names = read_prompts(None, label, False).names
        texts |= {name: names.get(class_key(name), (name,))[0] for name in classes}
    texts |= {"left": "left", "right": "right"}
    embeddings = {name: index.embed_queries([Query((text,))])[0] for name, text in texts.items()}
    sample = index.reader.sample_embeddings

    precisions: dict[str, list[float]] = defaultdict(list)
    rows = rng.choice(np.flatnonzero((values["modality"] != "") & (values["organ"] != "")), NUM_QUERIES)
    for row, offset in zip(rows, rng.integers(1, len(modalities), size=NUM_QUERIES), strict=True):
        modality = modalities[(modalities.index(values["modality"][row]) + offset) % len(modalities)]
        relevant = (values["organ"] == values["organ"][row]) & (values["modality"] == modality)
        image, text = index.reader.embeddings_at(np.array([row]))[0], embeddings[modality]
        parts = [(image, 1.0), (text, 1.0)]
        methods = {"image alone": image, "text alone": text}
        methods |= {"sum": plain_sum(parts), "standardized sum": combine_embeddings(sample, parts)}
        for method, embedding in methods.items():
            precisions[method].append(precision(index, embedding, relevant))
    report("like this, but another modality", precisions)

    precisions = defaultdict(list)
    for organ in organs:
        for side in sorted({"left", "right"} & set(values["side"])):
            relevant = (values["organ"] == organ) & (values["side"] != side)
            precisions["text alone"].append(precision(index, embeddings[organ], relevant))
            for weight in NEGATIVE_WEIGHTS:
                parts = [(embeddings[organ], 1.0), (embeddings[side], weight)]
                precisions[f"sum, {weight}"].append(precision(index, plain_sum(parts), relevant))
                combined = combine_embeddings(sample, parts)
                precisions[f"standardized sum, {weight}"].append(precision(index, combined, relevant))
    report("an organ, without a side", precisions)


if __name__ == "__main__":
    main()

"""What the parts of a query are worth, where it is known what every image shows.

    medclip quickstart --out Q --no-app
    python benchmarks/queries.py --index INDEX              # of phantoms, with Q/run; or of pairs with labels

"Like this, but MRI": an image and words for another modality; right is a hit with the image's organ and the words'
modality. "Without": words for an organ, and a side not wanted; right is a hit of the organ and not of the side. Last,
words for modality and organ, alone and as the mean of several ways to say them. Share of the ten best that are right,
95 % intervals over queries, for the sum of unit vectors and for ours, whose cosines are first divided by how they vary
over the index.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from medclip import jax_setup

jax_setup.start()

from medclip.metrics import interval  # noqa: E402
from medclip.prompts import read_prompts  # noqa: E402
from medclip.search.query import Query, Searcher, _together, open_searcher, query_embeddings  # noqa: E402

QUERIES, TOP = 200, 10
WEIGHTS = (-0.25, -0.5, -1.0)


def right(searcher: Searcher, vector: np.ndarray, wanted: np.ndarray) -> float:
    """The share of the ten best that are wanted, bool (n,)."""
    return float(np.mean([wanted[row] for row, _ in searcher.index.search(vector[None], TOP)[0]]))


def plain(parts: list[tuple[np.ndarray, float]]) -> np.ndarray:
    summed = sum(weight * vector for vector, weight in parts)
    return summed / np.linalg.norm(summed)


def tell(task: str, way: str, shares: list[float]) -> None:
    said = interval(np.array(shares), list(map(str, range(len(shares)))), lambda x: float(x.mean()), 0)
    print(json.dumps({"task": task, "way": way, **{k: round(v, 3) for k, v in said.items()}}), flush=True)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--index", type=Path, required=True)
    ask.add_argument("--seed", type=int, default=0)
    asked = ask.parse_args()
    searcher, rng = open_searcher(asked.index), np.random.default_rng(asked.seed)
    labels = [dict(said) for said in searcher.index.rows.column("labels").to_pylist()]
    of = {name: np.array([said.get(name, "") for said in labels]) for name in ("modality", "organ", "side")}
    modalities, organs = (sorted(set(of[name]) - {""}) for name in ("modality", "organ"))
    print(json.dumps({"pictures": len(labels), "queries": QUERIES, "seed": asked.seed}))
    spoken = {name: read_prompts(None, "modality", False).words.get(name, (name,))[0] for name in modalities}
    spoken |= {name: read_prompts(None, "organ", False).words.get(name, (name,))[0] for name in organs}
    spoken |= {"left": "left", "right": "right"}
    words = {name: query_embeddings(searcher, [Query((text,))])[0] for name, text in spoken.items()}
    sample = searcher.index.sample

    known = np.flatnonzero((of["modality"] != "") & (of["organ"] != ""))
    rows, others = rng.choice(known, QUERIES), rng.integers(1, len(modalities), size=QUERIES)
    found: dict[str, list[float]] = {}
    for row, other in zip(rows, others, strict=True):
        modality = modalities[(modalities.index(of["modality"][row]) + other) % len(modalities)]
        wanted = (of["organ"] == of["organ"][row]) & (of["modality"] == modality)
        picture, said = searcher.index.vectors_of(np.array([row]))[0], words[modality]
        ways = {"image alone": picture, "words alone": said}
        ways |= {"sum": plain([(picture, 1), (said, 1)]), "ours": _together(sample, [(picture, 1), (said, 1)])}
        for way, vector in ways.items():
            found.setdefault(way, []).append(right(searcher, vector, wanted))
    for way, shares in found.items():
        tell("like this, but another modality", way, shares)

    found = {}
    for organ in organs:
        for side in sorted({"left", "right"} & set(of["side"])):
            wanted = (of["organ"] == organ) & (of["side"] != side)
            found.setdefault("words alone", []).append(right(searcher, words[organ], wanted))
            for weight in WEIGHTS:
                parts = [(words[organ], 1.0), (words[side], weight)]
                found.setdefault(f"sum, {weight}", []).append(right(searcher, plain(parts), wanted))
                found.setdefault(f"ours, {weight}", []).append(right(searcher, _together(sample, parts), wanted))
    for way, shares in found.items():
        tell("an organ, without a side", way, shares)

    found = {}
    for modality in modalities:
        for organ in organs:
            wanted = (of["organ"] == organ) & (of["modality"] == modality)
            for way, ensemble in (("words", False), ("ensemble", True)):
                vector = query_embeddings(searcher, [Query((f"{spoken[modality]} of the {spoken[organ]}",))], ensemble)[
                    0
                ]
                found.setdefault(way, []).append(right(searcher, vector, wanted))
    for way, shares in found.items():
        tell("modality and organ", way, shares)


if __name__ == "__main__":
    main()

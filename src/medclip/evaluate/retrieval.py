"""How well captions find their images and images their captions, over stated pools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medclip.atomic_io import sha256
from medclip.data.dataset import Split
from medclip.data.normalize import casefold_whitespace
from medclip.encode.encoder import embed_split
from medclip.errors import UserError
from medclip.evaluate import candidate_pools, graded_relevance
from medclip.evaluate.config import EvalConfig
from medclip.evaluate.hard_examples import examples
from medclip.evaluate.precomputed import read_vectors
from medclip.evaluate.results import provenance, write_results
from medclip.evaluate.subgroups import by_group, row_labels
from medclip.metrics import WAYS, chance, intervals, rank_metrics, ranks
from medclip.model.checkpoint import load
from medclip.progress import progress

GROUP_K = 10
EXAMPLES = 10  # pairs that are named for people to look at


def evaluate_retrieval(
    subject: EvalConfig, vectors: tuple[Path, Path] | None = None, pool: int | None = None, draws: int = 5
) -> dict[str, Any]:
    """Measure both directions over every pair of a split; with `pool`, also over `draws` pools of so many pairs.

    `vectors` are files of vectors made elsewhere, in place of the subject's model, which is then "".
    """
    rows = subject.rows()
    if pool is not None and pool > len(rows):
        raise UserError(
            f"--num-candidates {pool} is more than the {len(rows)} pairs of {subject.data}, split {rows.name!r}."
        )
    images, texts = _vectors(subject, rows, vectors)
    results, items = measured(images, texts, rows, subject.seed)
    results |= examples(images, texts, items["id"], EXAMPLES)
    if pool is not None:
        articles = rows.column("article")
        results["fixed_pool"] = candidate_pools.fixed_pools(images, texts, articles, pool, draws, subject.seed)
    origin = {"vectors": [sha256(path) for path in vectors]} if vectors else {}
    return write_results(subject.out, "retrieval", {**results, **provenance(subject, rows), **origin}, items)


def _vectors(subject: EvalConfig, rows: Split, files: tuple[Path, Path] | None) -> tuple[np.ndarray, np.ndarray]:
    if files:
        images, texts = read_vectors(*files, rows.dataset["splits"][rows.name]["pairs"])
        return images[: len(rows)], texts[: len(rows)]
    encoder = load(subject.model)
    with progress("embed", 2 * len(rows), "items") as advance:
        images = embed_split(encoder, rows, "images", advance=advance)
        return images, embed_split(encoder, rows, "captions", advance=advance)


def measured(
    images: np.ndarray, texts: np.ndarray, rows: Split, seed: int
) -> tuple[dict[str, Any], dict[str, Sequence[Any]]]:
    """All figures of the pairs' unit vectors (n, p), and the values of every pair that they are made of.

    A column of values is named by the way to its figures, "rank_" before those of ranks.
    """
    n, articles = len(rows), rows.column("article")
    with progress("rank", n, "pairs") as advance:
        full = dict(zip(WAYS, ranks(images, texts, advance=advance), strict=True))
    results = {"pool": n, **_figures(full, articles, seed), "chance": chance(np.full(1, n), np.ones(1, int))}
    items = {"id": rows.column("id"), "article": articles, **{f"rank_{way}": own for way, own in full.items()}}

    apart, left = candidate_pools.article_disjoint(list(full.values()), images, texts, articles)
    apart = dict(zip(WAYS, apart, strict=True))
    results["article_disjoint"] = {
        "pool": float(left.mean()),
        **_figures(apart, articles, seed),
        "chance": chance(left, np.ones(n, int)),
    }
    items |= {f"rank_article_disjoint / {way}": own for way, own in apart.items()}

    distinct = candidate_pools.duplicate_aware(
        images, texts, rows.column("sha256"), [casefold_whitespace(c) for c in rows.iter_column("caption")]
    )
    results["duplicate_aware"] = {}
    for way, asked in distinct.items():
        own = np.full(n, np.nan)
        own[asked["rows"]] = asked["ranks"]
        items[f"rank_duplicate_aware / {way}"] = own
        results["duplicate_aware"][way] = {
            "queries": len(asked["rows"]),
            "pool": int(asked["pool"][0]),
            **intervals(asked["ranks"], [articles[row] for row in asked["rows"]], rank_metrics, seed),
            "chance": chance(asked["pool"], asked["right"]),
        }
    graded = _graded(images, texts, rows)
    if graded:
        asked = int((~np.isnan(graded[WAYS[0]][:, 0])).sum())
        results["concepts"] = {
            "queries": asked,
            "relevance": graded_relevance.RELEVANCE,
            "relevant_from": graded_relevance.RELEVANT,
        }
    for way, found in graded.items():
        results["concepts"][way] = graded_relevance.concept_figures(found, articles, seed)
        items |= {
            f"concepts / {way} / {name}": found[:, i] for i, name in enumerate((f"nDCG@{graded_relevance.K}", "mAP"))
        }
    hits = {f"{way} / R@{GROUP_K}": (own <= GROUP_K).astype(float) for way, own in full.items()}
    results["by_group"] = by_group(hits, row_labels(rows), articles, seed)
    return results, items


def _figures(found: dict[str, np.ndarray], articles: Sequence[str], seed: int) -> dict[str, Any]:
    return {way: intervals(own, articles, rank_metrics, seed) for way, own in found.items()}


def _graded(images: np.ndarray, texts: np.ndarray, rows: Split) -> dict[str, np.ndarray]:
    """What `concepts.graded` finds of both ways; nothing where no pair has concepts."""
    sets = graded_relevance.Concepts([of_row or () for of_row in rows.iter_column("concepts")])
    asking = int(np.count_nonzero(sets.sizes))
    if not asking:
        return {}
    with progress("grade by concepts", 2 * asking, "queries") as advance:
        return {
            way: graded_relevance.graded(*sides, sets, advance)
            for way, sides in zip(WAYS, ((images, texts), (texts, images)), strict=True)
        }

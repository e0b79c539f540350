"""Image-to-text and text-to-image retrieval over stated candidates, or of embeddings made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Num

from medclip.atomic_io import sha256
from medclip.data.dataset import Split
from medclip.data.normalize import casefold_whitespace
from medclip.encode.encoder import embed_split
from medclip.errors import UserError
from medclip.evaluate import candidate_pools, graded_relevance
from medclip.evaluate.config import EvalConfig
from medclip.evaluate.hard_examples import misranked_pairs, nearest_images
from medclip.evaluate.results import (
    EMBEDDINGS_ALONE,
    Fact,
    Kind,
    Metric,
    Provenance,
    Results,
    Role,
    metric_name,
    provenance,
    to_metric,
    write_results,
)
from medclip.evaluate.subgroups import by_group, row_labels
from medclip.metrics import DIRECTIONS, chance_metrics, estimates, rank_metrics, ranks
from medclip.model.checkpoint import load
from medclip.progress import progress

GROUP_K = 10
NUM_EXAMPLES = 10  # pairs that are named for people to look at
ROLES: Mapping[str, Role] = {
    "R@1": "compared",
    "R@5": "compared",
    "R@10": "gated",
    "MRR": "compared",
    "median_rank": "compared",
    "geometric_mean_rank": "compared",
}
OTHER_ROLES: Mapping[str, Role] = {"R@10": "compared"}
"""Among other candidates one metric is compared, lest most of a comparison be of them."""


@dataclass
class _Parts:
    """What has been measured so far."""

    metrics: list[Metric] = field(default_factory=list)
    facts: dict[str, Fact] = field(default_factory=dict)
    items: dict[str, Sequence[str] | np.ndarray] = field(default_factory=dict)


def evaluate_retrieval(
    config: EvalConfig,
    embeddings: tuple[Path, Path] | None = None,
    num_candidates: int | None = None,
    num_draws: int = 5,
) -> Results:
    """Measure both directions over every pair of a split; with `num_candidates`, also over draws of so many pairs.

    `embeddings` are .npy files of images and of texts in place of a model, row i of both being pair i of the split.
    Without `config.data` they stand alone: each pair counts as its own article, and there are neither groups, concepts
    nor duplicates. UserError where model, data and embeddings do not fit together.
    """
    if bool(config.model) == (embeddings is not None):
        raise UserError("give either --model MODEL or --embeddings IMAGES.npy TEXTS.npy.")
    rows = config.rows() if config.data or not embeddings else None
    images, texts = _embeddings(config, rows, embeddings)
    n, seed = len(images), config.seed
    if num_candidates is not None and num_candidates > n:
        source = f"{config.data}, split {rows.name!r}" if rows else "the embeddings"
        raise UserError(f"--num-candidates {num_candidates} is more than the {n} pairs of {source}.")
    ids = rows.column("id") if rows else [str(row) for row in range(n)]
    articles = rows.column("article") if rows else ids
    parts = _Parts(facts={"num_candidates": n}, items={"id": ids, "article": articles})
    full = _all_pairs(parts, images, texts, articles, seed)
    if rows:
        _without_own_article(parts, full, images, texts, articles, seed)
        _without_duplicates(parts, images, texts, rows, articles, seed)
        _graded(parts, images, texts, rows, articles, seed)
        hits = {metric_name(way, f"R@{GROUP_K}"): (own <= GROUP_K).astype(float) for way, own in full.items()}
        metrics, facts = by_group(hits, row_labels(rows), articles, seed)
        parts.metrics += metrics
        parts.facts |= facts
    if num_candidates is not None:
        metrics, facts = candidate_pools.fixed_pools(images, texts, articles, num_candidates, num_draws, seed)
        parts.metrics += metrics
        parts.facts |= facts
    origin = provenance(config, rows) if rows else _no_data(seed)
    files = tuple(sha256(path) for path in embeddings or ())
    results = Results(
        kind=Kind.RETRIEVAL,
        metrics=tuple(parts.metrics),
        facts=parts.facts,
        misranked_pairs=tuple(misranked_pairs(images, texts, ids, NUM_EXAMPLES)),
        nearest_images=tuple(nearest_images(images, ids, NUM_EXAMPLES)),
        provenance=replace(origin, embeddings_sha256=files),
    )
    return write_results(config.out, results, parts.items)


def _embeddings(
    config: EvalConfig, rows: Split | None, files: tuple[Path, Path] | None
) -> tuple[np.ndarray, np.ndarray]:
    if files:
        images, texts = read_embeddings(*files, rows.dataset["splits"][rows.name]["pairs"] if rows else None)
        limit = len(rows) if rows else config.max_samples
        return images[:limit], texts[:limit]
    assert rows is not None
    model = load(config.model)
    with progress("embed", 2 * len(rows), "items") as advance:
        images = embed_split(model, rows, "images", advance=advance)
        return images, embed_split(model, rows, "captions", advance=advance)


def _no_data(seed: int) -> Provenance:
    return Provenance(
        model=None,
        contamination="unknown",
        contamination_reason=EMBEDDINGS_ALONE,
        data=None,
        data_sha256=None,
        synthetic=False,
        split=None,
        seed=seed,
        ci_method="95 % bootstrap, 1000 resamples of single pairs (without --data each counts as its own article)",
    )


def read_embeddings(
    images: Path, texts: Path, num_pairs: int | None
) -> tuple[Float32[np.ndarray, "n p"], Float32[np.ndarray, "n p"]]:
    """Unit vectors of both files, `num_pairs` of each. UserError names the file, and the row, that cannot be used."""
    both = _unit_rows(images, num_pairs), _unit_rows(texts, num_pairs)
    if len(both[0]) != len(both[1]):
        raise UserError(f"{images} has {len(both[0])} rows and {texts} {len(both[1])}: row i of both is a pair.")
    if both[0].shape != both[1].shape:
        raise UserError(f"{images} has vectors of {both[0].shape[1]} numbers and {texts} of {both[1].shape[1]}.")
    return both


def _unit_rows(path: Path, num_pairs: int | None) -> np.ndarray:
    try:
        rows = np.lib.format.open_memmap(path, mode="r")  # a header that claims too much takes no memory
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: --embeddings takes two .npy files, of images and of texts.") from None
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{path} is not a .npy file of numbers ({error}): write it with numpy.save.") from None
    if rows.ndim != 2 or rows.dtype.kind not in "fiu" or not rows.size:
        raise UserError(f"{path} is {rows.dtype} of shape {rows.shape}, not numbers with a row for each pair.")
    if num_pairs is not None and len(rows) != num_pairs:
        raise UserError(
            f"{path} has {len(rows)} rows and the split {num_pairs} pairs: row i must be pair i of the split."
        )
    result = np.empty(rows.shape, np.float32)
    for row, vector in enumerate(rows):
        largest = np.abs(vector.astype(np.float64)).max()
        if not np.isfinite(largest) or not largest:
            flaw = "all zeros" if largest == 0 else "not all finite"
            raise UserError(f"{path}: row {row} (counted from 0) is {flaw}, so it has no direction.")
        scaled = vector / largest  # its square can neither overflow nor vanish
        result[row] = scaled / np.linalg.norm(scaled)
    return result


def rank_results(
    path: Sequence[str],
    own: Num[np.ndarray, " n"],
    articles: Sequence[str],
    seed: int,
    chance: Mapping[str, float],
    roles: Mapping[str, Role] = OTHER_ROLES,
) -> list[Metric]:
    """The metrics of ranks (n,) below `path`, of the column PATH/rank."""
    column = metric_name(*path, "rank")
    return [
        to_metric(metric_name(*path, name), estimate, chance[name], column, name, roles.get(name, "reported"))
        for name, estimate in estimates(own, articles, rank_metrics, seed).items()
    ]


def _all_pairs(
    parts: _Parts, images: np.ndarray, texts: np.ndarray, articles: Sequence[str], seed: int
) -> dict[str, np.ndarray]:
    """Measure among all pairs; returns the ranks by direction."""
    n = len(images)
    chance = chance_metrics(np.full(1, n), np.ones(1, int))
    with progress("rank", n, "pairs") as advance:
        full: dict[str, np.ndarray] = dict(zip(DIRECTIONS, ranks(images, texts, advance=advance), strict=True))
    for direction, own in full.items():
        parts.metrics += rank_results((direction,), own, articles, seed, chance, ROLES)
        parts.items[metric_name(direction, "rank")] = own
    return full


def _without_own_article(
    parts: _Parts,
    full: Mapping[str, np.ndarray],
    images: np.ndarray,
    texts: np.ndarray,
    articles: Sequence[str],
    seed: int,
) -> None:
    apart, left = candidate_pools.article_disjoint(list(full.values()), images, texts, articles)
    chance = chance_metrics(left, np.ones(len(left), int))
    parts.facts["article_disjoint/num_candidates"] = float(left.mean())
    for direction, own in zip(DIRECTIONS, apart, strict=True):
        parts.metrics += rank_results(("article_disjoint", direction), own, articles, seed, chance)
        parts.items[metric_name("article_disjoint", direction, "rank")] = own


def _without_duplicates(
    parts: _Parts, images: np.ndarray, texts: np.ndarray, rows: Split, articles: Sequence[str], seed: int
) -> None:
    captions = [casefold_whitespace(caption) for caption in rows.iter_column("caption")]
    for direction, queries in candidate_pools.duplicate_aware(images, texts, rows.column("sha256"), captions).items():
        path = ("duplicate_aware", direction)
        column = np.full(len(rows), np.nan)
        column[queries.rows] = queries.ranks
        parts.items[metric_name(*path, "rank")] = column
        parts.facts[metric_name(*path, "num_queries")] = len(queries.rows)
        parts.facts[metric_name(*path, "num_candidates")] = queries.num_candidates
        chance = chance_metrics(np.full(len(queries.rows), queries.num_candidates), queries.num_relevant)
        own = [articles[int(row)] for row in queries.rows]
        parts.metrics += rank_results(path, queries.ranks, own, seed, chance)


def _graded(
    parts: _Parts, images: np.ndarray, texts: np.ndarray, rows: Split, articles: Sequence[str], seed: int
) -> None:
    """Measure by concepts; nothing where no pair has any."""
    concepts = graded_relevance.Concepts([names or () for names in rows.iter_column("concepts")])
    num_queries = int(np.count_nonzero(concepts.sizes))
    if not num_queries:
        return
    parts.facts |= {
        "concepts/num_queries": num_queries,
        "concepts/relevance": graded_relevance.RELEVANCE,
        "concepts/relevance_threshold": graded_relevance.RELEVANCE_THRESHOLD,
    }
    sides = zip(DIRECTIONS, ((images, texts), (texts, images)), strict=True)
    with progress("grade by concepts", 2 * num_queries, "queries") as advance:
        for direction, (queries, candidates) in sides:
            grades = graded_relevance.grade(queries, candidates, concepts, advance)
            measured, chance = graded_relevance.grade_estimates(grades, articles, seed)
            for place, name in enumerate(graded_relevance.METRICS):
                column = metric_name("concepts", direction, name)
                parts.metrics.append(to_metric(column, measured[name], chance[name], column, "mean", "gated"))
                parts.items[column] = grades[:, place]

"""Image-to-text and text-to-image retrieval over stated candidates, or of embeddings made elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64, Num

from medclip.atomic_io import sha256
from medclip.data.dataset import Split
from medclip.data.normalize import casefold_whitespace
from medclip.encode.encoder import embed_split
from medclip.errors import UserError
from medclip.evaluation import candidate_pools, graded_relevance
from medclip.evaluation.config import EvalConfig
from medclip.evaluation.results import (
    Fact,
    Kind,
    Metric,
    MisrankedPair,
    NearestImage,
    Results,
    Role,
    metric_name,
    provenance,
    to_metric,
    write_results,
)
from medclip.evaluation.subgroups import by_group, row_labels
from medclip.metrics import DIRECTIONS, chance_metrics, estimates, rank_metrics, ranks
from medclip.model.checkpoint import load
from medclip.progress import progress

GROUP_K = 10
NUM_EXAMPLES = 10  # misranked pairs and nearest images, for people to look at
MAX_QUERIES = 512  # at once
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
class _Measurement:
    """Pairs of unit vectors, row i of both being pair i, and their metrics, facts and items so far."""

    images: np.ndarray
    texts: np.ndarray
    articles: Sequence[str]
    seed: int
    metrics: list[Metric] = field(default_factory=list)
    facts: dict[str, Fact] = field(default_factory=dict)
    items: dict[str, Sequence[str] | np.ndarray] = field(default_factory=dict)

    def add(self, metrics: Sequence[Metric], facts: Mapping[str, Fact]) -> None:
        """Add metrics and facts."""
        self.metrics += metrics
        self.facts |= facts

    def add_ranks(
        self,
        path: Sequence[str],
        values: np.ndarray,
        chance: Mapping[str, float],
        roles: Mapping[str, Role] = OTHER_ROLES,
        rows: np.ndarray | None = None,
    ) -> None:
        """Add the ranks of pairs (of `rows`, if given) as the column PATH/rank, and the metrics of it."""
        articles = self.articles if rows is None else [self.articles[int(row)] for row in rows]
        name = metric_name(*path, "rank")
        for statistic, estimate in estimates(values, articles, rank_metrics, self.seed).items():
            role = roles.get(statistic, "reported")
            self.metrics.append(
                to_metric(metric_name(*path, statistic), estimate, chance[statistic], name, statistic, role)
            )
        column = np.full(len(self.articles), np.nan) if rows is not None else values
        if rows is not None:
            column[rows] = values
        self.items[name] = column


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
    if num_draws < 2 or (num_candidates is not None and num_candidates < 2):
        raise UserError(
            "--num-candidates and --num-draws must be at least 2: one draw does not say how much draws differ."
        )
    rows = config.rows() if config.data or not embeddings else None
    images, texts = _embeddings(config, rows, embeddings)
    n = len(images)
    if num_candidates is not None and num_candidates > n:
        source = f"{config.data}, split {rows.name!r}" if rows else "the embeddings"
        raise UserError(f"--num-candidates {num_candidates} is more than the {n} pairs of {source}.")
    ids = rows.column("id") if rows else [str(row) for row in range(n)]
    articles = rows.column("article") if rows else ids
    pairs = _Measurement(images, texts, articles, config.seed)
    pairs.facts["num_candidates"] = n
    full = _rank_all(pairs)
    if rows:
        _rank_other_articles(pairs, full)
        _rank_distinct(pairs, rows)
        _grade(pairs, rows)
        hits = {metric_name(direction, f"R@{GROUP_K}"): (r <= GROUP_K).astype(float) for direction, r in full.items()}
        pairs.add(*by_group(hits, row_labels(rows), articles, config.seed))
    if num_candidates is not None:
        pairs.add(*candidate_pools.fixed_pools(images, texts, articles, num_candidates, num_draws, config.seed))
    results = Results(
        kind=Kind.RETRIEVAL,
        metrics=tuple(pairs.metrics),
        facts=pairs.facts,
        misranked_pairs=tuple(misranked_pairs(images, texts, ids, NUM_EXAMPLES)),
        nearest_images=tuple(nearest_images(images, ids, NUM_EXAMPLES)),
        provenance=provenance(config, rows, tuple(sha256(path) for path in embeddings or ())),
    )
    return write_results(config.out, results, {"id": ids, "article": articles, **pairs.items})


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


def _rank_all(pairs: _Measurement) -> dict[str, np.ndarray]:
    """Measure among all pairs; returns the ranks by direction."""
    n = len(pairs.images)
    chance = chance_metrics(np.full(1, n), np.ones(1, int))
    with progress("rank", n, "pairs") as advance:
        to_text, to_image = ranks(pairs.images, pairs.texts, advance=advance)
    full = {"image_to_text": to_text, "text_to_image": to_image}
    for direction, values in full.items():
        pairs.add_ranks((direction,), values, chance, ROLES)
    return full


def _rank_other_articles(pairs: _Measurement, full: Mapping[str, np.ndarray]) -> None:
    """Measure without other pairs of the query's own article."""
    disjoint, num_candidates = candidate_pools.article_disjoint(
        list(full.values()), pairs.images, pairs.texts, pairs.articles
    )
    chance = chance_metrics(num_candidates, np.ones(len(num_candidates), int))
    pairs.facts["article_disjoint/num_candidates"] = float(num_candidates.mean())
    for direction, values in zip(full, disjoint, strict=True):
        pairs.add_ranks(("article_disjoint", direction), values, chance)


def _rank_distinct(pairs: _Measurement, rows: Split) -> None:
    """Measure with duplicates as one."""
    captions = [casefold_whitespace(caption) for caption in rows.iter_column("caption")]
    both = candidate_pools.duplicate_aware(pairs.images, pairs.texts, rows.column("sha256"), captions)
    for direction, queries in both.items():
        path = ("duplicate_aware", direction)
        counts = {"num_queries": len(queries.rows), "num_candidates": queries.num_candidates}
        pairs.facts |= {metric_name(*path, name): count for name, count in counts.items()}
        chance = chance_metrics(np.full(len(queries.rows), queries.num_candidates), queries.num_relevant)
        pairs.add_ranks(path, queries.ranks, chance, rows=queries.rows)


def _grade(pairs: _Measurement, rows: Split) -> None:
    """Measure by concepts; nothing where no pair has any."""
    concepts = graded_relevance.Concepts([names or () for names in rows.iter_column("concepts")])
    num_queries = int(np.count_nonzero(concepts.sizes))
    if not num_queries:
        return
    pairs.facts |= {
        "concepts/num_queries": num_queries,
        "concepts/relevance": graded_relevance.RELEVANCE,
        "concepts/relevance_threshold": graded_relevance.RELEVANCE_THRESHOLD,
    }
    sides = zip(DIRECTIONS, ((pairs.images, pairs.texts), (pairs.texts, pairs.images)), strict=True)
    with progress("grade by concepts", 2 * num_queries, "queries") as advance:
        for direction, (queries, candidates) in sides:
            grades = graded_relevance.grade(queries, candidates, concepts, advance)
            measured, chance = graded_relevance.grade_estimates(grades, pairs.articles, pairs.seed)
            for i, name in enumerate(graded_relevance.METRICS):
                column = metric_name("concepts", direction, name)
                pairs.metrics.append(to_metric(column, measured[name], chance[name], column, "mean", "gated"))
                pairs.items[column] = grades[:, i]


def misranked_pairs(
    images: Num[np.ndarray, "n p"], texts: Num[np.ndarray, "n p"], ids: Sequence[str], limit: int
) -> Iterator[MisrankedPair]:
    """In each direction at most `limit` pairs that prefer another pair's caption (image), the widest margin first.

    Row i of `images` and `texts` is the pair `ids[int(i)]`. Scores are rounded to four digits. Memory is linear in n.
    """
    if len(ids) < 2:
        return
    own = (images.astype(np.float64) * texts).sum(axis=1)
    for direction, (queries, candidates) in zip(DIRECTIONS, ((images, texts), (texts, images)), strict=True):
        others, scores = nearest_others(queries, candidates)
        margins = scores - own
        for i in np.argsort(-margins, kind="stable")[:limit]:
            if margins[i] > 0:
                own_score, other_score = round(float(own[i]), 4), round(float(scores[i]), 4)
                yield MisrankedPair(direction, ids[int(i)], ids[int(others[i])], own_score, other_score)


def nearest_images(images: Num[np.ndarray, "n p"], ids: Sequence[str], limit: int) -> Iterator[NearestImage]:
    """At most `limit` images and the one closest to each, the closest first; scores rounded to four digits."""
    if len(ids) < 2:
        return
    others, scores = nearest_others(images, images)
    for i in np.argsort(-scores, kind="stable")[:limit]:
        yield NearestImage(ids[int(i)], ids[int(others[i])], round(float(scores[i]), 4))


def nearest_others(
    queries: Num[np.ndarray, "n p"], candidates: Num[np.ndarray, "n p"]
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """For each query the best candidate of another row by dot product, and its score; of equal ones the first."""
    rows, scores = np.empty(len(queries), np.int64), np.empty(len(queries))
    exact = candidates.T.astype(np.float64)
    for start in range(0, len(queries), MAX_QUERIES):
        block = slice(start, start + MAX_QUERIES)
        products = queries[block].astype(np.float64) @ exact
        i = np.arange(len(products))
        products[i, i + start] = -np.inf
        rows[block], scores[block] = products.argmax(axis=1), products.max(axis=1)
    return rows, scores

"""Image-to-text and text-to-image retrieval over stated candidates, or of embeddings made elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from medclip.atomic_io import check_as_written, read_optional, recorded_hashes, sha256
from medclip.data.checked_files import EMBEDDINGS_MANIFEST, DamageError, check_hash
from medclip.data.dataset import Split
from medclip.data.paths import parse_path
from medclip.dot_products import nearest_others
from medclip.errors import UserError
from medclip.evaluation import graded_relevance
from medclip.evaluation.candidate_pools import draw_pools, fixed_pools, rank_by_article
from medclip.evaluation.config import EvalConfig
from medclip.evaluation.provenance import provenance
from medclip.evaluation.results import Fact, Kind, MisrankedPair, NearestImage, Results, write_results
from medclip.evaluation.subgroups import by_group, row_labels
from medclip.metrics import DistinctPairs, Queries, hits_at_k, max_candidates, merge_articles
from medclip.named_metrics import Metric, Role, metric_name, to_metric
from medclip.progress import progress

LOG = logging.getLogger("medclip.evaluation")
GROUP_K = 10
BLOCK_ROWS = 1024  # of embeddings at once in float64: 8 MB at 1,024 numbers a vector
NUM_EXAMPLES = 10  # misranked pairs and nearest images, for people to look at
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
    """Distinct images and captions of rows of pairs, and their metrics, facts and items so far."""

    pairs: DistinctPairs
    articles: Sequence[str]
    """Of each row."""
    seed: int
    metrics: list[Metric] = field(default_factory=list)
    facts: dict[str, Fact] = field(default_factory=dict)
    items: dict[str, Sequence[str] | np.ndarray] = field(default_factory=dict)

    def add(self, metrics: Sequence[Metric], facts: Mapping[str, Fact]) -> None:
        """Add metrics and facts."""
        self.metrics += metrics
        self.facts |= facts

    def add_ranks(
        self, path: Sequence[str], both: Mapping[str, Queries], roles: Mapping[str, Role] = OTHER_ROLES
    ) -> None:
        """Add the ranks of each direction as the column PATH/DIRECTION/rank, and the metrics of it."""
        for direction, queries in both.items():
            name, chance = metric_name(*path, direction, "rank"), queries.chance()
            for statistic, estimate in queries.metrics(self.articles, self.seed).items():
                role, metric = roles.get(statistic, "reported"), metric_name(*path, direction, statistic)
                self.metrics.append(to_metric(metric, estimate, chance[statistic], name, statistic, role))
            self.items[name] = queries.column(len(self.articles))


def evaluate_retrieval(
    config: EvalConfig,
    embeddings: tuple[Path, Path] | None = None,
    num_candidates: int | None = None,
    num_draws: int = 5,
) -> Results:
    """Measure both directions over every pair of a split; with `num_candidates`, also over draws of so many pairs.

    A repeated image or caption is one query and one candidate: see `DistinctPairs`. `embeddings` are .npy files of
    images and of texts in place of a model, row i of both being pair i of the split. Without `config.data` they stand
    alone: each pair counts as its own article, and there are neither groups, concepts nor duplicates. UserError where
    model, data and embeddings do not fit together.
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
    if not rows:
        _warn_of_repeats(images, texts)
    ids = rows.column("id") if rows else [str(row) for row in range(n)]
    image_ids, caption_ids = rows.duplicate_ids if rows else (np.arange(n), np.arange(n))
    articles = merge_articles(rows.column("article"), image_ids) if rows else ids
    pairs = DistinctPairs.of_rows(images, texts, image_ids, caption_ids)
    measured = _Measurement(pairs, articles, config.seed)
    full, disjoint = _rank_all(measured)
    if rows:
        measured.facts["article_disjoint/num_candidates"] = max(
            float(q.num_candidates.mean()) for q in disjoint.values()
        )
        measured.add_ranks(("article_disjoint",), disjoint)
        _grade(measured, rows)
        hits = {
            metric_name(direction, f"R@{GROUP_K}"): hits_at_k(queries.column(n), GROUP_K)
            for direction, queries in full.items()
        }
        measured.add(*by_group(hits, row_labels(rows), articles, config.seed))
    if num_candidates is not None:
        draws = draw_pools(image_ids, caption_ids, num_candidates, num_draws, config.seed)
        measured.add(*fixed_pools(images, texts, articles, draws, config.seed))
    results = Results(
        kind=Kind.RETRIEVAL,
        metrics=tuple(measured.metrics),
        facts=measured.facts,
        misranked_pairs=tuple(misranked_pairs(pairs, full, ids, NUM_EXAMPLES)),
        nearest_images=tuple(nearest_images(pairs, ids, NUM_EXAMPLES)),
        provenance=provenance(config, rows, tuple(sha256(path) for path in embeddings or ())),
    )
    return write_results(config.out, results, {"id": ids, "article": articles, **measured.items})


def _embeddings(
    config: EvalConfig, rows: Split | None, files: tuple[Path, Path] | None
) -> tuple[np.ndarray, np.ndarray]:
    if files:
        num_pairs = rows.dataset["splits"][rows.name]["pairs"] if rows else None
        images, texts = read_embeddings(*files, num_pairs, len(rows) if rows else config.max_samples)
        _check_recorded(files, config, rows)
        return images, texts
    assert rows is not None
    from medclip.encode.encoder import embed_split, jax_backend  # JAX, which embeddings made elsewhere do not need
    from medclip.model.checkpoint import load

    backend = jax_backend(load(config.model), config.cache)
    with progress("embed", 2 * len(rows), "items") as advance:
        images = embed_split(backend, rows, "images", advance=advance)
        return images, embed_split(backend, rows, "captions", advance=advance)


def _check_recorded(files: tuple[Path, Path], config: EvalConfig, rows: Split | None) -> None:
    """UserError where `medclip embed` wrote files of embeddings, and they are not as written, or not of these pairs.

    As many rows are no sign of the same pairs: other splits, and the same one prepared anew, may have as many.
    """
    origins = {}
    for path in files:
        manifest = path.with_name(EMBEDDINGS_MANIFEST)
        check_as_written(manifest, origin := read_optional(manifest, "embeddings"))
        if (digest := recorded_hashes(origin).get(path.name)) is None:
            continue
        try:
            check_hash(path, digest)
        except DamageError as error:
            raise UserError(f"{path} {error}: make it again with medclip embed.") from None
        origins[path] = origin
    if rows and origins:
        whole = rows.digest if config.max_samples is None else Split(parse_path(config.data), rows.name).digest
        if other := [path for path, origin in origins.items() if origin.get("data_sha256") != whole]:
            source = f"split {rows.name!r} of {config.data}"
            raise UserError(f"{other[0]} is of other pairs than {source}: make it again with medclip embed.")
    for field_, what in (("data_sha256", "pairs"), ("model_sha256", "model")):
        if len({origin.get(field_) for origin in origins.values()}) > 1:
            raise UserError(f"{files[0]} and {files[1]} are not of the same {what}: row i of both must be a pair.")


def _warn_of_repeats(images: np.ndarray, texts: np.ndarray) -> None:
    """Equal vectors alone are no sign of equal images: of a collapsed model all are equal, and none may gain by it."""
    for noun, vectors in (("images", images), ("texts", texts)):
        if repeats := len(vectors) - len({vector.tobytes() for vector in vectors}):
            LOG.warning(
                f"{repeats} of {len(vectors)} embeddings of {noun} repeat another one. Each counts as a candidate of "
                "its own, which ties with it; with --data DATA, repeated images and captions count once."
            )


def read_embeddings(
    images: Path, texts: Path, num_pairs: int | None, max_rows: int | None = None
) -> tuple[Float32[np.ndarray, "n p"], Float32[np.ndarray, "n p"]]:
    """Unit vectors of the first rows of both files, which have `num_pairs`.

    UserError names the file, and the row, that cannot be used.
    """
    stored = _open_rows(images, num_pairs), _open_rows(texts, num_pairs)
    both = _unit_rows(images, stored[0][:max_rows]), _unit_rows(texts, stored[1][:max_rows])
    if len(stored[0]) != len(stored[1]):
        raise UserError(f"{images} has {len(stored[0])} rows and {texts} {len(stored[1])}: row i of both is a pair.")
    if stored[0].shape != stored[1].shape:
        raise UserError(f"{images} has vectors of {stored[0].shape[1]} numbers and {texts} of {stored[1].shape[1]}.")
    return both


def _open_rows(path: Path, num_pairs: int | None) -> np.ndarray:
    try:
        rows = np.lib.format.open_memmap(path, mode="r")  # a header that claims too much takes no memory
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: --embeddings takes two .npy files, of images and of texts.") from None
    except Exception as error:  # the header is a Python literal, and what a damaged one raises has many types
        raise UserError(f"{path} is not a .npy file of numbers ({error}): write it with numpy.save.") from None
    if rows.ndim != 2 or rows.dtype.kind not in "fiu" or not rows.size:
        raise UserError(f"{path} is {rows.dtype} of shape {rows.shape}, not numbers with a row for each pair.")
    if num_pairs is not None and len(rows) != num_pairs:
        raise UserError(
            f"{path} has {len(rows)} rows and the split {num_pairs} pairs: row i must be pair i of the split."
        )
    return rows


def _unit_rows(path: Path, rows: np.ndarray) -> np.ndarray:
    try:
        result = np.empty(rows.shape, np.float32)
    except MemoryError:
        raise UserError(f"{path}: {len(rows):,} rows need more memory than there is. Give --max-samples.") from None
    for start in range(0, len(rows), BLOCK_ROWS):
        vectors = rows[start : start + BLOCK_ROWS].astype(np.float64)
        largest = np.abs(vectors).max(axis=1, keepdims=True)
        if (flawed := np.flatnonzero(~np.isfinite(largest) | (largest == 0))).size:
            row = int(flawed[0])
            flaw = "all zeros" if largest[row] == 0 else "not all finite"
            raise UserError(f"{path}: row {start + row} (counted from 0) is {flaw}, so it has no direction.")
        vectors /= largest  # its square can neither overflow nor vanish
        result[start : start + BLOCK_ROWS] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return result


def _rank_all(measured: _Measurement) -> tuple[dict[str, Queries], dict[str, Queries]]:
    """Measure among all images and captions; returns what `rank_by_article` does."""
    pairs = measured.pairs
    with progress("rank", len(pairs.images), "images") as advance:
        full, disjoint = rank_by_article(pairs, measured.articles, advance)
    measured.facts |= {
        "num_candidates": max_candidates(full),
        "num_pairs": len(measured.articles),
        "num_images": len(pairs.images),
        "num_captions": len(pairs.texts),
    }
    measured.add_ranks((), full, ROLES)
    return full, disjoint


def _grade(measured: _Measurement, rows: Split) -> None:
    """Measure by concepts; nothing where no pair has any."""
    pairs, concepts = measured.pairs, [names or () for names in rows.iter_column("concepts")]
    num_pairs = sum(map(bool, concepts))
    if not num_pairs:
        return
    measured.facts |= {
        "concepts/num_pairs": num_pairs,
        "concepts/relevance": graded_relevance.RELEVANCE,
        "concepts/relevance_threshold": graded_relevance.RELEVANCE_THRESHOLD,
    }
    sets = [graded_relevance.merge_sets(concepts, ids) for ids in rows.duplicate_ids]
    with progress("grade by concepts", sum(map(bool, chain(*sets))), "queries") as advance:
        for (direction, side), query_sets, candidate_sets in zip(
            pairs.sides().items(), sets, reversed(sets), strict=True
        ):
            grades, candidates = np.full((len(rows), 4), np.nan), graded_relevance.Concepts(candidate_sets)
            grades[side.query_rows] = graded_relevance.grade(
                side.queries, side.candidates, query_sets, candidates, side.right, advance
            )
            estimates, chance = graded_relevance.grade_estimates(grades, measured.articles, measured.seed)
            for i, name in enumerate(graded_relevance.METRICS):
                column = metric_name("concepts", direction, name)
                measured.metrics.append(to_metric(column, estimates[name], chance[name], column, "mean", "gated"))
                measured.items[column] = grades[:, i]


def misranked_pairs(
    pairs: DistinctPairs, full: Mapping[str, Queries], ids: Sequence[str], limit: int
) -> Iterator[MisrankedPair]:
    """In each direction at most `limit` queries that prefer a wrong candidate to their own, the widest margin first.

    `full` are the ranks of these pairs. `ids` are of the rows of pairs; a distinct image or caption goes by its first.
    Scores are rounded to four digits.
    """
    for direction, side in pairs.sides().items():
        own_scores, (others, scores) = full[direction].ranking.own_scores, full[direction].ranking.nearest
        margins = scores - own_scores
        for i in np.argsort(-margins, kind="stable")[:limit]:
            if margins[i] > 0:
                query, other = ids[int(side.query_rows[i])], ids[int(side.candidate_rows[others[i]])]
                yield MisrankedPair(direction, query, other, round(float(own_scores[i]), 4), round(float(scores[i]), 4))


def nearest_images(pairs: DistinctPairs, ids: Sequence[str], limit: int) -> Iterator[NearestImage]:
    """At most `limit` images and the other one closest to each, the closest first; scores rounded to four digits."""
    if len(pairs.images) < 2:
        return
    others, scores = nearest_others(pairs.images)
    scores = scores.round(4)  # two that are each other's nearest have one score, whose last digits are of the product
    for i in np.argsort(-scores, kind="stable")[:limit]:
        image, other = (ids[int(pairs.image_rows[row])] for row in (i, others[i]))
        yield NearestImage(image, other, float(scores[i]))

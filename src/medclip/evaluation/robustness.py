"""Robustness: how much of a model's retrieval is left when its images are corrupted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int, Num, UInt8

from medclip.data.dataset import Split
from medclip.encode.decode import decode_pixels
from medclip.encode.encoder import Backend, CachedPixels, embed_split, jax_backend, stream_images
from medclip.encode.feature_cache import digest_of
from medclip.evaluation.config import EvalConfig
from medclip.evaluation.corruptions import CORRUPTIONS, Corruption, corrupt
from medclip.evaluation.provenance import provenance
from medclip.evaluation.results import Fact, Kind, Results, write_results
from medclip.metrics import (
    CHANGE_OF_SHARE,
    DIRECTIONS,
    SHARE,
    DistinctPairs,
    estimate,
    hits_at_k,
    mean_of_directions,
    merge_articles,
)
from medclip.model.checkpoint import load
from medclip.named_metrics import Metric, metric_name, to_metric
from medclip.progress import Advance, progress

K = 10
Columns = Mapping[str, Num[np.ndarray, " n"]]
"""Values of every pair, by the name of their column."""
RECALL, COSINE = f"R@{K}", "cosine"
CLEAN = ("clean",)


def evaluate_robustness(config: EvalConfig, corruptions: Iterable[Corruption] = CORRUPTIONS) -> Results:
    """Measure retrieval over a split with clean images and with every corruption at each of its severities."""
    backend, rows = jax_backend(load(config.model), config.cache), config.rows()
    cases = [(corruption, severity) for corruption in corruptions for severity in corruption.severities]
    columns: dict[tuple[str, ...], Columns] = {}
    with progress("embed", len(rows) * (len(cases) + 2), "items") as advance:
        texts = embed_split(backend, rows, "captions", advance=advance)
        columns[CLEAN] = pair_columns(embed_split(backend, rows, "images", advance=advance), texts, rows.duplicate_ids)
        for corruption, severity in cases:
            images = _embed_corrupted(backend, rows, corruption, severity, config.seed, advance)
            columns["corruptions", corruption.name, str(severity)] = pair_columns(images, texts, rows.duplicate_ids)
    ids, articles = rows.column("id"), merge_articles(rows.column("article"), rows.duplicate_ids[0])
    items: dict[str, Sequence[str] | np.ndarray] = {"id": ids, "article": articles}
    metrics: list[Metric] = []
    facts: dict[str, Fact] = {"num_candidates": max(int(ids.max()) + 1 for ids in rows.duplicate_ids)}
    changes: dict[str, float] = {}
    for path, values in columns.items():
        items |= {f"{metric_name(*path)}/{name}": column for name, column in values.items()}
        metrics += measure(path, values, None if path == CLEAN else columns[CLEAN], articles, config.seed)
    by_name = {metric.name: metric for metric in metrics}
    for corruption, severity in cases:
        path = ("corruptions", corruption.name)
        facts[metric_name(*path, "settings")] = corruption.setting_text
        facts[metric_name(*path, str(severity), "setting")] = corruption.settings[severity - 1]
        change = by_name[metric_name(*path, str(severity), f"{RECALL}_change")].value or 0.0
        changes[corruption.name] = changes.get(corruption.name, 0.0) + change
    facts["worst"] = min(changes, key=lambda name: changes[name])
    results = Results(kind=Kind.ROBUSTNESS, metrics=tuple(metrics), facts=facts, provenance=provenance(config, rows))
    return write_results(config.out, results, items)


def pair_columns(
    images: Float32[np.ndarray, "n p"],
    texts: Float32[np.ndarray, "n p"],
    duplicate_ids: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]],
) -> Columns:
    """The cosine of every pair, and the rank of every distinct query in both directions: NaN where it is repeated."""
    both = DistinctPairs.of_rows(images, texts, *duplicate_ids).rank()
    cosines = (images.astype(np.float64) * texts).sum(axis=1)
    ranks = {metric_name(direction, "rank"): queries.column(len(images)) for direction, queries in both.items()}
    return {**ranks, COSINE: cosines}


def measure(
    path: Sequence[str], columns: Columns, clean: Columns | None, articles: Sequence[str], seed: int
) -> Iterator[Metric]:
    """R@10 in each direction and over both, and the mean cosine, below `path`; with `clean`, how far they are from it.

    Differences are paired: each pair is compared with itself, and its article resampled as a whole.
    """
    hits = _hits(columns)
    for direction, values in zip(DIRECTIONS, hits.T, strict=True):
        column, rows = metric_name(*path, direction, "rank"), np.flatnonzero(~np.isnan(values))
        mean = estimate(values[rows], [articles[int(row)] for row in rows], _mean, seed, SHARE)
        yield to_metric(metric_name(*path, direction, RECALL), mean, None, column, RECALL, "compared")
    yield to_metric(metric_name(*path, RECALL), estimate(hits, articles, mean_of_directions, seed, SHARE))
    column = metric_name(*path, COSINE)
    yield to_metric(column, estimate(columns[COSINE], articles, _mean, seed), None, column, "mean")
    if clean is not None:
        change = hits - _hits(clean)
        fall = estimate(change, articles, mean_of_directions, seed, CHANGE_OF_SHARE)
        yield to_metric(metric_name(*path, f"{RECALL}_change"), fall)
        change = columns[COSINE] - clean[COSINE]
        yield to_metric(metric_name(*path, f"{COSINE}_change"), estimate(change, articles, _mean, seed))


def _hits(columns: Columns) -> Float64[np.ndarray, "n 2"]:
    ranks = np.stack([columns[metric_name(direction, "rank")] for direction in DIRECTIONS], axis=1)
    return hits_at_k(ranks, K)


def _mean(values: np.ndarray) -> float:
    return float(values.mean())


def _embed_corrupted(
    backend: Backend, rows: Split, corruption: Corruption, severity: int, seed: int, advance: Advance
) -> np.ndarray:
    """Embeddings of all images, corrupted a batch at a time: never more than two batches of them are in memory."""
    ids, model = rows.column("id"), backend.model

    def read(row: int) -> CachedPixels:
        pixels = rows.read_image(row, lambda image: read_corrupted(image, ids[row]))
        return digest_of(b"pixels", pixels), pixels

    def read_corrupted(image: bytes, id: str) -> UInt8[np.ndarray, "s s 3"]:
        return decode_pixels(corrupt(image, corruption, severity, id, seed), model.image_processor)

    batches = stream_images(backend, range(len(rows)), read, advance)
    return np.concatenate([backend.project(features, model.config.vision) for features in batches])

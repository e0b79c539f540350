"""A map of an index: images as points in a plane, outliers, near duplicates, captions that fit others better."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Float64, Int, Int64

from medclip import NOT_CLINICAL
from medclip.atomic_io import whole_file
from medclip.data.dataset import duplicate_ids
from medclip.data.export import ROW_GROUP, exchange_column, exchange_type, huggingface_metadata
from medclip.encode.encoder import embed_captions, jax_backend
from medclip.errors import UserError
from medclip.folder_locks import LOCK_WAIT_S, lock_folder
from medclip.metrics import DistinctPairs
from medclip.model.checkpoint import Model
from medclip.progress import Advance, progress
from medclip.require import require
from medclip.search.filters import NO_FILTER, Filter, compute, label_names
from medclip.search.query import group_duplicates
from medclip.search.reader import IndexReader
from medclip.search.segments import ROW_COLUMNS

MAX_POINTS = 100_000
NUM_NEIGHBORS = 10
QUERY_ROWS = 1024  # whose neighbors are searched at once
MIN_POINTS = {"pca": 2, "umap": 4}

Method = Literal["pca", "umap"]
EncodeCaptions = Callable[[Sequence[str], Advance], Float32[np.ndarray, "n p"]]


@dataclass(frozen=True)
class Layout:
    """Where the points lie."""

    xy: Float32[np.ndarray, "n 2"]
    variance_shares: tuple[float, float] | None
    """The share of all variance that each axis shows; None for UMAP, whose axes mean nothing."""


@dataclass(frozen=True)
class Neighbors:
    """The nearest other points of each point, the closest first. At most NUM_NEIGHBORS."""

    points: Int64[np.ndarray, "n k"]
    distances: Float64[np.ndarray, "n k"]
    """1 − cosine."""

    @property
    def outlier_scores(self) -> Float64[np.ndarray, " n"]:
        """Mean cosine distance to the k nearest: the weight of Angiulli and Pizzuti (2002), over k."""
        return self.distances.mean(axis=1)

    @property
    def farthest(self) -> Int64[np.ndarray, " n"]:
        """All points, those farthest from their neighbors first."""
        return np.argsort(-self.outlier_scores, kind="stable")


@dataclass(frozen=True)
class CaptionRanks:
    """How each image ranks its own caption among the captions of all points; equal images and captions count once."""

    ranks: Int64[np.ndarray, " n"]
    """1 is best; ties count against the model."""
    cosines: Float64[np.ndarray, " n"]
    """With the best of its own captions."""
    others: Int64[np.ndarray, " n"]
    """The point whose caption, not the image's own, fits it best."""
    other_cosines: Float64[np.ndarray, " n"]
    """-inf where there is no other caption."""

    @property
    def most_confused(self) -> Int64[np.ndarray, " m"]:
        """Points whose image prefers another's caption, the widest margin first."""
        margins = self.other_cosines - self.cosines
        order = np.argsort(-margins, kind="stable")
        return order[margins[order] > 0]


@dataclass(frozen=True)
class EmbeddingMap:
    """All that a map shows. Points are counted from 0 in the order of `rows`."""

    method: Method
    seed: int
    rows: Int64[np.ndarray, " n"]
    """The row of the index that each point is."""
    layout: Layout
    neighbors: Neighbors
    duplicates: dict[int, list[int]]
    """For the first point of each group of near duplicates the others."""
    captions: CaptionRanks | None = None


def make_map(
    reader: IndexReader,
    encode_captions: EncodeCaptions | None = None,
    method: Method = "pca",
    seed: int = 0,
    filter: Filter = NO_FILTER,
) -> EmbeddingMap:
    """The map of an index. `encode_captions` gives embeddings of captions; without it none are ranked."""
    rows = map_rows(reader, filter)
    embeddings = map_embeddings(reader, rows)
    layout = lay_out(embeddings, method, seed)
    neighbors, duplicates = nearest_neighbors(embeddings), duplicate_points(reader, rows)
    captions = rank_captions(reader, rows, embeddings, encode_captions) if encode_captions else None
    return EmbeddingMap(method, seed, rows, layout, neighbors, duplicates, captions)


def caption_encoder(model: Model, cache: bool) -> EncodeCaptions:
    """Encodes captions with the model of an index; `cache`: as of `build_index`."""
    return partial(embed_captions, jax_backend(model, cache))


def map_rows(reader: IndexReader, filter: Filter = NO_FILTER) -> Int64[np.ndarray, " n"]:
    """The rows that match a filter; of more than MAX_POINTS that many, evenly spread.

    UserError for an unknown key, and where none match.
    """
    rows = np.flatnonzero(reader.allowed_mask(filter))
    if filter.conditions and not len(rows):
        raise UserError(reader.explain_no_match(filter))
    return rows[np.linspace(0, len(rows), min(len(rows), MAX_POINTS), endpoint=False, dtype=int)]


def map_embeddings(reader: IndexReader, rows: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n p"]:
    """The embeddings of rows. WorkError where one is damaged."""
    reader.check_embeddings(rows)
    return reader.embeddings_at(rows)


def lay_out(embeddings: Float32[np.ndarray, "n p"], method: Method, seed: int) -> Layout:
    """Points of embeddings. UserError where they are too few.

    `pca` is exact: the two axes of greatest variance, the largest weight of each positive. `umap` (by cosine, of 15
    neighbors) starts from it and draws with `seed`.
    """
    if len(embeddings) < MIN_POINTS[method] or embeddings.shape[1] < 2:
        raise UserError(f"a map by {method} needs {MIN_POINTS[method]} images or more; these are {len(embeddings)}.")
    with progress(f"map by {method}", len(embeddings), "images") as advance:
        layout = _pca(embeddings) if method == "pca" else _umap(embeddings, seed)
        advance(len(embeddings))
    return layout


def _pca(embeddings: np.ndarray) -> Layout:
    from sklearn.decomposition import PCA

    exact = embeddings.astype(np.float64)
    with np.errstate(invalid="ignore"):  # of equal embeddings, which have no variance
        pca = PCA(2, svd_solver="covariance_eigh").fit(exact)
    x_share, y_share = np.nan_to_num(pca.explained_variance_ratio_)
    return Layout(pca.transform(exact).astype(np.float32), (float(x_share), float(y_share)))


def _umap(embeddings: np.ndarray, seed: int) -> Layout:
    umap = require("umap", extra="umap")
    size = min(15, len(embeddings) - 1)
    reducer = umap.UMAP(n_neighbors=size, metric="cosine", init="pca", random_state=seed, n_jobs=1)
    return Layout(np.asarray(reducer.fit_transform(embeddings), np.float32), None)


def nearest_neighbors(embeddings: Float32[np.ndarray, "n p"]) -> Neighbors:
    """The nearest others of each of two or more unit vectors, by an exact search. Memory is linear in n."""
    from sklearn.neighbors import NearestNeighbors

    n = len(embeddings)
    k = min(NUM_NEIGHBORS, n - 1)
    search = NearestNeighbors(n_neighbors=k + 1, algorithm="brute", metric="sqeuclidean").fit(embeddings)
    points, distances = np.empty((n, k), np.int64), np.empty((n, k))
    with progress("neighbors", n, "images") as advance:
        for start in range(0, n, QUERY_ROWS):
            queries = np.arange(start, min(start + QUERY_ROWS, n))
            squares, candidates = search.kneighbors(embeddings[queries])
            own = candidates == queries[:, None]
            own[~own.any(axis=1), k] = True  # more than k equal vectors: any of them goes
            points[queries] = candidates[~own].reshape(-1, k)
            distances[queries] = squares[~own].reshape(-1, k) / 2  # of unit vectors: |a − b|² = 2 − 2 cos
            advance(len(queries))
    return Neighbors(points, distances)


def duplicate_points(reader: IndexReader, rows: Int[np.ndarray, " n"]) -> dict[int, list[int]]:
    """Groups of near-duplicate images, by fingerprint: for the first point of each group the others."""
    point = {int(row): i for i, row in enumerate(rows)}
    with progress("near duplicates", len(rows), "images") as advance:
        groups = group_duplicates(reader, list(point), advance)
    return {point[first]: [point[row] for row in others] for first, others in groups.items() if others}


def rank_captions(
    reader: IndexReader,
    rows: Int[np.ndarray, " n"],
    embeddings: Float32[np.ndarray, "n p"],
    encode_captions: EncodeCaptions,
) -> CaptionRanks:
    """How each image ranks its caption. Each distinct caption is encoded once."""
    table = reader.table.select(["sha256", "caption"]).take(rows)
    captions = table.column("caption").to_pylist()
    image_ids, caption_ids = duplicate_ids(table.column("sha256").to_pylist(), captions)
    _, first = np.unique(caption_ids, return_index=True)
    with progress("embed captions", len(first), "captions") as advance:
        texts = encode_captions([captions[i] for i in first], advance)[caption_ids]
    pairs = DistinctPairs.of_rows(embeddings, texts, image_ids, caption_ids)
    with progress("rank captions", len(pairs.images), "images") as advance:
        queries = pairs.rank(advance)["image_to_text"]
    others, other_cosines = queries.ranking.nearest
    return CaptionRanks(
        queries.ranks[image_ids],
        queries.ranking.own_scores[image_ids],
        pairs.text_rows[others][image_ids],
        other_cosines[image_ids],
    )


def export_map(
    reader: IndexReader,
    out: Path,
    encode_captions: EncodeCaptions | None = None,
    method: Method = "pca",
    seed: int = 0,
    filter: Filter = NO_FILTER,
) -> EmbeddingMap:
    """Make a map and write it as one Parquet file, a row for each point, with images and embeddings.

    `x`, `y` and `neighbors` are as embedding-atlas takes them, `image` and `labels` as `datasets` and `medclip prepare`
    do; each label is a column of its own too. UserError where `out` exists.
    """
    _check_absent(out)
    points = make_map(reader, encode_captions, method, seed, filter)
    with lock_folder(out.parent, wait_s=LOCK_WAIT_S):
        _check_absent(out)  # another map may have been written since this one was begun
        _write_points(reader, points, out)
    return points


def _check_absent(out: Path) -> None:
    if os.path.lexists(out):
        raise UserError(f"--out {out} is there already. Choose another or delete it.")


def _write_points(reader: IndexReader, points: EmbeddingMap, out: Path) -> None:
    labels = label_names(reader.table)
    schema = _map_schema(reader, labels, points)
    with (
        progress("write map", len(points.rows), "images") as advance,
        whole_file(out) as partial,
        partial.open("wb") as content,  # a name that is not Unicode is none to its library
        pq.ParquetWriter(content, schema, use_dictionary=False, write_statistics=False) as file,
    ):
        computed = _computed_columns(reader, points)
        for start in range(0, len(points.rows), ROW_GROUP):
            for row in points.rows[start : start + ROW_GROUP].tolist():
                reader.image(row)  # compared with its hash
            table = reader.table.take(points.rows[start : start + ROW_GROUP]).combine_chunks()
            columns = {name: column[start : start + ROW_GROUP] for name, column in computed.items()}
            columns |= {name: exchange_column(table.column(name).combine_chunks(), start) for name in ROW_COLUMNS}
            columns |= {f"label_{name}": compute.map_lookup(table.column("labels"), name, "first") for name in labels}
            columns["embedding"] = list(reader.embeddings_at(points.rows[start : start + ROW_GROUP]))
            file.write_table(pa.table([columns[name] for name in schema.names], schema=schema))
            advance(len(table))


def _map_schema(reader: IndexReader, labels: Sequence[str], points: EmbeddingMap) -> pa.Schema:
    neighbors = pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float64()))])
    schema = pa.schema(
        [
            *((name, pa.float32()) for name in ("x", "y")),
            *((name, exchange_type(reader.table.field(name))) for name in ROW_COLUMNS),
            *((f"label_{name}", pa.string()) for name in labels),
            ("added", pa.date32()),
            ("outlier_score", pa.float64()),
            ("duplicate_of", pa.string()),
            ("caption_rank", pa.int64()),
            ("caption_cosine", pa.float64()),
            ("other_caption_of", pa.string()),
            ("other_caption_cosine", pa.float64()),
            ("neighbors", neighbors),
            ("embedding", pa.list_(pa.float32())),
        ]
    )
    facts = {
        "notice": NOT_CLINICAL,
        "synthetic": reader.synthetic,
        "method": points.method,
        "seed": points.seed,
        "variance_shares": points.layout.variance_shares,
        "num_images": len(reader),
        "num_points": len(points.rows),
        "model_sha256": reader.manifest.model_sha256,
    }
    return schema.with_metadata({**huggingface_metadata(schema), "medclip": json.dumps(facts)})


def _computed_columns(reader: IndexReader, points: EmbeddingMap) -> dict[str, Any]:
    """The columns that the index does not hold; of captions null where they were not ranked."""
    n, near, captions = len(points.rows), points.neighbors, points.captions
    ids = reader.table.column("id").take(points.rows).to_numpy()
    duplicate_of = np.full(n, None)
    for first, others in points.duplicates.items():
        duplicate_of[others] = ids[first]
    columns = {
        "x": points.layout.xy[:, 0],
        "y": points.layout.xy[:, 1],
        "added": reader.added_days[points.rows],
        "outlier_score": near.outlier_scores,
        "duplicate_of": duplicate_of,
        "neighbors": [
            {"ids": others, "distances": distances}
            for others, distances in zip(near.points.tolist(), near.distances.tolist(), strict=True)
        ],
    }
    if captions is None:
        none = np.full(n, None)
        names = ("caption_rank", "caption_cosine", "other_caption_of", "other_caption_cosine")
        return columns | dict.fromkeys(names, none)
    no_other = np.isneginf(captions.other_cosines)
    return columns | {
        "caption_rank": captions.ranks,
        "caption_cosine": captions.cosines,
        "other_caption_of": pa.array(ids[captions.others], pa.string(), mask=no_other),
        "other_caption_cosine": pa.array(captions.other_cosines, mask=no_other),
    }

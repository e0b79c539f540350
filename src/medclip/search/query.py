"""Questions in words and images, put to an index: what they ask becomes one direction among its vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medclip.data.perceptual_hash import Fingerprints, near_duplicates
from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import ImageError, UserError
from medclip.model.checkpoint import Model, load
from medclip.prompts import read_prompts
from medclip.search.filters import EVERYTHING, Filter
from medclip.search.index import Hit, Index

NEGATIVE_WEIGHT = -0.5  # what is not wanted weighs half of what is: Rocchio's rule, in which the negative weighs less


@dataclass(frozen=True)
class Query:
    """What is looked for: any of words and images, all of them together, and what it should not be."""

    texts: tuple[str, ...] = ()
    images: tuple[Any, ...] = ()
    """Encoded images or files (or what else the searcher's `images` takes)."""
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class SearchOptions:
    """Which answers are wanted."""

    k: int = 10
    where: Filter = EVERYTHING
    one_per_article: bool = False


@dataclass(frozen=True)
class Searcher:
    """An opened index with the model that made it."""

    index: Index
    model: Model
    texts: Callable[[Model, Sequence[str]], np.ndarray] = embed_texts
    """How words become unit vectors f32 (n, p); a service puts here what joins the questions of many."""
    images: Callable[[Model, Sequence[Any]], np.ndarray] = embed_images
    """The same for images."""


def open_searcher(folder: Path, model: Path | None = None) -> Searcher:
    """Open an index and its model, or `model` where that has moved. UserError where either is not as it should be."""
    index = Index(folder)
    return Searcher(index, load(index.model(model)))


def search(
    searcher: Searcher, queries: Sequence[Query], wanted: SearchOptions, ensemble: bool = False
) -> list[list[Hit]]:
    """The best images for each query, best first, each image once, however often the index has it.

    `ensemble`: each text is said in the ways of `prompts/radiology.toml`, and their mean is looked for. UserError where
    a query is empty or an image cannot be read.
    """
    vectors = query_embeddings(searcher, queries, ensemble)
    return [search_embedding(searcher.index, vector, wanted) for vector in vectors]


def similar(index: Index, id: str, wanted: SearchOptions) -> list[Hit]:
    """The images nearest to one of the index, itself and its copies left out. UserError where there is none of it."""
    row = index.row(id)
    return search_embedding(index, index.vectors_of(np.array([row]))[0], wanted, but=row)


def search_embedding(index: Index, vector: np.ndarray, wanted: SearchOptions, but: int | None = None) -> list[Hit]:
    """The hits of a unit vector (p,), best first: no image twice, no copy of row `but`, an article once if wanted."""
    if wanted.k < 1:
        raise UserError("the number of results must be at least 1.")
    count = 2 * wanted.k + 16
    while True:
        found = index.search(vector[None], count, wanted.where)[0]
        kept = _distinct(index, [row for row, _ in found], but)
        hits, articles = [], set()
        for place, (row, score) in enumerate(found):
            if place not in kept:
                continue
            hit = index.hit(row, score, kept[place])
            if not (wanted.one_per_article and hit.article and hit.article in articles):
                hits.append(hit)
            articles.add(hit.article)
        if len(hits) >= wanted.k or len(found) < count:
            return hits[: wanted.k]
        count *= 2


def query_embeddings(searcher: Searcher, queries: Sequence[Query], ensemble: bool = False) -> np.ndarray:
    """Unit vectors f32 (q, p) of queries. One text or image is its own vector.

    Several are a weighted sum of cosines, each divided by how much it varies over the index: an image's cosines with
    images spread wider than a text's, and would otherwise decide alone.
    """
    texts = [text for query in queries for text in (*query.texts, *query.without)]
    images = [image for query in queries for image in query.images]
    for query in queries:
        if not (query.texts or query.images) or not all(map(str.strip, (*query.texts, *query.without))):
            raise UserError("the query is empty: say what to look for, in words or by an image.")
    of_texts = iter(_text_vectors(searcher, texts, ensemble))
    of_images = iter(_image_vectors(searcher, images))
    found = []
    for query in queries:
        parts = [(next(of_texts), 1.0) for _ in query.texts] + [
            (next(of_texts), NEGATIVE_WEIGHT) for _ in query.without
        ]
        parts += [(next(of_images), 1.0) for _ in query.images]
        found.append(parts[0][0] if len(parts) == 1 else _together(searcher.index.sample, parts))
    return np.stack(found)


def _together(sample: np.ndarray, parts: list[tuple[np.ndarray, float]]) -> np.ndarray:
    summed = sum(weight * vector / max(float((sample @ vector).std()), 1e-6) for vector, weight in parts)
    length = float(np.linalg.norm(summed))
    if not length:
        raise UserError("the parts of the query cancel each other out.")
    return np.float32(summed / length)


def _text_vectors(searcher: Searcher, texts: Sequence[str], ensemble: bool) -> np.ndarray:
    if not texts:
        return np.empty((0, searcher.model.config.projection_dim), np.float32)
    if not ensemble:
        return searcher.texts(searcher.model, texts)
    ways = [
        template.replace("{}", text) for text in texts for template in read_prompts(None, "default", False).templates
    ]
    means = searcher.texts(searcher.model, ways).reshape(len(texts), len(ways) // len(texts), -1).mean(axis=1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def _image_vectors(searcher: Searcher, images: Sequence[Any]) -> np.ndarray:
    if not images:
        return np.empty((0, searcher.model.config.projection_dim), np.float32)
    try:
        return searcher.images(searcher.model, images)
    except ImageError as error:
        raise UserError(f"{images[0] if isinstance(images[0], Path) else 'the image'}: {error}.") from None


def _distinct(index: Index, rows: list[int], but: int | None) -> dict[int, tuple[str, ...]]:
    """Of rows, best first, the places of those that no better one looks like, each with the ids of its copies."""
    asked = rows if but is None else [but, *rows]
    if not asked:
        return {}
    looks = Fingerprints(
        np.stack([np.frombuffer(index.rows.column("hash")[row].as_py(), np.uint64) for row in asked]),
        np.stack([np.frombuffer(index.rows.column("thumbnail")[row].as_py(), np.uint8) for row in asked]),
    )
    first, copies = {}, {}
    for place, same in near_duplicates(looks, looks, within=True):
        original = first[int(same[0])] if len(same) else place
        first[place] = original
        copies.setdefault(original, []).extend([asked[place]] if original != place else [])
    shift = 0 if but is None else 1
    ids = index.rows.column("id")
    return {
        place - shift: tuple(ids[row].as_py() for row in of)
        for place, of in copies.items()
        if place >= shift
    }  # fmt: skip

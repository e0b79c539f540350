"""Queries of texts and images as one embedding, and its hits: best first, each image once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64

from medclip.data.perceptual_hash import near_duplicates
from medclip.data.pixel_arrays import ImageInput
from medclip.data.schema import is_running_number
from medclip.errors import UserError
from medclip.progress import Advance
from medclip.search.filters import NO_FILTER, Filter
from medclip.search.reader import Hit, IndexReader

NEGATIVE_WEIGHT = -0.5  # Rocchio's rule, in which the negative part weighs less
MIN_DEVIATION = 1e-6

Embedding = Float32[np.ndarray, " p"]
GroupBy = Literal["article"]


@dataclass(frozen=True)
class Query:
    """Texts and images to look for, all of them together, and texts to avoid."""

    texts: tuple[str, ...] = ()
    images: tuple[ImageInput, ...] = ()
    negative_texts: tuple[str, ...] = ()

    def __post_init__(self):
        if isinstance(self.texts, str) or isinstance(self.negative_texts, str):
            raise TypeError("texts is a single string, not a list of strings")
        if not (self.texts or self.images) or not all(map(str.strip, (*self.texts, *self.negative_texts))):
            raise UserError("the query is empty: give a text or an image to look for.")


@dataclass(frozen=True)
class SearchOptions:
    """How many hits, of which rows."""

    k: int = 10
    filter: Filter = NO_FILTER
    group_by: GroupBy | None = None
    """`article`: only the best hit of each article."""

    def __post_init__(self):
        if self.k < 1:
            raise UserError("the number of results must be at least 1.")


@dataclass(frozen=True)
class Ranking:
    """The hits of an embedding, best first, and what they were chosen from."""

    hits: list[Hit]
    cosines: Float64[np.ndarray, " h"]
    """Of the nearest images, merged or not, best first: 18 or more, unless fewer pass the filter."""


def similar(reader: IndexReader, row: int, options: SearchOptions) -> list[Hit]:
    """The images nearest to that of a row, without it and its duplicates."""
    return search_embedding(reader, reader.embeddings_at(np.array([row]))[0], options, exclude_row=row)


def search_embedding(
    reader: IndexReader, embedding: Embedding, options: SearchOptions, exclude_row: int | None = None
) -> list[Hit]:
    """The hits of an embedding, best first, near-duplicates merged, without `exclude_row` and its duplicates."""
    return rank(reader, embedding, options, exclude_row).hits


def rank(reader: IndexReader, embedding: Embedding, options: SearchOptions, exclude_row: int | None = None) -> Ranking:
    """As `search_embedding`, with the cosines of the nearest images."""
    count = 2 * options.k + 16
    while True:
        (ranking,) = reader.nearest_rows(embedding[None], count, options.filter)
        scores = {row: score for row, score in ranking if row != exclude_row}
        if exclude_row is None:
            groups = group_duplicates(reader, list(scores))
        else:
            groups = group_duplicates(reader, [exclude_row, *scores])
            del groups[exclude_row]
        hits, articles = [], set()
        for row, duplicates in groups.items():
            if len(hits) == options.k:
                break
            hit = reader.hit(row, scores[row], tuple(reader.id(duplicate) for duplicate in duplicates))
            # patient 12 of another hospital is another patient
            article = (hit.source if is_running_number(hit.article) else "", hit.article)
            if not (options.group_by == "article" and hit.article and article in articles):
                hits.append(hit)
            articles.add(article)
        if len(hits) == options.k or len(ranking) < count:
            return Ranking(hits, np.array(list(scores.values())))
        count *= 2


def group_duplicates(reader: IndexReader, rows: Sequence[int], advance: Advance | None = None) -> dict[int, list[int]]:
    """Groups of near-duplicate rows: for the first row of each group the others, in order. `advance` counts rows."""
    if not rows:
        return {}
    fingerprints = reader.fingerprints(rows)
    first_of: dict[int, int] = {}
    """Position in `rows` → position of the first of its group."""
    groups: dict[int, list[int]] = {}
    for position, earlier in near_duplicates(fingerprints, fingerprints, within=True):
        match = next(earlier, None)
        first = position if match is None else first_of[match]
        first_of[position] = first
        if first == position:
            groups[rows[position]] = []
        else:
            groups[rows[first]].append(rows[position])
        if advance:
            advance()
    return groups


def combine_embeddings(sample: Float32[np.ndarray, "m p"], parts: Sequence[tuple[Embedding, float]]) -> Embedding:
    """The unit vector whose cosines rank as the weighted sum of the parts' standardized cosines. `parts`: with weights.

    Each part is divided by the standard deviation of its cosines with a sample of the index: an image's cosines with
    images spread wider than a text's, and would otherwise decide alone. UserError where the parts cancel out.
    """
    total = np.zeros(sample.shape[1], np.float32)
    for embedding, weight in parts:
        total += weight * embedding / max(float((sample @ embedding).std()), MIN_DEVIATION)
    length = float(np.linalg.norm(total))
    if not length:
        raise UserError("the parts of the query cancel each other out.")
    return (total / length).astype(np.float32)

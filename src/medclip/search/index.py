"""An index with the model that made it: build, open, search."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from medclip.data.pixel_arrays import ImageInput
from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.match_calibration import Calibration
from medclip.model.checkpoint import Model, load, model_folder
from medclip.search.filters import Filter, make_filter
from medclip.search.manifest import EXACT
from medclip.search.match import SearchResult, answer_query, calibration_or_reason
from medclip.search.query import (
    NEGATIVE_WEIGHT,
    Embedding,
    GroupBy,
    Query,
    SearchOptions,
    combine_embeddings,
    search_embedding,
)
from medclip.search.reader import Hit, IndexReader

if TYPE_CHECKING:
    from medclip.data.sources.detect import Source
    from medclip.search.map import EmbeddingMap, Method


@dataclass(frozen=True)
class Index:
    """An open index and its model.

    Examples:
        >>> index = medclip.Index.build("run", "data", "index")
        >>> hits = index.search("pleural effusion", k=3, filter={"license": "CC BY"})
        >>> all(-1 <= hit.score <= 1 for hit in hits)
        True
    """

    reader: IndexReader
    model: Model
    text_encoder: Callable[[Model, Sequence[str]], np.ndarray] = embed_texts
    """Embeddings f32 (n, p) of texts; a service puts one here that batches concurrent queries."""
    image_encoder: Callable[[Model, Sequence[ImageInput]], np.ndarray] = embed_images
    """The same for images."""
    calibration: Calibration | str = "it was not read."
    """Of the model, or why there is none."""

    @classmethod
    def build(
        cls,
        model: str | os.PathLike[str],
        data: Source,
        out: str | os.PathLike[str],
        *,
        split: str | None = None,
        max_samples: int | None = None,
        vector_store: str = EXACT,
    ) -> Index:
        """Embed every image of a split into the new folder `out`, and open it; a killed call resumes.

        `model` is a folder, a run, OWNER/NAME on the Hub, or what `medclip.load` gives. `data` is a prepared dataset,
        or a source that is first prepared into `OUT-data`. `split` is validation, or the only one.
        """
        from medclip.data.prepare import ensure_prepared  # a search waits for neither
        from medclip.search.curate import build_index

        folder = Path(out)
        build_index(os.fspath(model), ensure_prepared(data, folder), folder, split, max_samples, vector_store)
        return cls.open(folder)

    @classmethod
    def open(cls, path: str | os.PathLike[str], model: str | os.PathLike[str] | None = None) -> Index:
        """Open an index and its model, or `model` (see `build`) where that has moved.

        UserError where either is missing or damaged.
        """
        reader, override = IndexReader(Path(path)), None if model is None else model_folder(os.fspath(model), dual=True)
        folder = reader.model_path(override)
        return cls(reader, load(folder), calibration=calibration_or_reason(folder, reader.manifest.model_sha256))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.reader)

    def __repr__(self) -> str:
        return f"Index({str(self.reader.folder)!r}, {len(self):,} images, {self.reader.manifest.vector_store})"

    def search(
        self,
        query: str | ImageInput | Query,
        k: int = 10,
        *,
        filter: Mapping[str, str | Sequence[str]] | None = None,
        group_by: GroupBy | None = None,
    ) -> list[Hit]:
        """The `k` best hits of a text, an image or a `Query` of several, best first, near-duplicate images merged.

        A string is a text; an image file is a `Path`. `filter` maps a label, `article`, `license`, `source` or `added`
        to the values to choose. UserError where a key is unknown or an image cannot be read.
        """
        if isinstance(query, str):
            query = Query((query,))
        elif not isinstance(query, Query):
            query = Query(images=(query,))
        return self.search_many([query], SearchOptions(k, _to_filter(filter), group_by))[0]

    def export_map(
        self,
        out: str | os.PathLike[str],
        method: Method = "pca",
        *,
        seed: int = 0,
        filter: Mapping[str, str | Sequence[str]] | None = None,
        captions: bool = True,
        cache: bool = True,
    ) -> EmbeddingMap:
        """Write every image as a point in a plane to the new Parquet file `out`, as `medclip map` does.

        Its columns are `x`, `y`, the labels, outlier scores, near duplicates and, with `captions`, how each image ranks
        its own caption. `method` is pca or umap, which draws with `seed`; `filter` is that of `search`; `cache` as of
        `medclip.evaluate`. UserError where `out` exists or the images are too few.
        """
        from medclip.search.map import caption_encoder, export_map  # a search needs no scikit-learn

        encode = caption_encoder(self.model, cache) if captions else None
        return export_map(self.reader, Path(out), encode, method, seed, _to_filter(filter))

    def search_many(self, queries: Sequence[Query], options: SearchOptions) -> list[list[Hit]]:
        """The hits of each query. UserError where an image cannot be read."""
        return [search_embedding(self.reader, embedding, options) for embedding in self.embed_queries(queries)]

    def answer(self, queries: Sequence[Query], options: SearchOptions) -> list[SearchResult]:
        """The hits of each query and what the calibration says of them. UserError where an image cannot be read."""
        embeddings = self.embed_queries(queries)
        return [self.answer_embedding(*pair, options) for pair in zip(queries, embeddings, strict=True)]

    def answer_embedding(
        self, query: Query, embedding: Embedding, options: SearchOptions, exclude_row: int | None = None
    ) -> SearchResult:
        """As `answer`, of a query whose embedding is there, without `exclude_row` and its duplicates."""
        result = answer_query(self.reader, self.calibration, query, embedding, options, exclude_row)
        tokenizer = self.model.tokenizer
        if not any(map(tokenizer.is_cut, (*query.texts, *query.negative_texts))):
            return result
        cut = f"A text has more than the {tokenizer.context_length} tokens that the model reads: the rest is left out."
        return replace(result, note=f"{result.note} {cut}".lstrip())

    def embed_queries(self, queries: Sequence[Query]) -> Float32[np.ndarray, "q p"]:
        """One embedding for each query: of a single text or image its own, else `combine_embeddings` of all parts."""
        texts = [text for query in queries for text in (*query.texts, *query.negative_texts)]
        images = [image for query in queries for image in query.images]
        text_embeddings = iter(self.text_encoder(self.model, texts) if texts else ())
        image_embeddings = iter(self.image_encoder(self.model, images) if images else ())
        embeddings = []
        for query in queries:
            parts = [(next(text_embeddings), 1.0) for _ in query.texts]
            parts += [(next(text_embeddings), NEGATIVE_WEIGHT) for _ in query.negative_texts]
            parts += [(next(image_embeddings), 1.0) for _ in query.images]
            single = len(parts) == 1
            embeddings.append(parts[0][0] if single else combine_embeddings(self.reader.sample_embeddings, parts))
        return np.stack(embeddings)


def _to_filter(filter: Mapping[str, str | Sequence[str]] | None) -> Filter:
    values = {key: [value] if isinstance(value, str) else list(value) for key, value in (filter or {}).items()}
    if empty := [key for key, chosen in values.items() if not chosen]:
        raise UserError(f"filter {empty[0]!r} chooses none of its values: leave it out to take any.")
    return make_filter(values)

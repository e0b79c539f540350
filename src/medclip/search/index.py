"""An index with the model that made it: build, open, search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from medclip.data.images import ImageInput
from medclip.data.paths import AnyPath
from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import ImageError, UserError
from medclip.model.checkpoint import Model, load
from medclip.search.curate import build_index
from medclip.search.filters import make_filter
from medclip.search.manifest import EXACT
from medclip.search.query import (
    NEGATIVE_WEIGHT,
    GroupBy,
    Query,
    SearchOptions,
    combine_embeddings,
    search_embedding,
)
from medclip.search.reader import Hit, IndexReader


def embed_query_images(model: Model, images: Sequence[ImageInput]) -> Float32[np.ndarray, "n p"]:
    """Embeddings of images in any form. UserError where one cannot be read."""
    try:
        return embed_images(model, images)
    except ImageError as error:
        raise UserError(f"{images[0] if isinstance(images[0], Path) else 'the image'}: {error}.") from None


@dataclass(frozen=True)
class Index:
    """An open index and its model."""

    reader: IndexReader
    model: Model
    text_encoder: Callable[[Model, Sequence[str]], np.ndarray] = embed_texts
    """Embeddings f32 (n, p) of texts; a service puts one here that batches concurrent queries."""
    image_encoder: Callable[[Model, Sequence[ImageInput]], np.ndarray] = embed_query_images
    """The same for images."""

    @classmethod
    def build(
        cls,
        model: str | Path,
        data: AnyPath,
        out: Path,
        *,
        split: str | None = None,
        max_samples: int | None = None,
        vector_store: str = EXACT,
    ) -> Index:
        """Embed every image of a split into the new folder `out`, and open it; a killed call resumes.

        `split` is validation, or the only one, where it is left out.
        """
        build_index(model, data, out, split, max_samples, vector_store)
        return cls.open(out)

    @classmethod
    def open(cls, path: Path, model: Path | None = None) -> Index:
        """Open an index and its model (`model`, where that has moved). UserError where either is missing or damaged."""
        reader = IndexReader(path)
        return cls(reader, load(reader.model_path(model)))

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
        """The `k` best hits of a text, an image or a `Query`, best first, near-duplicate images merged.

        `filter` maps a label, `article`, `license`, `source` or `added` to the values that may answer.
        """
        if isinstance(query, str):
            query = Query((query,))
        elif not isinstance(query, Query):
            query = Query(images=(query,))
        values_by_key = {key: [value] if isinstance(value, str) else value for key, value in (filter or {}).items()}
        return self.search_many([query], SearchOptions(k, make_filter(values_by_key), group_by))[0]

    def search_many(self, queries: Sequence[Query], options: SearchOptions) -> list[list[Hit]]:
        """The hits of each query. UserError where an image cannot be read."""
        return [search_embedding(self.reader, embedding, options) for embedding in self.embed_queries(queries)]

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

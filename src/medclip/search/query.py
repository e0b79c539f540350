"""A question in words or as a picture, put to an index."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from medclip.data.refused import ImageError
from medclip.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.model.hub import Model, load
from medclip.search.index import Hit, Index


@lru_cache(maxsize=2)
def _loaded(folder: Path) -> Model:
    return load(folder)


def search(index: Index, query: str | bytes | Path, k: int, model: Path | None = None) -> list[Hit]:
    """The k best pictures for words (str) or for a picture (encoded bytes or a file), best first.

    UserError where the query is empty, the picture cannot be read, or the model is not the index's own.
    """
    encoder = _loaded(index.model(model))
    if isinstance(query, str):
        if not query.strip():
            raise UserError("the query is empty.")
        return index.search(embed_texts(encoder, [query])[0], k)
    try:
        return index.search(embed_images(encoder, [query])[0], k)
    except ImageError as error:
        raise UserError(f"{query if isinstance(query, Path) else 'the picture'}: {error}.") from None

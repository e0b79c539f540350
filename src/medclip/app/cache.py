"""Indexes and models shared by every session of the app, and the hits kept for one session alone."""

from __future__ import annotations

import io
from pathlib import Path

import streamlit as st
from PIL import Image

from medclip.app.run import IndexLocation
from medclip.encode.encoder import BATCH_SIZE, embed_images, embed_texts
from medclip.errors import UserError
from medclip.model.checkpoint import Model, load
from medclip.search.index import Hit, Index
from medclip.search.query import Query, Searcher, SearchOptions, query_embeddings, search_embedding


@st.cache_resource(show_spinner="Opening the index…", validate=lambda searcher: searcher.index.is_current())
def cached_searcher(location: IndexLocation) -> Searcher:
    """The index as it is now, with its model. UserError where either is missing or damaged."""
    index = Index(location.folder)
    return Searcher(index, _cached_model(index.model(location.model), index.contents.model_sha256))


@st.cache_resource(show_spinner="Loading the model…")
def _cached_model(folder: Path, sha256: str) -> Model:
    return load(folder)  # once for each state of its weights, however often the index changes


def warm_up(searcher: Searcher) -> None:
    """Compile both encoders in both of their shapes, and read what the first query would wait for."""
    with io.BytesIO() as out:
        Image.new("L", (8, 8)).save(out, "PNG")
        for count in (1, BATCH_SIZE):
            embed_texts(searcher.model, ["chest"] * count)
            embed_images(searcher.model, [out.getvalue()] * count)
    search_embedding(
        searcher.index, query_embeddings(searcher, [Query(("chest",), (), ("bone",))])[0], SearchOptions(1)
    )
    _ = searcher.index.counts


# Kept for a session and gone with it: a shared cache would hold what one person asked and uploaded.
@st.cache_data(scope="session", max_entries=16, show_spinner=False)
def cached_hits(
    location: IndexLocation, state: tuple, query: Query, options: SearchOptions, exclude_id: str
) -> list[Hit]:
    """The hits of a query, without the image `exclude_id` and its copies. `state` is the index's own."""
    searcher = cached_searcher(location)
    (embedding,) = query_embeddings(searcher, [query])
    return search_embedding(searcher.index, embedding, options, but=_row(searcher.index, exclude_id))


def _row(index: Index, id: str) -> int | None:
    try:
        return index.row(id) if id else None
    except UserError:  # the image is another index's
        return None

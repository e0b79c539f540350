"""Indexes and models that every session of the app shares, and what is kept for a session alone."""

from __future__ import annotations

import io
from pathlib import Path

import streamlit as st
from PIL import Image

from medclip.encode.encoder import BATCH, embed_images, embed_texts
from medclip.errors import UserError
from medclip.model.checkpoint import Model, load
from medclip.search.index import Hit, Index
from medclip.search.query import Query, Searcher, SearchOptions, query_embeddings, search_embedding


def opened(folder: str, model: str | None = None) -> Searcher:
    """The index as it is now, with its model. UserError where either is not as it should be."""
    return _opened(folder, model)


@st.cache_resource(show_spinner="Opening the index…", validate=lambda searcher: searcher.index.is_current())
def _opened(folder: str, model: str | None) -> Searcher:
    index = Index(Path(folder))
    return Searcher(index, _model(str(index.model(model and Path(model))), index.contents.model_sha256))


@st.cache_resource(show_spinner="Loading the model…")
def _model(folder: str, sha256: str) -> Model:
    return load(folder)  # once for each state of its weights, however often the index changes


def warm(searcher: Searcher) -> None:
    """Compile both encoders in both of their shapes, and read what the first query would wait for."""
    with io.BytesIO() as out:
        Image.new("L", (8, 8)).save(out, "PNG")
        for count in (1, BATCH):
            embed_texts(searcher.model, ["chest"] * count)
            embed_images(searcher.model, [out.getvalue()] * count)
    search_embedding(
        searcher.index, query_embeddings(searcher, [Query(("chest",), (), ("bone",))])[0], SearchOptions(1)
    )
    _ = searcher.index.counts


# Kept for a session and gone with it: what is kept for all would hold what one person asked and uploaded.
@st.cache_data(scope="session", max_entries=16, show_spinner=False)
def answers(folder: str, model: str | None, state: tuple, asked: Query, wanted: SearchOptions, like: str) -> list[Hit]:
    """The hits of a query, without the image `like` of the index and its copies. `state` is the index's own."""
    searcher = opened(folder, model)
    return search_embedding(
        searcher.index, query_embeddings(searcher, [asked])[0], wanted, but=_row(searcher.index, like)
    )


def _row(index: Index, id: str) -> int | None:
    try:
        return index.row(id) if id else None
    except UserError:  # it is another index's
        return None

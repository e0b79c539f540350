"""Indexes and models shared by every session of the app, and the results kept for one session alone."""

from __future__ import annotations

import io
from pathlib import Path

import streamlit as st
from PIL import Image

from medclip.app.run import IndexLocation
from medclip.encode.encoder import embed_images, embed_texts
from medclip.model.checkpoint import Model, load
from medclip.search.index import Index
from medclip.search.match import SearchResult, calibration_or_reason
from medclip.search.query import Query, SearchOptions
from medclip.search.reader import IndexReader


@st.cache_resource(show_spinner="Opening the index…", validate=lambda index: index.reader.is_current())
def cached_index(location: IndexLocation) -> Index:
    """The index as it is now, with its model. UserError where either is missing or damaged."""
    reader = IndexReader(location.folder)
    folder, sha256 = reader.model_path(location.model), reader.manifest.model_sha256
    return Index(reader, _cached_model(folder, sha256), calibration=calibration_or_reason(folder, sha256))


@st.cache_resource(show_spinner="Loading the model…")
def _cached_model(folder: Path, sha256: str) -> Model:
    return load(folder)  # once for each state of its weights, however often the index changes


def warm_up(index: Index) -> None:
    """Compile both encoders for one and for many, texts up to 32 tokens, and read what the first query waits for."""
    with io.BytesIO() as out:
        Image.new("L", (8, 8)).save(out, "PNG")
        for count in (1, 2):
            embed_texts(index.model, ["chest"] * count)
            embed_texts(index.model, ["a " * 20] * count)
            embed_images(index.model, [out.getvalue()] * count)
    index.search(Query(("chest",), (), ("bone",)), 1)
    _ = index.reader.value_counts


# Kept for a session and gone with it: a shared cache would hold what one person asked and uploaded.
@st.cache_data(scope="session", max_entries=16, show_spinner=False)
def cached_result(
    location: IndexLocation, state: tuple, query: Query, options: SearchOptions, exclude_id: str
) -> SearchResult:
    """The result of a query, without the image `exclude_id` and its duplicates. `state` is the index's own."""
    index = cached_index(location)
    (embedding,) = index.embed_queries([query])
    return index.answer_embedding(query, embedding, options, _row(index.reader, exclude_id, query))


def _row(index: IndexReader, id: str, query: Query) -> int | None:
    """The row of the query's image; None where it is of another index, be it of the same id, or an upload."""
    if not id:
        return None
    (image,) = query.images
    assert isinstance(image, bytes)
    return next((row for row in index.find_rows(id) if index.image(row) == image), None)

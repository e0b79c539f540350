"""The query as a form: text, an image, or both, what to avoid; in the sidebar, how many hits and which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import streamlit as st

from medclip.app.run import IndexLocation
from medclip.app.text import (
    MAX_QUERY_CHARS,
    SHOWN_ERRORS,
    ViewedImage,
    escape_markdown,
    show_error,
    show_image,
    standardize_upload,
)
from medclip.app.viewer import open_viewer
from medclip.search.filters import ADDED_KEY, make_filter
from medclip.search.query import Query, SearchOptions
from medclip.search.reader import IndexReader

EXAMPLES = ("ultrasound", "chest x-ray", "brain MRI", "CT of the abdomen with a mass", "pleural effusion on the left")
PHANTOM_EXAMPLES = (
    "ultrasound of the neck",
    "CT of the chest",
    "axial T1-weighted MRI of the knees",
    "frontal radiograph of the chest",
)
_FILTER_PREFIX = "only-"


@dataclass(frozen=True)
class FormQuery:
    """A query, and the id of its image where that is one of an index."""

    query: Query
    image_id: str = ""


def query_form(synthetic: bool, locations: Mapping[str, IndexLocation]) -> FormQuery | None:
    """Draw the form. Returns the query; None while it is empty or its image cannot be read."""
    text_column, image_column = st.columns([3, 2], gap="medium")
    with text_column:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            text = st.text_input(
                "What are you looking for?",
                key="text",
                placeholder="for example: ultrasound of the liver",
                autocomplete="off",  # what is typed stays out of the browser's memory
                persist_state="session",
                icon=":material/search:",
            )
            st.button("Search", type="primary", key="search")
        negative = st.text_input(
            "But not",
            key="negative",
            placeholder="for example: arrows, contrast",
            autocomplete="off",
            persist_state="session",
            help="What the images should not be like; several are separated by commas.",
        )
    with image_column:
        id, image = _image_input(locations)
    with st.container(horizontal=True, wrap=False, gap="xsmall", key="examples", vertical_alignment="center"):
        st.caption("Try", width="content")
        for example in PHANTOM_EXAMPLES if synthetic else EXAMPLES:
            st.button(example, key=f"example-{example}", on_click=_reset, args=(example,))
    text = text.strip()[:MAX_QUERY_CHARS]
    if not text and image is None:
        return None
    negatives = tuple(part.strip() for part in negative[:MAX_QUERY_CHARS].split(",") if part.strip())
    return FormQuery(Query((text,) if text else (), () if image is None else (image,), negatives), id)


def find_similar(id: str, image: bytes) -> None:
    """Replace the query by an image of the index."""
    _reset("")
    st.session_state["image"] = (id, image)


def _reset(text: str) -> None:
    st.session_state["text"], st.session_state["negative"] = text, ""
    _drop_image()


def _drop_image() -> None:
    st.session_state.pop("image", None)


def _take_upload() -> None:
    if upload := st.session_state["upload"]:
        st.session_state["image"] = ("", upload.getvalue())


def _image_input(locations: Mapping[str, IndexLocation]) -> tuple[str, bytes | None]:
    """The id and the bytes of the query's image: ("", bytes) for an upload, ("", None) for none."""
    if "image" in st.session_state:
        id, image = st.session_state["image"]
        try:
            viewed = (
                ViewedImage(image, f"Image {id}", id=id) if id else ViewedImage(standardize_upload(image), "Your image")
            )
            _query_image(viewed, locations)
            return id, image
        except SHOWN_ERRORS as error:
            show_error(error)
            _drop_image()
    st.file_uploader(
        "Or an image: PNG, JPEG or DICOM",  # any name is taken: DICOM files often have no ending
        key="upload",
        on_change=_take_upload,
        help="It stays in the memory of this app while the page is open, and is written nowhere.",
    )
    return "", None


def _query_image(viewed: ViewedImage, locations: Mapping[str, IndexLocation]) -> None:
    """The query's image, small, with its buttons."""
    with st.container(horizontal=True, vertical_alignment="center", border=True, key="query-image"):
        show_image(viewed.image, width=104, alt=f"The query's image: {viewed.title}")
        with st.container(width="content", gap="xsmall"):
            title = viewed.title[:1].lower() + viewed.title[1:]
            st.markdown(f"Looking for images like **{escape_markdown(title)}**")
            with st.container(horizontal=True, gap="xsmall"):
                if st.button("Look at it", key="open-query-image", icon=":material/open_in_full:"):
                    open_viewer(viewed, locations)
                st.button("Remove", key="drop-query-image", icon=":material/close:", on_click=_drop_image)


def search_options(indexes: Sequence[IndexReader]) -> SearchOptions:
    """Draw the sidebar: number of results, one per article, and filters over labels, licenses and days."""
    with st.sidebar:
        st.header("Results")
        k = st.slider("Number of results", 1, 48, 12, key="k", persist_state="session")
        one_per_article = st.toggle(
            "One per article", key="one-per-article", persist_state="session", help="The best of an article only."
        )
        label_counts, bounds = _label_counts(indexes), _day_bounds(indexes)
        if label_counts or bounds:
            st.header("Only")
        chosen: dict[str, Sequence[str]] = {}
        for key, counts in label_counts.items():
            chosen[key] = st.multiselect(
                escape_markdown(key.capitalize()),
                list(counts),
                format_func=lambda value, counts=counts: f"{value.replace('_', ' ')} ({counts[value]:,})",
                key=f"{_FILTER_PREFIX}{key}",
                placeholder="any",
                persist_state="session",
            )
        if bounds and (days := _day_range(*bounds)):
            chosen[ADDED_KEY] = [days]
        if any(chosen.values()):
            st.button(
                "Clear these",
                on_click=clear_filters,
                icon=":material/filter_alt_off:",
                key="clear-side",
                width="stretch",
            )
        for index in indexes:
            summary = f"{index.folder.name}: {len(index):,} images, model {index.manifest.model_sha256[:12]}"
            st.caption(escape_markdown(summary))
    return SearchOptions(k, make_filter(chosen), "article" if one_per_article else None)


def clear_filters() -> None:
    """Allow any label, license and day again."""
    for key in [key for key in st.session_state if isinstance(key, str) and key.startswith(_FILTER_PREFIX)]:
        st.session_state[key] = () if key == _FILTER_PREFIX + ADDED_KEY else []


def _label_counts(indexes: Sequence[IndexReader]) -> dict[str, dict[str, int]]:
    """For each label and license, how many images of all indexes have each value, most frequent first."""
    totals: dict[str, Counter[str]] = {}
    for index in indexes:
        for key, counts in index.value_counts.items():
            totals.setdefault(key, Counter()).update(counts)
    return {key: dict(counts.most_common()) for key, counts in totals.items()}


def _day_bounds(indexes: Sequence[IndexReader]) -> tuple[date, date] | None:
    """The first and the last day on which images were added, where these are two."""
    first = min(index.added_days.min() for index in indexes).item()
    last = max(index.added_days.max() for index in indexes).item()
    return None if first == last else (first, last)


def _day_range(first: date, last: date) -> str | None:
    """The chosen span of the days on which images were added."""
    days = st.date_input(
        "Added", [], min_value=first, max_value=last, key=_FILTER_PREFIX + ADDED_KEY, persist_state="session"
    )
    if not days:
        return None
    since, *until = days  # the second day is missing while it is being chosen
    return f"{since}..{until[0] if until else ''}"

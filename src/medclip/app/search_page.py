"""The search page: a query, and its hits from one index or from two side by side."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from medclip.app.cache import cached_index, cached_result
from medclip.app.query_form import FormQuery, clear_filters, find_similar, query_form, search_options
from medclip.app.run import IndexLocation
from medclip.app.text import (
    SHOWN_ERRORS,
    ViewedImage,
    article_link,
    escape_markdown,
    format_labels,
    show_error,
    show_image,
)
from medclip.app.viewer import open_viewer
from medclip.match_calibration import Calibration
from medclip.search.match import SearchResult, describe_model, to_percent
from medclip.search.query import SearchOptions
from medclip.search.reader import Hit

SIDE_BY_SIDE = "side by side"
SO_FAR = "Probability that the right image is this one or one before it, if the index holds it."


def search_page(locations: Mapping[str, IndexLocation]) -> None:
    """Draw the page."""
    st.title("Search radiology images")
    names = _choose_indexes(locations)
    try:
        indexes = [cached_index(locations[name]).reader for name in names]
    except SHOWN_ERRORS as error:
        show_error(error)
        st.button("Try again", icon=":material/refresh:")
        return
    if all(index.synthetic for index in indexes):
        st.info("These images are synthetic phantoms, drawn by a program: no patient is shown.", icon=":material/draw:")
    options = search_options(indexes)
    query = query_form(indexes[0].synthetic, locations)
    if query is None:
        st.markdown("Type what you are looking for, choose an example, or give an image. Enter searches.")
        return
    columns = st.columns(len(names), gap="medium") if len(names) > 1 else [st.container()]
    for column, name in zip(columns, names, strict=True):
        with column:
            _results(locations, name, query, options, side_by_side=len(names) > 1)


def _choose_indexes(locations: Mapping[str, IndexLocation]) -> list[str]:
    """The names of the indexes to search."""
    names = list(locations)
    if len(names) == 1:
        return names
    choices = [*names, SIDE_BY_SIDE] if len(names) == 2 else names
    choice = st.segmented_control(
        "Index",
        choices,
        default=choices[-1],
        required=True,
        key="index",
        format_func=escape_markdown,
        persist_state="session",
    )
    return names if choice == SIDE_BY_SIDE else [choice]


def _results(
    locations: Mapping[str, IndexLocation], name: str, query: FormQuery, options: SearchOptions, side_by_side: bool
) -> None:
    if side_by_side:
        st.header(escape_markdown(name))
    try:
        with st.spinner("Searching…"):
            index = cached_index(locations[name])
            result = cached_result(locations[name], index.reader.version, query.query, options, query.image_id)
    except SHOWN_ERRORS as error:
        show_error(error)
        return
    hits = result.hits
    if not hits:
        st.info("No results: no image of the index passes the filters.", icon=":material/search_off:")
        st.button("Clear the filters", on_click=clear_filters, key=f"clear-{name}")
        return
    st.caption(f"{len(hits)} {'image' if len(hits) == 1 else 'images'}, the nearest first")
    _show_match(result, index.calibration)
    _grid(result, locations, name, min_width=190 if side_by_side else 250)


def _show_match(result: SearchResult, calibration: Calibration | str) -> None:
    """How far to believe the hits, and how good the model is on its own validation."""
    if result.no_match:
        st.warning(escape_markdown(result.note), icon=":material/search_off:")
    else:
        st.caption(escape_markdown(result.note))
    if isinstance(calibration, str):
        return
    if calibration.recall_at_10.is_near_chance:
        st.warning(escape_markdown(describe_model(calibration)), icon=":material/casino:")
    else:
        st.caption(escape_markdown(describe_model(calibration)))


def _grid(result: SearchResult, locations: Mapping[str, IndexLocation], name: str, min_width: int) -> None:
    """The hits of one index as cards, best first."""
    with st.grid(min_column_width=min_width, gap="small"):
        for rank, (hit, probability) in enumerate(result.hits_with_probability(), 1):
            with st.container(border=True, gap="xsmall", key=f"card-{name}-{rank}"):
                _card(rank, hit, None if result.no_match else probability, locations, name)


def _card(
    rank: int, hit: Hit, probability_so_far: float | None, locations: Mapping[str, IndexLocation], name: str
) -> None:
    show_image(hit.image, alt=hit.caption)
    # its label is for screen readers: style.css lays it over the whole image and shows the icon alone
    if st.button(
        f"Enlarge image {rank}", key=f"enlarge-{name}-{rank}", icon=":material/zoom_out_map:", width="stretch"
    ):
        open_viewer(to_viewed_image(hit, ("Cosine", f"{hit.score:.3f}")), locations, name)
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        st.markdown(f"**{rank}**", width="content")
        st.caption(f"cosine {hit.score:.3f}", width="content")
        if probability_so_far is not None:
            st.caption(
                f"right so far {to_percent(probability_so_far)}", width="content", help=SO_FAR if rank == 1 else None
            )
        if labels := format_labels(hit.labels):
            st.caption(escape_markdown(labels), width="content")
    st.text(hit.caption, width="stretch")  # a caption is data, never markup
    license = hit.license or "no license stated"
    if link := article_link(hit.article):
        st.markdown(f"[{hit.article}]({link}) · {escape_markdown(license)}")
    else:
        st.markdown(escape_markdown(f"{hit.article or hit.source} · {license}"))
    st.button(
        "Find similar",
        key=f"similar-{name}-{rank}",
        icon=":material/image_search:",
        on_click=find_similar,
        args=(hit.id, hit.image),
        type="tertiary",
    )


def to_viewed_image(hit: Hit, *first_facts: tuple[str, str]) -> ViewedImage:
    """A row of an index with what is known of it, after `first_facts`."""
    facts = {
        "Id": hit.id,
        "Labels": format_labels(hit.labels),
        "License": hit.license or "none stated: ask the source",
        "Attribution": hit.attribution,
        "Source": hit.source,
        "Added": hit.added,
        "Duplicates": ", ".join(hit.duplicates),
    }
    return ViewedImage(hit.image, f"Image {hit.id}", hit.caption, (*first_facts, *facts.items()), hit.article, hit.id)

"""The page that finds: a question, and its answers from one index or from two side by side."""

from __future__ import annotations

import streamlit as st

from medclip.app.cache import answers, opened
from medclip.app.filters import clear, narrow
from medclip.app.query_form import Asked, ask
from medclip.app.results import grid
from medclip.app.text import Places, plain, sentence
from medclip.errors import UserError
from medclip.search.index import Hit
from medclip.search.query import SearchOptions

BESIDE = "side by side"


def find(places: Places) -> None:
    """Draw the page."""
    st.title("Search radiology images")
    used = _chosen(places)
    try:
        indexes = [opened(*places[name]).index for name in used]
    except UserError as error:
        sentence(error)
        st.button("Try again", icon=":material/refresh:")
        return
    if all(index.synthetic for index in indexes):
        st.info("These images are synthetic phantoms, drawn by a program: no patient is shown.", icon=":material/draw:")
    wanted = narrow(indexes)
    asked = ask(indexes[0].synthetic, places)
    if asked is None:
        st.markdown("Type what you are looking for, choose an example, or give an image. Enter searches.")
        return
    columns = st.columns(len(used), gap="medium") if len(used) > 1 else [st.container()]
    for column, name in zip(columns, used, strict=True):
        with column:
            _answered(places, name, asked, wanted, beside=len(used) > 1)


def _chosen(places: Places) -> list[str]:
    """The names of the indexes that answer."""
    if len(places) == 1:
        return list(places)
    offered = [*places, BESIDE] if len(places) == 2 else list(places)
    said = st.segmented_control(
        "Index", offered, default=offered[-1], required=True, key="index", format_func=plain, persist_state="session"
    )
    return list(places) if said == BESIDE else [said]


def _answered(places: Places, name: str, asked: Asked, wanted: SearchOptions, beside: bool) -> None:
    if beside:
        st.subheader(plain(name))
    folder, model = places[name]
    try:
        with st.spinner("Searching…"):
            state = opened(folder, model).index.state
            hits: list[Hit] = answers(folder, model, state, asked.query, wanted, asked.like)
    except UserError as error:
        sentence(error)
        return
    if not hits:
        st.info("Nothing found: no image of the index is as the filters say.", icon=":material/search_off:")
        st.button("Clear the filters", on_click=clear, key=f"clear-{name}")
        return
    st.caption(f"{len(hits)} {'picture' if len(hits) == 1 else 'pictures'}, the nearest first")
    grid(hits, places, name, narrow=beside)

"""The search app (Streamlit): the frame of its pages."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import streamlit as st

from medclip import NOT_CLINICAL, jax_setup

jax_setup.start()  # before anything imports JAX

from medclip.app.about_page import about_page  # noqa: E402
from medclip.app.map_page import map_page  # noqa: E402
from medclip.app.run import AppConfig  # noqa: E402
from medclip.app.search_page import search_page  # noqa: E402
from medclip.app.text import SHOWN_ERRORS, show_error  # noqa: E402


def main(config: AppConfig) -> None:
    """Draw the page that the address names."""
    # without an entry the menu, and its choice of light and dark, is absent
    st.set_page_config("medclip", page_icon="🩻", layout="wide", menu_items={"About": f"medclip. {NOT_CLINICAL}"})
    st.html(Path(__file__).with_name("style.css"))
    with st.bottom:
        st.caption(NOT_CLINICAL)
    locations = config.locations()
    pages = [
        st.Page(
            partial(search_page, locations), title="Search", icon=":material/search:", url_path="search", default=True
        ),
        st.Page(partial(map_page, locations, config.edit), title="Map", icon=":material/scatter_plot:", url_path="map"),
        st.Page(
            partial(about_page, locations, config.evaluation),
            title="Model and evaluation",
            icon=":material/info:",
            url_path="about",
        ),
    ]
    try:
        st.navigation(pages, position="top").run()
    except SHOWN_ERRORS as error:  # of a change while the page was drawn, and then the rest of it is absent
        show_error(error)


main(AppConfig.from_json(sys.argv[1]))

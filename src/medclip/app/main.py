"""The search app (Streamlit): what stands around its pages."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import streamlit as st

from medclip import NOT_CLINICAL, jax_setup

jax_setup.start()  # before anything imports JAX

from medclip.app.about_page import about  # noqa: E402
from medclip.app.config import from_words  # noqa: E402
from medclip.app.search_page import find  # noqa: E402


def main(words: list[str]) -> None:
    """Draw the page that is asked for, of what the command was given."""
    served = from_words(words)
    # a menu that holds something has the choice of light and dark too
    st.set_page_config("medclip", page_icon="🩻", layout="wide", menu_items={"About": f"medclip. {NOT_CLINICAL}"})
    st.html(Path(__file__).with_name("style.css"))
    with st.bottom:
        st.caption(NOT_CLINICAL)
    pages = [
        st.Page(
            partial(find, served.places()), title="Search", icon=":material/search:", url_path="search", default=True
        ),
        st.Page(
            partial(about, served.places(), served.evaluation),
            title="Model and evaluation",
            icon=":material/info:",
            url_path="about",
        ),
    ]
    st.navigation(pages, position="top").run()


main(sys.argv[1:])

"""An image by itself: windowed, put to classes, and with what speaks for some words."""

from __future__ import annotations

import streamlit as st

from medclip import NOT_CLINICAL
from medclip.app.saliency_panel import where_it_shows
from medclip.app.text import Places, Shown, article_link, grey_of, plain, windowed
from medclip.app.zero_shot_panel import which_class

GREYS = 256


@st.dialog("Picture", width="large", icon=":material/radiology:")
def enlarge(shown: Shown, places: Places, name: str | None = None) -> None:
    """Open an image over the page; `name` is of the index that it was found in."""
    seen, asked = st.columns([3, 2], gap="medium")
    with seen:
        picture = st.container(key="enlarged")
        _window(shown, picture)
    with asked:
        about, classes, where = st.tabs(["About it", "Which class?", "Where?"])
        with about:
            _about(shown)
        name = name or next(iter(places))
        with classes:
            which_class(shown, places, name)
        with where:
            where_it_shows(shown, places, name)
    with st.container(key="notice-above"):
        st.caption(NOT_CLINICAL)


def _window(shown: Shown, picture: st.delta_generator.DeltaGenerator) -> None:
    """The image, with sliders below where it is grey."""
    alt = shown.caption or shown.title
    grey = grey_of(shown.image)
    if grey is None:
        picture.image(shown.image, width="stretch", alt=alt)
        st.caption("An image with colors has no window.")
        return
    level_at, width_at = st.columns(2)
    key = f"{shown.id or 'uploaded'}"
    level = level_at.slider("Level", 0, GREYS - 1, GREYS // 2, key=f"level-{key}")
    width = width_at.slider("Width", 1, 2 * GREYS, GREYS, key=f"width-{key}")
    with st.container(horizontal=True, vertical_alignment="center"):
        inverted = st.toggle("Invert", key=f"invert-{key}")
        st.button("Reset", key=f"reset-{key}", on_click=_reset, args=(key,), icon=":material/restart_alt:")
        st.caption("of the 256 greys of this image, which are not those of the scanner", width="content")
    values = windowed(grey, level, width)
    picture.image(255 - values if inverted else values, width="stretch", alt=alt, output_format="PNG")


def _reset(key: str) -> None:
    st.session_state[f"level-{key}"], st.session_state[f"width-{key}"] = GREYS // 2, GREYS
    st.session_state[f"invert-{key}"] = False


def _about(shown: Shown) -> None:
    if shown.caption:
        st.text(shown.caption)
    if link := article_link(shown.article):
        st.link_button(f"Article {shown.article}", link, icon=":material/open_in_new:")
    with st.container(gap="xxsmall", key="facts"):
        for name, value in shown.facts:
            if value:
                with st.container(horizontal=True, gap="xsmall"):
                    st.caption(name, width=130)
                    st.markdown(plain(value), width="content")
    if not shown.facts:
        st.write("Your image. It is kept in the memory of this app while the page is open, and written nowhere.")

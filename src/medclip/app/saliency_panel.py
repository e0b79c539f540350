"""Where an image shows what some words say."""

from __future__ import annotations

import numpy as np
import streamlit as st

from medclip.app.cache import opened
from medclip.app.text import WORDS, Places, Shown, sentence
from medclip.data.images import decode
from medclip.errors import UserError
from medclip.saliency import NOTHING, drawn_over, saliency_map


def where_it_shows(shown: Shown, places: Places, name: str) -> None:
    """Draw a field for words and, when they are asked for, the image with what speaks for them."""
    words = st.text_input(
        "Words",
        value=st.session_state.get("words", ""),
        key="pointed-at",
        placeholder="CT of the chest with a mass on the left",
        autocomplete="off",
        help="Best in the words of a whole caption: models are taught with those.",
    )
    words = words[:WORDS]
    pressed = st.button("Show where", key="show-where", type="primary", icon=":material/my_location:")
    asked = (shown.title, words, name)
    if not words.strip():
        st.caption("Say what to look for.")
        return
    if not pressed and st.session_state.get("pointed") != asked:
        st.caption("Takes a second: the image is blurred in 64 places, one after another.")
        return
    st.session_state["pointed"] = asked
    folder, model = places[name]
    try:
        with st.spinner("Looking where…"):
            found = _relevance(folder, model, opened(folder, model).index.state, shown.image, words)
    except UserError as error:
        sentence(error)
        return
    st.image(drawn_over(decode(shown.image), found), width="stretch", alt=f"The image, colored where it says: {words}")
    low, high = (float(value) if abs(value) >= NOTHING else 0.0 for value in (found.min(), found.max()))
    st.caption(
        f":orange[Orange] speaks for the words (cosine {high:+.3f} at most), :blue[blue] against them ({low:+.3f}). "
        "It shows what the model uses, which need not be what a reader would look at."
    )


@st.cache_data(scope="session", max_entries=4, show_spinner=False)
def _relevance(folder: str, model: str | None, state: tuple, image: bytes, words: str) -> np.ndarray:
    return saliency_map(opened(folder, model).model, image, words)

"""What is looked for: words, an image, or both, and what it should not be."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from medclip.app.text import WORDS, Places, Shown, plain, sentence, uploaded
from medclip.app.viewer import enlarge
from medclip.errors import UserError
from medclip.search.query import Query

EXAMPLES = ("ultrasound", "chest x-ray", "brain MRI", "CT of the abdomen with a mass", "pleural effusion on the left")
DRAWN = ("ultrasound of the neck", "CT of the chest", "MRI of the left knee with a cyst", "a normal radiograph")
"""Of an index of phantoms."""


@dataclass(frozen=True)
class Asked:
    """A question, and the id of the image of an index that it is asked with, if it is."""

    query: Query
    like: str = ""


def ask(synthetic: bool, places: Places) -> Asked | None:
    """Draw the controls; returns what is asked, None where nothing is yet, or what is given cannot be used."""
    words_at, picture_at = st.columns([3, 2], gap="medium")
    with words_at:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            words = st.text_input(
                "What are you looking for?",
                key="words",
                placeholder="for example: ultrasound of the liver",
                autocomplete="off",  # what is typed stays out of the browser's memory
                persist_state="session",
                icon=":material/search:",
            )
            st.button("Search", type="primary", key="search")
        without = st.text_input(
            "But not",
            key="without",
            placeholder="for example: arrows, contrast",
            autocomplete="off",
            persist_state="session",
            help="What the images should not be like; several are separated by commas.",
        )
    with picture_at:
        id, image = _picture(places)
    with st.container(horizontal=True, wrap=False, gap="xsmall", key="examples", vertical_alignment="center"):
        st.caption("Try", width="content")
        for example in DRAWN if synthetic else EXAMPLES:
            st.button(example, key=f"example-{example}", on_click=_start, args=(example,))
    said = words.strip()[:WORDS]
    if not said and image is None:
        return None
    unwanted = tuple(part.strip() for part in without[:WORDS].split(",") if part.strip())
    return Asked(Query((said,) if said else (), (image,) if image else (), unwanted), id)


def find_similar(id: str, image: bytes) -> None:
    """Look for images like one of the index from now on, and for nothing else."""
    _start("")
    st.session_state["picture"] = (id, image)


def _start(words: str) -> None:
    """Ask anew."""
    st.session_state["words"], st.session_state["without"] = words, ""
    _drop_picture()


def _drop_picture() -> None:
    st.session_state.pop("picture", None)


def _take_upload() -> None:
    if given := st.session_state["upload"]:
        st.session_state["picture"] = ("", given.getvalue())


def _picture(places: Places) -> tuple[str, bytes | None]:
    """The image that is asked with, and its id where it is one of an index."""
    if "picture" in st.session_state:
        id, image = st.session_state["picture"]
        try:
            _asked_with(Shown(image, f"Image {id}", id=id) if id else Shown(uploaded(image), "Your image"), places)
            return id, image
        except UserError as error:
            sentence(error)
            _drop_picture()
    st.file_uploader(
        "Or an image: PNG, JPEG or DICOM",  # any name is taken: DICOM files often have no ending
        key="upload",
        on_change=_take_upload,
        help="It stays in the memory of this app while the page is open, and is written nowhere.",
    )
    return "", None


def _asked_with(shown: Shown, places: Places) -> None:
    """The image that is asked with, small, and what can be done with it."""
    with st.container(horizontal=True, vertical_alignment="center", border=True, key="asked-with"):
        st.image(shown.image, width=104, alt=f"The image asked with: {shown.title}")
        with st.container(width="content", gap="xsmall"):
            st.markdown(f"Looking for images like **{plain(shown.title[:1].lower() + shown.title[1:])}**")
            with st.container(horizontal=True, gap="xsmall"):
                if st.button("Look at it", key="open-asked", icon=":material/open_in_full:"):
                    enlarge(shown, places)
                st.button("Remove", key="drop-asked", icon=":material/close:", on_click=_drop_picture)

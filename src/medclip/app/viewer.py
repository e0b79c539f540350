"""The viewer: one image with window and level, its source, zero-shot classes, and a saliency map for a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import streamlit as st
from jaxtyping import Float32, Float64, UInt8
from streamlit.delta_generator import DeltaGenerator

from medclip import NOT_CLINICAL
from medclip.app.cache import cached_index
from medclip.app.run import IndexLocation
from medclip.app.text import (
    MAX_QUERY_CHARS,
    SHOWN_ERRORS,
    ViewedImage,
    article_link,
    escape_markdown,
    show_error,
    show_image_error,
)
from medclip.data.decode_workers import isolate
from medclip.data.images import decode
from medclip.errors import ImageError
from medclip.saliency import MIN_CHANGE, overlay_saliency, saliency_map
from medclip.search.query import Query
from medclip.zero_shot import classify

GRAY_LEVELS = 256
MAX_CLASSES_SHOWN = 20
_SEPARATOR = ", "


@st.dialog("Image", width="large", icon=":material/radiology:")
def open_viewer(viewed: ViewedImage, locations: Mapping[str, IndexLocation], name: str | None = None) -> None:
    """Open an image over the page; `name` is the index that it is a hit of."""
    location = locations[name or next(iter(locations))]
    image_column, panel_column = st.columns([3, 2], gap="medium")
    with image_column:
        _window_panel(viewed, st.container(key="enlarged"))
    with panel_column:
        source_tab, zero_shot_tab, saliency_tab = st.tabs(["About it", "Which class?", "Where?"])
        with source_tab:
            _source_panel(viewed)
        with zero_shot_tab:
            _zero_shot_panel(viewed, location)
        with saliency_tab:
            _saliency_panel(viewed, location)
    with st.container(key="notice-above"):
        st.caption(NOT_CLINICAL)


def _window_panel(viewed: ViewedImage, container: DeltaGenerator) -> None:
    """The image in `container`, with sliders below where it is gray."""
    alt = viewed.caption or viewed.title
    try:
        gray = gray_values(viewed.image)
    except ImageError as error:
        show_image_error(error)
        return
    if gray is None:
        container.image(viewed.image, width="stretch", alt=alt)
        st.caption("An image with colors has no window.")
        return
    key = viewed.id or "uploaded"
    level_column, width_column = st.columns(2)
    level = level_column.slider("Level", 0, GRAY_LEVELS - 1, GRAY_LEVELS // 2, key=f"level-{key}")
    width = width_column.slider("Width", 1, 2 * GRAY_LEVELS, GRAY_LEVELS, key=f"width-{key}")
    with st.container(horizontal=True, vertical_alignment="center"):
        inverted = st.toggle("Invert", key=f"invert-{key}")
        st.button("Reset", key=f"reset-{key}", on_click=_reset_window, args=(key,), icon=":material/restart_alt:")
        st.caption("of the 256 grays of this image, which are not those of the scanner", width="content")
    values = apply_window(gray, level, width)
    container.image(255 - values if inverted else values, width="stretch", alt=alt, output_format="PNG")


def _reset_window(key: str) -> None:
    st.session_state[f"level-{key}"], st.session_state[f"width-{key}"] = GRAY_LEVELS // 2, GRAY_LEVELS
    st.session_state[f"invert-{key}"] = False


def apply_window(gray: UInt8[np.ndarray, "h w"], level: float, width: float) -> UInt8[np.ndarray, "h w"]:
    """Gray values through DICOM's linear window function (PS3.3 C.11.2.1.2.1).

    `width` is at least 1. Values half a width below `level` become black, half a width above it white.
    """
    if width <= 1:
        return np.where(gray > level - 0.5, np.uint8(255), np.uint8(0))
    scaled = ((gray.astype(np.float32) - (level - 0.5)) / (width - 1) + 0.5) * 255
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def gray_values(image: bytes) -> UInt8[np.ndarray, "h w"] | None:
    """The values of a gray image; None for one with colors. Raises ImageError."""
    decoded = isolate(decode, image)
    return np.asarray(decoded) if decoded.mode == "L" else None


def _source_panel(viewed: ViewedImage) -> None:
    if viewed.caption:
        st.text(viewed.caption, width="stretch")
    if link := article_link(viewed.article):
        st.link_button(f"Article {viewed.article}", link, icon=":material/open_in_new:")
    with st.container(gap="xxsmall", key="facts"):
        for name, value in viewed.facts:
            if value:
                with st.container(horizontal=True, gap="xsmall"):
                    st.caption(name, width=130)
                    st.markdown(escape_markdown(value), width="content")
    if not viewed.facts:
        st.write("Your image. It is kept in the memory of this app while the page is open, and written nowhere.")


def _zero_shot_panel(viewed: ViewedImage, location: IndexLocation) -> None:
    """A field for classes, and the probability of each."""
    try:
        index = cached_index(location)
    except SHOWN_ERRORS as error:
        show_error(error)
        return
    presets = {
        label: list(counts)[:MAX_CLASSES_SHOWN]
        for label, counts in index.reader.value_counts.items()
        if label != "license" and len(counts) > 1
    }
    if presets:
        st.pills(
            "Classes of the index",
            list(presets),
            key="preset",
            format_func=escape_markdown,
            on_change=_take_preset,
            args=(presets,),
        )
    text = st.text_area(
        "Classes, separated by commas",
        key="classes",
        placeholder="pneumothorax, pleural effusion, normal chest",
        persist_state="session",
        height=100,
    )
    st.button("Compare", key="classify", type="primary", icon=":material/balance:")
    classes, label = read_classes(text, presets)
    if not classes:
        st.caption("Name two or more, as a report would.")
        return
    try:
        with st.spinner("Comparing…"):
            probabilities = _cached_classes(location, index.reader.version, viewed.image, classes, label)
    except SHOWN_ERRORS as error:
        show_error(error)
        return
    with st.container(gap="xxsmall"):
        for column in (-probabilities).argsort(kind="stable")[:MAX_CLASSES_SHOWN]:
            probability = float(probabilities[column])
            percent = f"{100 * probability:.0f} %" if probability >= 0.005 else "below 1 %"
            st.progress(probability, f"{escape_markdown(classes[column].replace('_', ' '))}: **{percent}**")
    st.caption("Probabilities among these classes alone: they add up to 100 % even if the image shows none of them.")


@st.cache_data(scope="session", max_entries=4, show_spinner=False)
def _cached_classes(
    location: IndexLocation, state: tuple, image: bytes, classes: list[str], label: str
) -> Float64[np.ndarray, " k"]:
    index = cached_index(location)
    return classify(index.model, index.embed_queries([Query(images=(image,))]), classes, label)[0]


def read_classes(text: str, presets: Mapping[str, Sequence[str]]) -> tuple[list[str], str]:
    """The classes of a text, and the label whose prompts they have: a preset's own values, which may hold commas."""
    for label, values in presets.items():
        if text.strip() == _SEPARATOR.join(values):
            return list(values), label
    return list(dict.fromkeys(part.strip() for part in text.replace("\n", ",").split(",") if part.strip())), "default"


def _take_preset(presets: Mapping[str, Sequence[str]]) -> None:
    if label := st.session_state["preset"]:
        st.session_state["classes"] = _SEPARATOR.join(presets[label])


def _saliency_panel(viewed: ViewedImage, location: IndexLocation) -> None:
    """A field for a text and, once the button was pressed, the image colored by what speaks for that text."""
    text = st.text_input(
        "Text",
        value=str(st.session_state.get("text", "")),
        key="saliency-text",
        placeholder="CT of the chest with a mass on the left",
        autocomplete="off",
        help="Best as a whole caption: models are trained on those.",
    )[:MAX_QUERY_CHARS]
    pressed = st.button("Show where", key="show-where", type="primary", icon=":material/my_location:")
    request = (viewed.title, text, location)
    if not text.strip():
        st.caption("Say what to look for.")
        return
    if not pressed and st.session_state.get("saliency-request") != request:
        st.caption("Takes a second: the image is blurred in 64 places, one after another.")
        return
    st.session_state["saliency-request"] = request
    try:
        with st.spinner("Looking where…"):
            state = cached_index(location).reader.version
            saliency = _cached_saliency(location, state, viewed.image, text)
    except SHOWN_ERRORS as error:
        show_error(error)
        return
    overlay = overlay_saliency(isolate(decode, viewed.image), saliency)
    st.image(overlay, width="stretch", alt=f"The image, colored where it says: {text}")
    low, high = (float(value) if abs(value) >= MIN_CHANGE else 0.0 for value in (saliency.min(), saliency.max()))
    st.caption(
        f":orange[Orange] speaks for the text (cosine {high:+.3f} at most), :blue[blue] against it ({low:+.3f}). "
        "It shows what the model uses, which may differ from what a reader would look at."
    )


@st.cache_data(scope="session", max_entries=4, show_spinner=False)
def _cached_saliency(location: IndexLocation, state: tuple, image: bytes, text: str) -> Float32[np.ndarray, "h w"]:
    return saliency_map(cached_index(location).model, image, text)

"""Data as it is shown: never as markup, and images small enough to send."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import streamlit as st
from PIL import Image

from medclip.data.images import decode, standardize
from medclip.errors import ImageError, UserError

Places = dict[str, tuple[str, str | None]]
"""Of each index, by its name, the folder and where its model is now."""
WORDS = 1000  # characters of a question; a model reads fewer
SHOWN_SIDE = 1024  # the shorter side, at most, of an uploaded image as it is shown
_MARKS = re.compile(r"([\\`*_\[\]<>$#~|!&:])")
_PMC = re.compile(r"PMC\d+")


@dataclass(frozen=True)
class Shown:
    """An image to look at: of an index, or uploaded."""

    image: bytes
    title: str
    caption: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    article: str = ""
    id: str = ""
    """Of the index; an uploaded image has none."""


def plain(text: str) -> str:
    """Text for a place where Streamlit reads Markdown, so that it is shown as it is."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def sentence(error: Exception) -> None:
    """Show what went wrong, as one sentence."""
    said = str(error)
    st.error(plain(said[:1].upper() + said[1:]), icon=":material/error:")


def article_link(article: str) -> str | None:
    """Where an article can be read, if that is known."""
    return f"https://pmc.ncbi.nlm.nih.gov/articles/{article}/" if _PMC.fullmatch(article) else None


def labels_of(labels: Mapping[str, str]) -> str:
    """What is known of an image, in a line."""
    return " · ".join(value.replace("_", " ") for value in labels.values() if value)


@st.cache_data(scope="session", max_entries=2, show_spinner="Reading the image…")
def uploaded(image: bytes) -> bytes:
    """An uploaded image (PNG, JPEG, DICOM, …) as it is shown: a JPEG without metadata. UserError where it is none."""
    try:
        return standardize(image, SHOWN_SIDE)[0]
    except ImageError as error:
        raise UserError(f"the uploaded image: {error}.") from None


def windowed(grey: np.ndarray, level: float, width: float) -> np.ndarray:
    """Grey values u8 through a window, as DICOM's linear function (PS3.3 C.11.2.1.2.1) maps them: u8.

    `width` from 1 on. What lies half a width below the level is black, half above it white.
    """
    if width <= 1:
        return np.where(grey > level - 0.5, np.uint8(255), np.uint8(0))
    scaled = ((grey.astype(np.float32) - (level - 0.5)) / (width - 1) + 0.5) * 255
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def grey_of(image: bytes) -> np.ndarray | None:
    """The values u8 (h, w) of a grey image; None of one with colors."""
    picture: Image.Image = decode(image)
    return np.asarray(picture) if picture.mode == "L" else None

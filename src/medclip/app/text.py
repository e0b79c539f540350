"""Data as it is shown: never as markup, and images small enough to send."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import streamlit as st

from medclip.data.decode_workers import isolate
from medclip.data.images import check_image, standardize
from medclip.errors import ImageError, UserError, WorkError, describe_error

MAX_QUERY_CHARS = 1000  # a model reads fewer
SHOWN_ERRORS = (UserError, WorkError, OSError)
"""A wrong request, a damaged or unreadable index: the page says so, and goes on."""
UPLOAD_SHORTER_SIDE = 1024  # pixels, at most, of an uploaded image as it is shown
_MARKS = re.compile(r"([\\`*_\[\]<>$#~|!&:])")
_PMC = re.compile(r"PMC\d+")


@dataclass(frozen=True)
class ViewedImage:
    """An image to look at: of an index, or uploaded."""

    image: bytes
    title: str
    caption: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    article: str = ""
    id: str = ""
    """Empty for an upload."""


def escape_markdown(text: str) -> str:
    """Text for a place where Streamlit reads Markdown, in one line, so that it is shown as it is."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def show_error(error: Exception) -> None:
    """Show what went wrong, as one sentence."""
    message = describe_error(error)
    st.error(escape_markdown(message[:1].upper() + message[1:]), icon=":material/error:")


def show_image(image: bytes, alt: str, width: int | Literal["stretch"] = "stretch") -> None:
    """Show an encoded image; where it cannot be decoded, a sentence in its place."""
    try:
        isolate(check_image, image)  # the page decodes it again, in this process
    except ImageError as error:
        show_image_error(error)
    else:
        st.image(image, width=width, alt=alt)


def show_image_error(error: ImageError) -> None:
    """Say why an image is not shown."""
    show_error(UserError(f"this image cannot be shown: {error}."))


def article_link(article: str) -> str | None:
    """Where an article of PubMed Central can be read; None for any other source."""
    return f"https://pmc.ncbi.nlm.nih.gov/articles/{article}/" if _PMC.fullmatch(article) else None


def format_labels(labels: Mapping[str, str]) -> str:
    """The labels of an image in one line."""
    return " · ".join(value.replace("_", " ") for value in labels.values() if value)


@st.cache_data(scope="session", max_entries=2, show_spinner="Reading the image…")
def standardize_upload(image: bytes) -> bytes:
    """An uploaded image (PNG, JPEG, DICOM, …) as a JPEG without metadata. UserError where it is not an image."""
    try:
        return isolate(standardize, image, UPLOAD_SHORTER_SIDE)[0]
    except ImageError as error:
        raise UserError(f"the uploaded image: {error}; choose another PNG, JPEG or DICOM file.") from None

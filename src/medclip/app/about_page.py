"""The page about the data: each index, its model's card, and the report of an evaluation."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from medclip.app.cache import cached_index
from medclip.app.run import IndexLocation
from medclip.app.text import SHOWN_ERRORS, escape_markdown, show_error
from medclip.bounded_files import MAX_CARD_BYTES, read_text
from medclip.errors import UserError
from medclip.search.reader import IndexReader

_YAML_HEAD = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_COMMENT = re.compile(r"^<!--.*?-->\n?", re.DOTALL | re.MULTILINE)  # Streamlit shows them as text
_HEADING = re.compile(r"^(#{1,4})(?=\s)", re.MULTILINE)
_FENCED = re.compile(r"(^(?:```|~~~).*?^(?:```|~~~))", re.DOTALL | re.MULTILINE)
_MAX_REPORT_BYTES = 2**26
_IMAGE_MARK = re.compile(r"!+(?=\[)")
# Streamlit's own frame runs scripts with the rights of the app, and a folder may hold any page. The inner frame runs
# none and has no origin; the policy, which it inherits, lets it fetch nothing and go nowhere.
_SANDBOX = """<!doctype html>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<style>html, body, iframe {{ margin: 0; border: 0; width: 100%; height: 100%; display: block }}</style>
<iframe sandbox title="The evaluation's report" srcdoc="{}"></iframe>"""


def about_page(locations: Mapping[str, IndexLocation], evaluation: Path | None) -> None:
    """Draw the page."""
    st.title("About")
    names = [*locations, *(["Evaluation"] if evaluation else [])]
    tabs = st.tabs([escape_markdown(name) for name in names])
    for tab, location in zip(tabs, locations.values(), strict=False):
        with tab:
            try:
                _show_index(location)
            except SHOWN_ERRORS as error:
                show_error(error)
    if evaluation:
        with tabs[-1]:
            _show_report(evaluation / "report.html")


def _show_index(location: IndexLocation) -> None:
    index = cached_index(location).reader
    manifest = index.manifest
    st.header("Index")
    st.markdown(f"{len(index):,} images, model `{manifest.model_sha256[:12]}`, store `{manifest.vector_store}`")
    st.table(_segments(index))
    card = index.model_path(location.model) / "README.md"
    if not card.is_file():
        st.info("The model has no card (README.md).", icon=":material/info:")
        return
    try:
        text = card_text(read_text(card, MAX_CARD_BYTES, errors="replace"))
    except UserError as error:
        show_error(error)
        return
    with st.container(border=True):
        st.markdown(text)


def card_text(card: str) -> str:
    """A model card without its YAML head and comments, below the headings of the page, and with links in place of
    images: a page asks no other host."""
    text = _demote_headings(_YAML_HEAD.sub("", card.replace("\r\n", "\n")))
    end = text.rfind("-->") + 4  # no comment that begins later is closed, and each would be read to the end of the card
    return _IMAGE_MARK.sub("", _COMMENT.sub("", text[:end]) + text[end:])


def _demote_headings(text: str) -> str:
    """Headings two levels lower, below those of the page; lines of code that begin with # stay."""
    parts = _FENCED.split(text)  # text and blocks of code by turns
    return "".join(part if n % 2 else _HEADING.sub(r"\1##", part) for n, part in enumerate(parts))


def _segments(index: IndexReader) -> list[dict[str, str]]:
    return [
        {
            "Added": segment.added,
            "Data": escape_markdown(segment.data),
            "Split": escape_markdown(segment.split),
            "Images": f"{segment.num_rows:,}",
        }
        for segment in index.manifest.segments
    ]


def _show_report(path: Path) -> None:
    try:
        report = read_text(path, _MAX_REPORT_BYTES, errors="replace")
    except OSError:
        show_error(UserError(f"{path} is missing; medclip evaluate … --out DIR writes it."))
        return
    except UserError as error:
        show_error(error)
        return
    st.iframe(_SANDBOX.format(html.escape(report)), height=1400, alt="The evaluation's report")

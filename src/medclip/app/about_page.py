"""What the app shows images of and with: index, model card and evaluation."""

from __future__ import annotations

import re
from pathlib import Path

import streamlit as st

from medclip.app.cache import opened
from medclip.app.text import Places, plain, sentence
from medclip.errors import UserError
from medclip.evaluate.align_items import read_evaluations
from medclip.evaluate.report import report
from medclip.search.index import Index

_HEAD = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_PICTURE = re.compile(r"!(?=\[)")


def about(places: Places, evaluation: Path | None) -> None:
    """Draw the page."""
    st.title("About")
    names = [*places, *(["Evaluation"] if evaluation else [])]
    for tab, name in zip(st.tabs([plain(name) for name in names]), names, strict=True):
        with tab:
            try:
                _evaluation(evaluation) if name not in places else _index(*places[name])
            except UserError as error:
                sentence(error)


def _index(folder: str, model: str | None) -> None:
    index = opened(folder, model).index
    st.subheader("Index")
    st.markdown(f"{len(index):,} images, model `{index.contents.model_sha256[:12]}`, store `{index.contents.store}`")
    st.table(_segments(index))
    card = index.model(model and Path(model)) / "README.md"
    if not card.is_file():
        st.info("The model has no card (README.md).", icon=":material/info:")
        return
    with st.container(border=True):
        st.markdown(without_pictures(card.read_text(encoding="utf-8", errors="replace")))


def without_pictures(card: str) -> str:
    """A model card without its YAML head, and with links in place of images: a page here asks no other host."""
    return _PICTURE.sub("", _HEAD.sub("", card.replace("\r\n", "\n")))


def _segments(index: Index) -> list[dict[str, str]]:
    return [
        {"Added": s.added, "Data": plain(s.data), "Split": plain(s.split), "Pictures": f"{s.rows:,}"}
        for s in index.contents.segments
    ]


def _evaluation(folder: Path) -> None:
    # drawn anew from the results, every value escaped, under a policy that lets nothing run or be fetched: a
    # report.html that lies there could hold anything
    (found,) = read_evaluations([folder])
    st.iframe(report(found), height=1400, alt="The evaluation's report")

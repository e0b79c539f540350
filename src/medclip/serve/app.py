"""The search app (Streamlit): words or a picture in, pictures with caption and cosine out, best first."""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

from medclip import NOT_CLINICAL, backend
from medclip.errors import UserError

backend.start()  # before anything imports JAX

from medclip.search.index import Hit  # noqa: E402
from medclip.search.query import Answers, Query, Searcher, open_searcher, search  # noqa: E402

EXAMPLES = ("ultrasound", "chest x-ray", "brain MRI", "CT of the abdomen with a mass", "pleural effusion on the left")
COLUMNS = 3


@st.cache_resource(show_spinner="opening the index…")
def _searcher(folder: str) -> Searcher:
    return open_searcher(Path(folder))


@st.cache_data(show_spinner="searching…", max_entries=256)
def _search(folder: str, query: str | bytes, k: int) -> list[Hit]:
    asked = Query((query,)) if isinstance(query, str) else Query(images=(query,))
    return search(_searcher(folder), [asked], Answers(k))[0]


def _card(rank: int, hit: Hit) -> None:
    st.image(hit.image, width="stretch")
    st.markdown(f"**{rank}.** cosine **{hit.score:.3f}** · `{hit.id}`")
    st.text(hit.caption)  # plain text: a caption is data, never markup
    if hit.article.startswith("PMC"):
        st.caption(f"article {hit.article} · {hit.licence}")


def main(folder: str) -> None:
    """Draw the page for the index in `folder`."""
    st.set_page_config("medclip search", page_icon="🩻", layout="wide")
    st.title("medclip: search radiology pictures")
    st.caption(NOT_CLINICAL)
    try:
        index = _searcher(folder).index
    except UserError as error:
        st.error(str(error))
        st.stop()
    if index.synthetic:
        st.info("These pictures are synthetic phantoms, drawn by a program: no patient is shown.")
    st.session_state.setdefault("query", "")
    for column, example in zip(st.columns(len(EXAMPLES)), EXAMPLES, strict=True):
        if column.button(example, width="stretch"):
            st.session_state["query"] = example
    query = st.text_input("What are you looking for?", key="query", placeholder="for example: ultrasound of the liver")
    with st.sidebar:
        k = st.slider("Number of results", 1, 30, 9)
        upload = st.file_uploader("or search by a picture", type=["png", "jpg", "jpeg"])
        st.caption(f"{len(index)} pictures")
        st.caption(f"model {index.contents.model_sha256[:12]}")
    asked: str | bytes = upload.getvalue() if upload else query.strip()
    if not asked:
        st.write("Type a query, choose an example, or upload a picture.")
        return
    try:
        hits = _search(folder, asked, k)
    except UserError as error:
        st.error(str(error))
        return
    for start in range(0, len(hits), COLUMNS):
        row = hits[start : start + COLUMNS]
        for offset, (column, hit) in enumerate(zip(st.columns(COLUMNS), row, strict=False)):
            with column:
                _card(start + offset + 1, hit)


main(sys.argv[1])

"""Which of the classes that somebody types an image shows."""

from __future__ import annotations

import streamlit as st

from medclip.app.cache import opened
from medclip.app.text import Places, Shown, plain, sentence
from medclip.errors import UserError
from medclip.search.query import Query, query_embeddings
from medclip.zero_shot import classify

SHOWN = 20


def which_class(shown: Shown, places: Places, name: str) -> None:
    """Draw a field for classes and the probability of each."""
    searcher = opened(*places[name])
    offered = {label: list(counts)[:SHOWN] for label, counts in searcher.index.counts.items() if label != "license"}
    offered = {label: values for label, values in offered.items() if len(values) > 1}
    if offered:
        st.pills("Classes of the index", list(offered), key="offered", on_change=_offer, args=(offered,))
    said = st.text_area(
        "Classes, separated by commas",
        key="classes",
        placeholder="pneumothorax, pleural effusion, normal chest",
        persist_state="session",
        height=100,
    )
    st.button("Compare", key="classify", type="primary", icon=":material/balance:")
    classes = list(dict.fromkeys(part.strip() for part in said.replace("\n", ",").split(",") if part.strip()))
    if not classes:
        st.caption("Name two or more, in the words a report would use.")
        return
    label = next((label for label, values in offered.items() if values == classes), "default")
    try:
        with st.spinner("comparing…"):
            vectors = query_embeddings(searcher, [Query(images=(shown.image,))])
            probabilities = classify(searcher.model, vectors, classes, label)[0]
    except UserError as error:
        sentence(error)
        return
    with st.container(gap="xxsmall"):
        for at in (-probabilities).argsort(kind="stable")[:SHOWN]:
            share = f"{100 * probabilities[at]:.0f} %" if probabilities[at] >= 0.005 else "below 1 %"
            st.progress(float(probabilities[at]), f"{plain(classes[at].replace('_', ' '))}: **{share}**")
    st.caption("Shares among these classes alone: they add to 100 %, whatever the image shows.")


def _offer(offered: dict[str, list[str]]) -> None:
    if label := st.session_state["offered"]:
        st.session_state["classes"] = ", ".join(offered[label])

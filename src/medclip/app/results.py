"""The hits, as a grid of cards."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from medclip.app.query_form import find_similar
from medclip.app.text import Places, Shown, article_link, labels_of, plain
from medclip.app.viewer import enlarge
from medclip.search.index import Hit


def grid(hits: Sequence[Hit], places: Places, name: str, narrow: bool = False) -> None:
    """Cards, best first, of an index of that name."""
    with st.grid(min_column_width=190 if narrow else 250, gap="small"):
        for rank, hit in enumerate(hits, 1):
            with st.container(border=True, gap="xsmall", key=f"card-{_slug(name)}-{rank}"):
                _card(rank, hit, places, name)


def _card(rank: int, hit: Hit, places: Places, name: str) -> None:
    st.image(hit.image, width="stretch", alt=hit.caption)
    # its label is for those who listen: style.css lays it over the whole image and shows the icon alone
    if st.button(f"Enlarge image {rank}", key=f"enlarge-{name}-{rank}", icon=":material/zoom_out_map:"):
        enlarge(shown(hit), places, name)
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        st.markdown(f"**{rank}**", width="content")
        st.caption(f"cosine {hit.score:.3f}", width="content")
        if labels := labels_of(hit.labels):
            st.caption(plain(labels), width="content")
    st.text(hit.caption)  # a caption is data, never markup
    if link := article_link(hit.article):
        st.markdown(f"[{hit.article}]({link}) · {plain(hit.license or 'no license stated')}")
    else:
        st.markdown(plain(f"{hit.article or hit.source} · {hit.license or 'no license stated'}"))
    st.button(
        "Find similar",
        key=f"similar-{name}-{rank}",
        icon=":material/image_search:",
        on_click=find_similar,
        args=(hit.id, hit.image),
        type="tertiary",
    )


def shown(hit: Hit) -> Shown:
    """A hit, to be looked at."""
    facts = {
        "Cosine": f"{hit.score:.3f}",
        "Id": hit.id,
        "Labels": labels_of(hit.labels),
        "License": hit.license or "none stated: ask the source",
        "Attribution": hit.attribution,
        "Source": hit.source,
        "Added": hit.added,
        "The same image": ", ".join(hit.copies),
    }
    return Shown(hit.image, f"Image {hit.id}", hit.caption, tuple(facts.items()), hit.article, hit.id)


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)

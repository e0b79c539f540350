"""Which answers are wanted: how many, of which labels, licenses and days."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import streamlit as st

from medclip.app.text import plain
from medclip.search.filters import ADDED, where
from medclip.search.index import Index
from medclip.search.query import SearchOptions

_PREFIX = "only-"


def narrow(indexes: Sequence[Index]) -> SearchOptions:
    """Draw the controls in the sidebar; returns what they ask for."""
    with st.sidebar:
        st.subheader("Answers")
        k = st.slider("Number of results", 1, 48, 12, key="count", persist_state="session")
        alone = st.toggle("One per article", key="alone", persist_state="session", help="The best of an article only.")
        st.subheader("Only")
        asked: dict[str, Sequence[str]] = {}
        for key, counts in _counts(indexes).items():
            asked[key] = st.multiselect(
                key.capitalize(),
                list(counts),
                format_func=lambda value, counts=counts: f"{value.replace('_', ' ')} ({counts[value]:,})",
                key=f"{_PREFIX}{key}",
                placeholder="any",
                persist_state="session",
            )
        if days := _days(indexes):
            asked[ADDED] = [days]
        if any(asked.values()):
            st.button(
                "Clear these", on_click=clear, icon=":material/filter_alt_off:", key="clear-side", width="stretch"
            )
        for index in indexes:
            st.caption(plain(f"{index.folder.name}: {len(index):,} images, model {index.contents.model_sha256[:12]}"))
    return SearchOptions(k, where(asked), alone)


def clear() -> None:
    """Ask for any label, license and day again."""
    for key in [key for key in st.session_state if isinstance(key, str) and key.startswith(_PREFIX)]:
        st.session_state[key] = () if key == _PREFIX + ADDED else []


def _counts(indexes: Sequence[Index]) -> dict[str, dict[str, int]]:
    """Of every label and license how many images of all indexes have each value, the most frequent first."""
    summed: dict[str, Counter[str]] = {}
    for index in indexes:
        for key, counts in index.counts.items():
            summed.setdefault(key, Counter()).update(counts)
    return {key: dict(counts.most_common()) for key, counts in summed.items()}


def _days(indexes: Sequence[Index]) -> str | None:
    """A span of the days on which images were added, where there is more than one such day."""
    first = min(index.added.min() for index in indexes).item()
    last = max(index.added.max() for index in indexes).item()
    if first == last:
        return None
    said = st.date_input("Added", (), min_value=first, max_value=last, key=_PREFIX + ADDED, persist_state="session")
    if not said:
        return None
    since, *until = said  # the second day is not there while it is being chosen
    return f"{since}..{until[0] if until else ''}"

"""What is marked on the map: images to delete or relabel, as a file to take away, or applied to the index."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import streamlit as st

from medclip.app.run import IndexLocation
from medclip.app.text import SHOWN_ERRORS, escape_markdown, show_error
from medclip.data.corrections import Corrections, PairKey, write_corrections
from medclip.search.curate import correct

MAX_LABEL_CHARS = 200
_MARKS, _APPLIED = "map-marks", "map-applied"

Marks = dict[PairKey, Mapping[str, str] | None]
"""Corrections in the making."""


def marks_of(name: str) -> Marks:
    """The marks of this session on the index of that name."""
    return st.session_state.setdefault(_MARKS, {}).setdefault(name, {})


def describe_mark(labels: Mapping[str, str] | None) -> str:
    """A mark in words."""
    if labels is None:
        return "marked: delete"
    return "marked: " + ", ".join(f"{label} = {value or 'none'}" for label, value in labels.items())


def marking_controls(name: str, keys: Sequence[PairKey], labels: Sequence[str]) -> None:
    """Fields and buttons that mark all of `keys`; `labels` are the names to choose from, others can be typed."""
    count = f"{len(keys):,} {'image' if len(keys) == 1 else 'images'}"
    with st.container(horizontal=True, vertical_alignment="bottom", key="marking"):
        label = st.selectbox(
            "Label",
            labels,
            index=None,
            accept_new_options=True,
            key="mark-label",
            placeholder="choose or type",
            width=200,
        )
        value = st.text_input("New value", key="mark-value", autocomplete="off", max_chars=MAX_LABEL_CHARS, width=200)
        label = (label or "").strip()[:MAX_LABEL_CHARS]
        st.button(
            f"Relabel {count}",
            key="mark-relabel",
            icon=":material/label:",
            disabled=not label,
            on_click=mark,
            args=(name, keys, {label: value.strip()}),
            help="An empty value removes the label.",
        )
        st.button(
            f"Delete {count}", key="mark-delete", icon=":material/delete:", on_click=mark, args=(name, keys, None)
        )


def mark(name: str, keys: Sequence[PairKey], labels: Mapping[str, str] | None) -> None:
    """Mark images: to be deleted, or to get `labels` beside those marked before."""
    marks = marks_of(name)
    for key in keys:
        marks[key] = None if labels is None else {**(marks.get(key) or {}), **labels}


def unmark(name: str, keys: Sequence[PairKey]) -> None:
    """Forget the marks of images."""
    for key in keys:
        marks_of(name).pop(key, None)


def marked_panel(name: str, location: IndexLocation, edit: bool) -> None:
    """What is marked, to be taken away as a file; with `edit`, a button that changes the index. And the way back."""
    if applied := st.session_state.get(_APPLIED, {}).get(name):
        st.caption(f"Applied: {applied.deleted:,} deleted, {applied.relabeled:,} relabeled. The way back:")
        st.code(shlex.join(["medclip", "index", "restore", applied.snapshot, "--index", str(location.folder)]), "sh")
    marks = marks_of(name)
    if not marks:
        return
    corrections = dict(marks)
    num_deleted = list(corrections.values()).count(None)
    with st.container(border=True, key="marked"):
        st.markdown(f"**Marked:** {num_deleted:,} to delete, {len(marks) - num_deleted:,} to relabel")
        with st.container(horizontal=True):
            st.download_button(
                "Download corrections.json",
                write_corrections(corrections),
                "corrections.json",
                "application/json",
                key="marked-download",
                icon=":material/download:",
                on_click="ignore",
            )
            if edit:
                _apply_controls(name, location, corrections, num_deleted)
            st.button("Forget all", key="marked-forget", on_click=unmark, args=(name, list(marks)))
        st.caption(
            "A corrected dataset: `medclip correct DATA --corrections corrections.json --out NEW`. "
            "The index: `medclip index correct --index INDEX --corrections corrections.json`."
        )


def _apply_controls(name: str, location: IndexLocation, corrections: Corrections, num_deleted: int) -> None:
    """A button that says what would change, and within it the one that does so."""
    with st.popover("Apply to the index", type="primary", icon=":material/check:"):
        st.markdown(
            f"{escape_markdown(name)} changes for all who use it. A snapshot keeps what was before, "
            "until `medclip index purge`."
        )
        st.button(
            f"Delete {num_deleted:,}, relabel {len(corrections) - num_deleted:,}",
            key="marked-apply",
            type="primary",
            on_click=_apply,
            args=(name, location, corrections),
        )


def _apply(name: str, location: IndexLocation, corrections: Corrections) -> None:
    try:
        applied = correct(location.folder, corrections)
    except SHOWN_ERRORS as error:
        show_error(error)
        return
    unmark(name, list(corrections))
    st.session_state.setdefault(_APPLIED, {})[name] = applied
    st.toast(
        escape_markdown(f"{name}: {applied.deleted:,} deleted, {applied.relabeled:,} relabeled"),
        icon=":material/check:",
        duration="long",  # the map is laid out anew meanwhile
    )

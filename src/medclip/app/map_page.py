"""The map page: every image of an index as a point, and what stands out in it as a list."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import streamlit as st
from jaxtyping import Bool, Float, Int64, UInt8, UInt16
from streamlit.components.v2 import component

from medclip.app.cache import cached_index
from medclip.app.marking import describe_mark, mark, marked_panel, marking_controls, marks_of, unmark
from medclip.app.run import IndexLocation
from medclip.app.search_page import to_viewed_image
from medclip.app.text import SHOWN_ERRORS, escape_markdown, format_labels, show_error, show_image
from medclip.app.viewer import open_viewer
from medclip.data.corrections import PairKey, pair_keys
from medclip.search.filters import column_values, label_names
from medclip.search.map import (
    CaptionRanks,
    Layout,
    Method,
    Neighbors,
    caption_encoder,
    duplicate_points,
    lay_out,
    map_embeddings,
    map_rows,
    nearest_neighbors,
    rank_captions,
)
from medclip.search.reader import Hit, IndexReader

OUTLIER_SCORE, CAPTION_RANK, LICENSE = "outlier score", "caption rank", "license"
OUTLIERS, DUPLICATES, CONFUSED = "Outliers", "Near duplicates", "Most confused"
# Okabe and Ito (2008): color-blind readers tell them apart
CATEGORY_COLORS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442")
OTHER_COLOR, NONE_COLOR = "#6e6e6e", "#a8a8a8"
NUM_SHADES = 32
GRID = 65535  # u16, as map_view.js reads places
MAX_LISTED = 200  # of a list that is not drawn by hand
PAGE_SIZE = 24
SELECTED, MARKED = 1, 2  # as map_view.js outlines them
SELECTION, NUM_SELECTIONS = "map-selection", "map-num-selections"
_HERE = Path(__file__).parent
_VIEW = component(
    "medclip_map",
    html='<canvas tabindex="0" role="application"></canvas><ul></ul>',
    css=(_HERE / "map_view.css").read_text(encoding="utf-8"),
    js=(_HERE / "map_view.js").read_text(encoding="utf-8"),
)

Source = tuple[IndexLocation, tuple]
"""An index and its version."""


class Lasso(NamedTuple):
    """Points that were drawn around, and the index that they are of."""

    source: Source
    points: tuple[int, ...]


@dataclass(frozen=True)
class Coloring:
    """A color for each point, by its number, and what the colors mean."""

    numbers: UInt8[np.ndarray, " n"]
    colors: Sequence[str]
    legend: Sequence[tuple[str, str]]
    """Name and color."""


@dataclass(frozen=True)
class Selection:
    """Points to look at, in order, under a title; some with a sentence about them and another point."""

    title: str
    points: Sequence[int]
    notes: Mapping[int, str] = field(default_factory=dict)
    others: Mapping[int, int] = field(default_factory=dict)

    def describe(self) -> str:
        """The title, and how many points there are."""
        count = len(self.points)
        return f"{self.title}: {count:,} {'image' if count == 1 else 'images'}"


def map_page(locations: Mapping[str, IndexLocation], edit: bool) -> None:
    """Draw the page; with `edit` it may change an index."""
    st.title("Map")
    try:
        name = _choose_index(list(locations))
        reader = cached_index(locations[name]).reader
        source = (locations[name], reader.version)
        method, by = _choose_looks(reader)
        layout, coloring = _cached_layout(*source, method), _coloring(source, reader, by)
        rows = map_rows(reader)
        st.caption(describe_map(reader, rows, layout))
        _choose_list()
        selection = _selection(source, reader, rows)
        if selection is not None:  # the list itself lies below the map, often out of sight
            st.markdown(f"{selection.describe()}{', below the map' if selection.points else ''}.")
        marks = marks_of(name)
        marked = np.array([key in marks for key in _keys(reader, rows)] if marks else np.zeros(len(rows), bool))
        _draw(source, method, layout, coloring, selection, marked)
    except SHOWN_ERRORS as error:
        show_error(error)
        return
    marked_panel(name, locations[name], edit)
    if selection is not None:
        _show_selection(locations, name, reader, rows, selection)


def _choose_index(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return st.segmented_control(
        "Index", names, default=names[0], required=True, key="map-index", format_func=escape_markdown
    )


def _choose_looks(reader: IndexReader) -> tuple[Method, str]:
    """How the points are laid out, and what colors them."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        choice = st.segmented_control(
            "Layout",
            ["pca", "umap"],
            default="pca",
            required=True,
            key="map-layout",
            format_func=str.upper,
            help="PCA is exact. UMAP lets groups stand apart; its axes and distances between groups mean nothing.",
        )
        choices = [*label_names(reader.table), LICENSE, OUTLIER_SCORE, CAPTION_RANK]
        default = choices.index("modality") if "modality" in choices else 0
        by = st.selectbox("Color by", choices, default, format_func=_capitalize, key="map-color", width=240)
    return "umap" if choice == "umap" else "pca", by


def _capitalize(name: str) -> str:
    return name[:1].upper() + name[1:].replace("_", " ")


def describe_map(reader: IndexReader, rows: Int64[np.ndarray, " n"], layout: Layout) -> str:
    """How many images are shown, what the axes are, and where labels to color by come from if there are none."""
    shown = f"{len(rows):,} images"
    if len(rows) < len(reader):
        shown = f"{len(rows):,} of {len(reader):,} images, evenly spread"
    if reader.synthetic:
        shown += ", synthetic phantoms: no patient is shown"
    if layout.variance_shares is None:
        axes = "UMAP: near points are alike; the axes mean nothing."
    else:
        x_share, y_share = layout.variance_shares
        axes = f"The axes are the two of greatest variance: {x_share:.0%} and {y_share:.0%} of all of it."
    unlabeled = (
        "" if label_names(reader.table) else " No image has a label; `medclip prepare --label-column` keeps them."
    )
    return f"{shown}. {axes}{unlabeled}"


@st.cache_resource(show_spinner="Laying out the map…", max_entries=4)
def _cached_layout(location: IndexLocation, version: tuple, method: Method) -> Layout:
    reader = cached_index(location).reader
    return lay_out(map_embeddings(reader, map_rows(reader)), method, seed=0)


@st.cache_resource(show_spinner="Looking for the neighbors of each image…", max_entries=4)
def _cached_neighbors(location: IndexLocation, version: tuple) -> Neighbors:
    reader = cached_index(location).reader
    return nearest_neighbors(map_embeddings(reader, map_rows(reader)))


@st.cache_resource(show_spinner="Comparing each image with the others…", max_entries=4)
def _cached_duplicates(location: IndexLocation, version: tuple) -> dict[int, list[int]]:
    reader = cached_index(location).reader
    return duplicate_points(reader, map_rows(reader))


@st.cache_resource(show_spinner="Reading every caption with the model, once…", max_entries=4)
def _cached_captions(location: IndexLocation, version: tuple) -> CaptionRanks:
    index = cached_index(location)
    rows = map_rows(index.reader)
    return rank_captions(
        index.reader, rows, map_embeddings(index.reader, rows), caption_encoder(index.model, cache=False)
    )


def _coloring(source: Source, reader: IndexReader, by: str) -> Coloring:
    if by == OUTLIER_SCORE:
        return shade(_cached_neighbors(*source).outlier_scores, "{:.3f}")
    if by == CAPTION_RANK:  # of ranks the magnitude matters: 1 and 10 differ as 100 and 1,000 do
        return shade(_cached_captions(*source).ranks.astype(float), "rank {:,.0f}", log=True)
    return categorize(column_values(reader.table, by).take(map_rows(reader)).to_pylist())


def categorize(values: Sequence[str | None]) -> Coloring:
    """A color for each of the most frequent values, one for the others and one for none."""
    counts = Counter(value for value in values if value)
    names = [name for name, _ in counts.most_common(len(CATEGORY_COLORS))]
    number = {name: i for i, name in enumerate(names)}
    other, none = len(names), len(names) + 1
    numbers = np.array([number.get(value, other) if value else none for value in values], np.uint8)
    legend = [
        (f"{name.replace('_', ' ')} ({counts[name]:,})", color)
        for name, color in zip(names, CATEGORY_COLORS, strict=False)
    ]
    for name, rest, gray in (("others", other, OTHER_COLOR), ("none", none, NONE_COLOR)):
        if count := int(np.count_nonzero(numbers == rest)):
            legend.append((f"{name} ({count:,})", gray))
    return Coloring(numbers, [*CATEGORY_COLORS[: len(names)], OTHER_COLOR, NONE_COLOR], legend)


def shade(values: Float[np.ndarray, " n"], form: str, log: bool = False) -> Coloring:
    """Shades from the lowest value to the highest, or by their logarithms."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    scaled = np.log(values) if log else values
    low, high = scaled.min(), scaled.max()
    parts = (scaled - low) / ((high - low) or 1)
    colors = [to_hex(color) for color in colormaps["viridis"](np.linspace(0, 1, NUM_SHADES))]
    numbers = np.rint(parts * (NUM_SHADES - 1)).astype(np.uint8)
    ends = [(values.min(), colors[0]), (values.max(), colors[-1])]
    return Coloring(numbers, colors, [(form.format(value), color) for value, color in ends])


def _choose_list() -> None:
    """Buttons for the lists that need no drawing."""
    with st.container(horizontal=True, vertical_alignment="center"):
        for name, icon in ((OUTLIERS, "scatter_plot"), (DUPLICATES, "filter_none"), (CONFUSED, "shuffle")):
            st.button(name, icon=f":material/{icon}:", key=f"list-{name}", on_click=_select, args=(name,))
        if SELECTION in st.session_state:
            st.button("Clear", icon=":material/close:", key="list-clear", on_click=_select, args=(None,))
        st.caption(
            "or draw around points; Shift moves, the wheel or two fingers zoom, arrows and Enter do it by keyboard"
        )


def _select(request: Any) -> None:
    """Choose the points of the list below the map: the name of a list, or points; None for none."""
    st.session_state[NUM_SELECTIONS] = st.session_state.get(NUM_SELECTIONS, 0) + 1
    if request is None:
        st.session_state.pop(SELECTION, None)
    else:
        st.session_state[SELECTION] = request


def _selection(source: Source, reader: IndexReader, rows: Int64[np.ndarray, " n"]) -> Selection | None:
    """The points to list."""
    request = st.session_state.get(SELECTION)

    def id(point: int) -> str:
        return reader.id(int(rows[point]))

    if request == OUTLIERS:
        neighbors = _cached_neighbors(*source)
        scores, points = neighbors.outlier_scores, neighbors.farthest[: num_outliers(len(rows))].tolist()
        notes = {point: f"mean cosine distance {scores[point]:.3f}" for point in points}
        return Selection("Farthest from their neighbors", points, notes)
    if request == DUPLICATES:
        groups = _cached_duplicates(*source)
        earlier = {point: first for first, points in groups.items() for point in points}
        notes = {point: f"near duplicate of {id(first)}" for point, first in earlier.items()}
        return Selection("Near duplicates of an earlier image", list(notes), notes, earlier)
    if request == CONFUSED:
        captions = _cached_captions(*source)
        confused = captions.most_confused
        points = confused[:MAX_LISTED].tolist()
        others = {point: int(captions.others[point]) for point in points}
        notes = {
            point: f"own caption at rank {captions.ranks[point]:,} (cosine {captions.cosines[point]:.3f}); "
            f"that of {id(others[point])} fits better ({captions.other_cosines[point]:.3f})"
            for point in points
        }
        title = "Images that another's caption fits better"
        if len(points) < len(confused):
            title += f", the first of {len(confused):,}"
        return Selection(title, points, notes, others)
    if isinstance(request, Lasso) and request.source == source:
        return Selection("Selected", request.points)
    return None


def num_outliers(num_points: int) -> int:
    """How many points are listed as outliers: a hundredth, a page at least, MAX_LISTED at most."""
    return min(MAX_LISTED, max(PAGE_SIZE, num_points // 100))


def _draw(
    source: Source,
    method: Method,
    layout: Layout,
    coloring: Coloring,
    selection: Selection | None,
    marked: Bool[np.ndarray, " n"],
) -> None:
    """The map itself; what is drawn around becomes the selection."""
    x, y = to_grid(layout.xy)
    outlines = np.zeros(len(x), np.uint8)
    if selection is not None:
        outlines[list(selection.points)] = SELECTED
    outlines[marked] = MARKED
    data = {
        "layout": f"{source[1]} {method}",  # another one is shown whole again
        "x": _base64(x),
        "y": _base64(y),
        "color": _base64(coloring.numbers),
        "mark": _base64(outlines),
        "colors": list(coloring.colors),
        "legend": [{"name": name, "color": color} for name, color in coloring.legend],
        "label": f"Map of {len(x):,} images. Arrow keys move a circle, Enter lists the images in it, + and - zoom.",
    }
    selected = _VIEW(key="map-view", data=data, on_selected_change=lambda: None).get("selected")
    if selected is not None:
        _select(Lasso(source, tuple(i for i in selected if isinstance(i, int) and 0 <= i < len(x))))
        st.rerun()


def to_grid(xy: Float[np.ndarray, "n 2"]) -> UInt16[np.ndarray, "2 n"]:
    """Places in a square of GRID × GRID that holds them all, both axes to one scale."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    return np.rint((((xy - (low + high) / 2) / ((high - low).max() or 1)) + 0.5) * GRID).astype(np.uint16).T


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _show_selection(
    locations: Mapping[str, IndexLocation],
    name: str,
    reader: IndexReader,
    rows: Int64[np.ndarray, " n"],
    selection: Selection,
) -> None:
    """The selected images as cards, a page at a time."""
    count = len(selection.points)
    st.header(selection.describe())
    if count:
        marking_controls(name, _keys(reader, rows[list(selection.points)]), label_names(reader.table))
    pages = -(-count // PAGE_SIZE)
    # a key of its own for each selection: the browser would bring back the page of the one before
    page_key = f"map-page-{st.session_state.get(NUM_SELECTIONS, 0)}"
    page = int(st.number_input("Page", 1, pages, key=page_key, width=160)) if pages > 1 else 1
    with st.grid(min_column_width=220, gap="small"):
        for point in selection.points[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]:
            hit, (key,) = reader.hit(int(rows[point]), 0), _keys(reader, rows[[point]])
            with st.container(border=True, gap="xsmall", key=f"card-map-{point}"):
                _card(hit, key, point, selection.notes.get(point, ""), locations, name)
                if point in selection.others:
                    _other_button(reader, int(rows[selection.others[point]]), point, locations, name)


def _other_button(reader: IndexReader, row: int, point: int, locations: Mapping[str, IndexLocation], name: str) -> None:
    """A button that opens the image that the note about a point names."""
    label, icon = f"Look at {escape_markdown(reader.id(row))}", ":material/open_in_full:"
    if st.button(label, key=f"other-map-{point}", icon=icon, type="tertiary"):
        open_viewer(to_viewed_image(reader.hit(row, 0)), locations, name)


def _keys(reader: IndexReader, rows: Int64[np.ndarray, " n"]) -> list[PairKey]:
    return pair_keys(reader.table.select(["id", "sha256"]).take(rows))


def _card(hit: Hit, key: PairKey, point: int, note: str, locations: Mapping[str, IndexLocation], name: str) -> None:
    show_image(hit.image, alt=hit.caption)
    # its label is for screen readers: style.css lays it over the whole image and shows the icon alone
    label, icon = f"Enlarge image {escape_markdown(hit.id)}", ":material/zoom_out_map:"
    if st.button(label, key=f"enlarge-map-{point}", icon=icon, width="stretch"):
        open_viewer(to_viewed_image(hit), locations, name)
    if note:
        st.caption(escape_markdown(note))
    if labels := format_labels(hit.labels):
        st.caption(escape_markdown(labels))
    st.text(hit.caption, width="stretch")  # a caption is data, never markup
    marks = marks_of(name)
    if key in marks:
        st.caption(f":red[{escape_markdown(describe_mark(marks[key]))}]")
        st.button("Unmark", key=f"unmark-{point}", type="tertiary", on_click=unmark, args=(name, [key]))
    else:
        st.button(
            "Delete",
            key=f"mark-{point}",
            type="tertiary",
            icon=":material/delete:",
            on_click=mark,
            args=(name, [key], None),
        )

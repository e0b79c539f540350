"""The page of the map: what is colored, listed and said, without a browser."""

import errno
import json
import sys

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from medclip.app.map_page import (
    CATEGORY_COLORS,
    GRID,
    NONE_COLOR,
    OTHER_COLOR,
    categorize,
    describe_map,
    num_outliers,
    shade,
    to_grid,
)
from medclip.app.run import IndexLocation
from medclip.atomic_io import write_with_checksum
from medclip.search.curate import restore
from medclip.search.map import make_map
from medclip.search.reader import IndexReader
from support.made_indexes import make_index, random_units


def page(locations, edit):
    from medclip.app.map_page import map_page

    map_page(locations, edit)


def open_map(folder, edit=False) -> AppTest:
    return AppTest.from_function(page, default_timeout=600, args=({"index": IndexLocation(folder)}, edit)).run()


@pytest.fixture
def at(index_folder) -> AppTest:
    return open_map(index_folder)


def texts(at):
    return [element.value for element in (*at.caption, *at.header, *at.text)]


def test_the_most_frequent_values_get_the_colors_and_others_and_none_are_two_grays():
    values = ["ct", None, "mri", "ct", *(f"rare_{i}" for i in range(9)), "mri", ""]
    coloring = categorize(values)
    assert coloring.colors == [*CATEGORY_COLORS, OTHER_COLOR, NONE_COLOR]
    assert coloring.legend[:3] == [("ct (2)", "#0072b2"), ("mri (2)", "#e69f00"), ("rare 0 (1)", "#009e73")]
    assert coloring.legend[7:] == [("others (4)", OTHER_COLOR), ("none (2)", NONE_COLOR)]
    assert [coloring.colors[i] for i in coloring.numbers[:4]] == ["#0072b2", NONE_COLOR, "#e69f00", "#0072b2"]


def test_shades_go_from_the_lowest_to_the_highest():
    coloring = shade(np.array([1.0, 10.0, 100.0]), "{:.0f}", log=True)
    assert coloring.numbers.tolist() == [0, 16, 31]
    assert [name for name, _ in coloring.legend] == ["1", "100"]
    assert shade(np.array([3.0, 3.0]), "{}").numbers.tolist() == [0, 0]


def test_places_keep_their_proportions():
    x, y = to_grid(np.array([[0, 0], [4, 0], [4, 2]], np.float32))
    assert x.tolist() == [0, GRID, GRID]
    np.testing.assert_allclose(y / GRID, [0.25, 0.25, 0.75], atol=1e-4)
    assert np.ptp(to_grid(np.ones((3, 2), np.float32))) == 0


def test_the_lists_are_those_of_the_map(at, index_folder):
    assert list(at.exception) == [] and list(at.error) == []
    assert any(text.startswith("12 images. The axes are") for text in texts(at))
    reader = IndexReader(index_folder)
    points = make_map(reader)
    at.button(key="list-Outliers").click().run()
    assert "Farthest from their neighbors: 12 images" in texts(at)
    captions = reader.table.column("caption").to_pylist()
    assert [element.value for element in at.text] == [captions[i] for i in points.neighbors.farthest]
    assert "Farthest from their neighbors: 12 images, below the map." in [element.value for element in at.markdown]
    at.button(key="list-Most confused").click().run()
    assert any("own caption at rank" in text for text in texts(at)) and list(at.exception) == []
    others = [button for button in at.button if (button.key or "").startswith("other-map-")]
    named = [text.partition("that of ")[2].partition(" fits")[0] for text in texts(at) if "own caption at rank" in text]
    assert [button.label for button in others] == [f"Look at {id}" for id in named]
    assert list(others[0].click().run().exception) == []
    at.button(key="list-clear").click().run()
    assert list(at.header) == []


def test_another_list_begins_on_its_first_page(at, monkeypatch):
    monkeypatch.setattr("medclip.app.map_page.PAGE_SIZE", 4)
    monkeypatch.setattr("medclip.app.map_page.num_outliers", lambda num_points: 12)
    at.button(key="list-Outliers").click().run()
    first = [element.value for element in at.text]
    at.number_input[0].set_value(2).run()
    assert [element.value for element in at.text] != first
    at.button(key="list-Most confused").click().run()
    at.button(key="list-Outliers").click().run()
    assert at.number_input[0].value == 1 and [element.value for element in at.text] == first


@pytest.mark.parametrize(("images", "listed"), [(12, 24), (2_400, 24), (5_000, 50), (100_000, 200)])
def test_as_many_outliers_are_listed_as_the_index_is_large(images, listed):
    assert num_outliers(images) == listed


def test_a_map_without_labels_says_where_they_come_from(tmp_path):
    for name, labels in (("none", []), ("some", [("modality", "CT")])):
        make_index(tmp_path / name, random_units(4), metadata=lambda row, labels=labels: {"labels": labels})
        reader = IndexReader(tmp_path / name)
        sentence = describe_map(reader, (points := make_map(reader)).rows, points.layout)
        assert ("--label-column" in sentence) == (labels == []), sentence


def test_every_color_can_be_chosen(at):
    box = at.selectbox(key="map-color")
    assert {"outlier score", "caption rank", "license"} <= {option.lower() for option in box.options}
    for option in ("outlier score", "caption rank", "license"):
        at.selectbox(key="map-color").set_value(option).run()
        assert list(at.exception) == [] and list(at.error) == []


def test_umap_that_is_absent_is_one_sentence(at, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    at.segmented_control(key="map-layout").set_value("umap").run()
    assert "Umap is not installed" in at.error[0].value and list(at.exception) == []


def test_marks_are_counted_forgotten_and_without_leave_change_nothing(at, index_folder):
    reader = IndexReader(index_folder)
    at.button(key="list-Outliers").click().run()
    first, second, *_ = make_map(reader).neighbors.farthest
    at.button(key=f"mark-{first}").click().run()
    assert "**Marked:** 1 to delete, 0 to relabel" in [element.value for element in at.markdown]
    at.selectbox(key="mark-label").set_value("modality").run()
    at.text_input(key="mark-value").set_value("[x](y)").run()
    at.button(key="mark-relabel").click().run()
    assert "**Marked:** 0 to delete, 12 to relabel" in [element.value for element in at.markdown]
    assert any(r"marked\: modality = \[x\](y)" in text for text in texts(at))
    at.button(key=f"unmark-{second}").click().run()
    assert "**Marked:** 0 to delete, 11 to relabel" in [element.value for element in at.markdown]
    assert "marked-apply" not in [button.key for button in at.button]
    at.button(key="marked-forget").click().run()
    assert not any("Marked" in element.value for element in at.markdown) and list(at.exception) == []
    assert len(IndexReader(index_folder)) == 12


def test_with_leave_marks_change_the_index(index_folder, copy, run):
    folder = copy(index_folder)
    manifest = json.loads((folder / "index.json").read_text())
    write_with_checksum(folder / "index.json", manifest | {"model": str(run / "model")})
    at = open_map(folder, edit=True)
    at.button(key="list-Outliers").click().run()
    first = int(make_map(IndexReader(folder)).neighbors.farthest[0])
    deleted = IndexReader(folder).id(first)
    at.button(key=f"mark-{first}").click().run()
    assert at.button(key="marked-apply").label == "Delete 1, relabel 0"
    at.button(key="marked-apply").click().run()
    assert list(at.exception) == [] and list(at.error) == []
    reader = IndexReader(folder)
    assert len(reader) == 11 and deleted not in {reader.id(int(row)) for row in np.flatnonzero(reader.live_mask)}
    assert any(text.startswith("11 images") for text in texts(at))
    (command,) = at.code
    assert command.value == f"medclip index restore before-corrections-1 --index {folder}"
    assert restore(folder, command.value.split()[3]) == 12


def test_an_index_that_cannot_be_written_keeps_the_marks(index_folder, monkeypatch):
    def fail(folder, corrections):
        raise OSError(errno.EROFS, "Read-only file system", str(folder))

    monkeypatch.setattr("medclip.app.marking.correct", fail)
    at = open_map(index_folder, edit=True)
    at.button(key="list-Outliers").click().run()
    at.button(key="mark-delete").click().run()
    at.button(key="marked-apply").click().run()
    assert list(at.exception) == [] and "ead-only file system" in at.error[0].value
    assert "**Marked:** 12 to delete, 0 to relabel" in [element.value for element in at.markdown]

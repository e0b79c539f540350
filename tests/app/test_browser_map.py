"""The map in a real browser: drawn, lassoed, by keyboard and by touch."""

import math
import re

import pytest
from playwright.sync_api import Page, expect

from medclip.app.map_page import categorize
from medclip.data.corrections import read_corrections
from medclip.search.map import make_map
from support.accessibility import assert_named
from support.waiting import wait_until

pytestmark = pytest.mark.slow


def open_map(page: Page):
    """The map's canvas, drawn."""
    page.get_by_role("link", name="Map").click()
    canvas = page.get_by_role("application", name=re.compile("^Map of 12 images"))
    expect(canvas).to_be_visible()
    return canvas


def colors_at(canvas, places) -> list[str]:
    """The color of the canvas at places in CSS pixels, as #rrggbb."""
    return canvas.evaluate(
        """(canvas, places) => places.map(([x, y]) => {
            const ratio = canvas.width / canvas.clientWidth;
            const [r, g, b] = canvas.getContext("2d").getImageData(x * ratio, y * ratio, 1, 1).data;
            return "#" + [r, g, b].map((value) => value.toString(16).padStart(2, "0")).join("");
        })""",
        places,
    )


def map_places(canvas, reader) -> list[list[float]]:
    """Where each point is drawn, worked out from the layout alone: the unit square on 96 % of the shorter side."""
    xy = make_map(reader).layout.xy.astype(float)
    box = canvas.bounding_box()
    unit = 0.96 * min(box["width"], box["height"]) / float((xy.max(axis=0) - xy.min(axis=0)).max())
    middle = ((xy.max(axis=0) + xy.min(axis=0)) / 2).tolist()
    return [
        [box["width"] / 2 + (x - middle[0]) * unit, box["height"] / 2 - (y - middle[1]) * unit] for x, y in xy.tolist()
    ]


def test_the_map_is_drawn_lassoed_and_marked(visit, searcher, tmp_path):
    page, reader = visit(), searcher.reader
    canvas = open_map(page)
    modalities = [dict(labels).get("modality") for labels in reader.table.column("labels").to_pylist()]
    coloring = categorize(modalities)

    def find_points():
        """Where the points are and which lie apart, once these have their colors."""
        places = map_places(canvas, reader)
        apart = [i for i, place in enumerate(places) if sum(math.dist(place, other) < 12 for other in places) == 1]
        colors = [coloring.colors[coloring.numbers[i]] for i in apart]
        return (places, apart) if colors_at(canvas, [places[i] for i in apart]) == colors else None

    places, apart = wait_until(find_points)
    assert apart
    chosen = [i for i in apart if modalities[i] == modalities[apart[0]]][:1]
    box = canvas.bounding_box()
    x, y = box["x"] + places[chosen[0]][0], box["y"] + places[chosen[0]][1]
    corners = [(-5, -5), (5, -5), (5, 5), (-5, 5)]
    page.mouse.move(x - 5, y - 5)
    page.mouse.down()
    for dx, dy in corners:
        page.mouse.move(x + dx, y + dy, steps=3)
    page.mouse.up()
    expect(page.get_by_role("heading", name="Selected: 1 image")).to_be_visible()
    hit = reader.hit(chosen[0], 0)
    expect(page.get_by_role("img", name=hit.caption)).to_be_visible()
    assert_named(page)
    page.get_by_role("button", name="Delete 1 image").click()
    expect(page.get_by_text("1 to delete, 0 to relabel")).to_be_visible()
    assert page.get_by_role("button", name="Apply to the index").count() == 0
    with page.expect_download() as download:
        page.get_by_role("button", name="Download corrections.json").click()
    download.value.save_as(tmp_path / "corrections.json")
    sha256 = reader.table.column("sha256")[chosen[0]].as_py()
    assert read_corrections(tmp_path / "corrections.json") == {(hit.id, sha256): None}
    page.get_by_role("button", name="Outliers").click()
    expect(page.get_by_role("heading", name="Farthest from their neighbors: 12 images")).to_be_visible()
    page.get_by_role("button", name="Most confused").click()
    expect(page.get_by_role("heading", name=re.compile("Images that another's caption fits better"))).to_be_visible()


def test_the_map_by_keyboard(visit, searcher):
    page = visit()
    canvas = open_map(page)
    box = canvas.bounding_box()
    middle, places = (box["width"] / 2, box["height"] / 2), map_places(canvas, searcher.reader)
    steps = [round((at - start) / 12) for at, start in zip(places[0], middle, strict=True)]
    cursor = [start + 12 * step for start, step in zip(middle, steps, strict=True)]
    canvas.focus()
    for step, backward, forward in zip(steps, ("ArrowLeft", "ArrowUp"), ("ArrowRight", "ArrowDown"), strict=True):
        for _ in range(abs(step)):
            page.keyboard.press(backward if step < 0 else forward)
    page.keyboard.press("Enter")
    inside = sum(math.dist(place, cursor) <= 20 for place in places)
    title = f"Selected: {inside} {'image' if inside == 1 else 'images'}"
    expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.get_by_role("heading", name=title, exact=True)).to_have_count(0)


def test_two_fingers_zoom_the_map_and_select_nothing(visit, searcher):
    page = visit(has_touch=True)
    canvas = open_map(page)
    box, places = canvas.bounding_box(), map_places(canvas, searcher.reader)
    left, top, middle = box["x"], box["y"], (box["width"] / 2, box["height"] / 2)
    far = max(places, key=lambda place: min(math.dist(place, other) for other in places if other is not place))
    before = wait_until(lambda: (color := colors_at(canvas, [far])[0]) != colors_at(canvas, [(1, 1)])[0] and color)
    touch = page.context.new_cdp_session(page)

    def fingers(kind, *offsets):
        points = [{"x": left + far[0] + dx, "y": top + far[1], "id": n} for n, dx in enumerate(offsets)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", -20)
    fingers("touchStart", -20, 20)
    fingers("touchMove", -60, 60)
    assert colors_at(canvas, [far]) == [before]  # the place between the fingers stays
    moved = [[far[i] + 3 * (place[i] - far[i]) for i in (0, 1)] for place in places]
    inside = [p for p in moved if p is not far and 0 < p[0] < 2 * middle[0] and 0 < p[1] < 2 * middle[1]]
    assert len(inside) < len(places) and colors_at(canvas, [(1, 1)])[0] not in colors_at(canvas, inside)
    fingers("touchEnd")
    expect(page.get_by_role("heading", name=re.compile("^Selected"))).to_have_count(0)

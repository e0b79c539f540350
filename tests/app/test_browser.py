"""The app in a real browser: the journeys of its readers, on the command that serves it."""

import io
import json
import math
import re
import shutil
from pathlib import Path

import pydicom
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from medclip import NOT_CLINICAL
from medclip.app.map_page import categorize
from medclip.atomic_io import write_with_checksum
from medclip.data.corrections import read_corrections
from medclip.search.curate import delete
from medclip.search.filters import make_filter
from medclip.search.index import Index
from medclip.search.map import make_map
from medclip.search.query import Query, SearchOptions, similar
from support.accessibility import assert_named, contrast
from support.browser import open_chromium, serve_app
from support.waiting import wait_until

DICOM = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(index_folder, tmp_path_factory):
    """The index, and another that lacks one of its images."""
    other = Path(shutil.copytree(index_folder, tmp_path_factory.mktemp("other") / "other"))
    manifest = json.loads((other / "index.json").read_text())
    model = str((index_folder / manifest["model"]).resolve())
    write_with_checksum(other / "index.json", manifest | {"model": model})
    delete(other, ids=["ROCO_00000"])
    return index_folder, other


HOSTILE_REPORT = """<!doctype html><title>x</title><h1 onclick="top.document.title = 'taken'">The report</h1>
<script>top.document.title = "taken"</script><img src="nothing" onerror="top.document.title = 'taken'">
<img src="https://example.org/x.png"><link rel="stylesheet" href="https://example.org/x.css">
<iframe src="https://example.org/"></iframe><a href="https://example.org/" target="_top">out</a>
<form action="https://example.org/"><button>send</button></form>
<meta http-equiv="refresh" content="0;url=https://example.org/">"""


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """A folder whose report would take over the app."""
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "report.html").write_text(HOSTILE_REPORT)
    return folder


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """What `medclip app` says while it runs."""
    return tmp_path_factory.mktemp("served") / "log"


@pytest.fixture(scope="module")
def address(folders, evaluation, log, tmp_path_factory):
    """The address of `medclip app`, running in a folder that it may not write to."""
    with serve_app(["--index", *folders, "--evaluation", evaluation], log, tmp_path_factory.mktemp("here")) as url:
        yield url


@pytest.fixture(scope="module")
def chromium():
    with open_chromium() as browser:
        yield browser


@pytest.fixture
def visit(chromium, address):
    """Opens the app in a window of its own, and sees that its pages fail at nothing and ask nobody else."""
    contexts, foreign, errors = [], [], []

    def open_window(**window) -> Page:
        contexts.append(chromium.new_context(**{"viewport": {"width": 1280, "height": 1600}} | window))
        page = contexts[-1].new_page()
        page.set_default_timeout(120_000)
        page.on(
            "request",
            lambda request: None if request.url.startswith((address, "data:", "blob:")) else foreign.append(request),
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.get_by_role("radio", name="index").click()
        return page

    yield open_window
    # Chromium tells of a request that the policy stops too, now and then: it fails as "csp" and never leaves.
    left = [request.url for request in foreign if request.failure != "csp"]
    for context in contexts:
        context.close()
    assert left == [] and errors == []


@pytest.fixture(scope="module")
def searcher(index_folder):
    return Index.open(index_folder)


def expected_hits(searcher, query, k=12, **only):
    return searcher.search_many([query], SearchOptions(k, make_filter(only)))[0]


def ask(page: Page, words: str) -> None:
    box = page.get_by_label("What are you looking for?")
    box.fill(words)
    box.press("Enter")


def assert_shown(page: Page, hits) -> None:
    cards = page.locator("[class*=st-key-card-]")
    expect(cards).to_have_count(len(hits))
    for i, hit in enumerate(hits):
        card = cards.nth(i)  # asked anew each time: the page may still be replacing what it showed before
        expect(card.get_by_text(hit.caption, exact=True)).to_be_visible()
        expect(card.get_by_text(f"cosine {hit.score:.3f}")).to_be_visible()
        image = card.get_by_role("img", name=hit.caption)
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_a_card_can_be_read_and_its_whole_image_opens(visit):
    page = visit()
    assert contrast(page.get_by_text(NOT_CLINICAL)) >= 4.5
    ask(page, "chest")
    card = page.locator("[class*=st-key-card-]").nth(1)
    assert contrast(card.get_by_text(re.compile("^cosine"))) >= 4.5
    end, edge = card.get_by_test_id("stText").evaluate("""text => {
        const [range, span] = [document.createRange(), text.querySelector("span")];
        span.textContent = "\u05e6\u05d9\u05dc\u05d5\u05dd";
        range.selectNodeContents(span);
        return [range.getBoundingClientRect().right, text.parentElement.parentElement.getBoundingClientRect().right];
    }""")
    assert edge - 20 < end <= edge  # Hebrew begins on the right
    for place in (0.1, 0.9):
        image = card.get_by_role("img").bounding_box()
        page.mouse.click(image["x"] + place * image["width"], image["y"] + 0.5 * image["height"])
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_words_an_example_and_filters(visit, searcher):
    page = visit()
    expect(page.get_by_text(NOT_CLINICAL)).to_be_visible()
    ask(page, "CT of the left chest")
    assert_shown(page, expected_hits(searcher, Query(("CT of the left chest",))))
    page.get_by_role("button", name="brain MRI").click()
    expect(page.get_by_label("What are you looking for?")).to_have_value("brain MRI")
    assert_shown(page, expected_hits(searcher, Query(("brain MRI",))))
    assert_named(page)
    page.get_by_role("combobox", name="Modality").click()
    page.get_by_role("option", name="ct (1)").click()
    page.keyboard.press("Escape")
    assert_shown(page, expected_hits(searcher, Query(("brain MRI",)), modality=["ct"]))
    page.get_by_role("button", name="Clear these").click()
    assert_shown(page, expected_hits(searcher, Query(("brain MRI",))))


def test_an_image_of_each_kind_and_a_file_that_is_none(visit, searcher, roco):
    page = visit()
    with (
        Image.open(roco.folder / "validation" / "radiology" / "images" / "ROCO_00007.jpg") as image,
        io.BytesIO() as out,
    ):
        image.save(out, "PNG")
        png = out.getvalue()
    upload = page.locator("input[type=file]")
    upload.set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": b"not an image"})
    expect(page.get_by_text(re.compile("^The uploaded image: image unreadable; "))).to_be_visible()
    upload.set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": png})
    hits = expected_hits(searcher, Query((), (png,)))
    assert hits[0].id == "ROCO_00007"
    assert_shown(page, hits)
    expect(page.get_by_role("img", name="The query's image: Your image")).to_be_visible()
    assert_named(page)
    page.get_by_role("button", name="Remove").click()
    upload.set_input_files(DICOM)
    assert_shown(page, expected_hits(searcher, Query((), (DICOM,))))
    ask(page, "knee")
    assert_shown(page, expected_hits(searcher, Query(("knee",), (DICOM,))))


def test_the_viewer_with_window_classes_and_saliency(visit, searcher):
    page = visit()
    ask(page, "chest")
    hits = expected_hits(searcher, Query(("chest",)))
    page.get_by_role("button", name="Enlarge image 2", exact=True).click()
    dialog = page.get_by_role("dialog")
    image = dialog.get_by_role("img", name=hits[1].caption)
    expect(image).to_be_visible()
    expect(dialog.get_by_text(NOT_CLINICAL)).to_be_visible()
    before = image.get_attribute("src")
    dialog.get_by_role("slider", name="Width").press("PageDown")
    expect(image).not_to_have_attribute("src", before)
    assert_named(page)
    dialog.get_by_role("tab", name="Which class?").click()
    dialog.get_by_label("Classes, separated by commas").fill("chest, knee")
    dialog.get_by_role("button", name="Compare").click()
    expect(dialog.get_by_text(re.compile(r"^knee: \d+ %$"))).to_be_visible()
    dialog.get_by_role("tab", name="Where?").click()
    dialog.get_by_role("button", name="Show where").click()
    expect(dialog.get_by_role("img", name="The image, colored where it says: chest")).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.get_by_role("button", name="Find similar").nth(1).click()
    assert_shown(page, similar(searcher.reader, *searcher.reader.find_rows(hits[1].id), SearchOptions(12)))


def test_two_indexes_side_by_side(visit, folders):
    page = visit()
    ask(page, "chest")
    expect(page.locator("[class*=st-key-card-]")).to_have_count(12)
    page.get_by_role("radio", name="side by side").click()
    assert_shown(page, [hit for folder in folders for hit in expected_hits(Index.open(folder), Query(("chest",)))])


def test_a_phone_in_the_dark(visit, searcher):
    page = visit(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True)
    ask(page, "chest")
    assert_shown(page, expected_hits(searcher, Query(("chest",))))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    expect(page.get_by_text(NOT_CLINICAL)).to_be_in_viewport()
    red, green, blue = page.locator(".stApp").evaluate("app => getComputedStyle(app).backgroundColor.match(/\\d+/g)")
    assert max(int(red), int(green), int(blue)) < 60
    assert contrast(page.get_by_text(NOT_CLINICAL)) >= 4.5
    page.get_by_role("button", name="Enlarge image 1", exact=True).tap()
    expect(page.get_by_role("dialog").get_by_text(NOT_CLINICAL)).to_be_in_viewport()
    page.get_by_role("dialog").get_by_role("tab", name="Where?").scroll_into_view_if_needed()
    expect(page.get_by_role("dialog").get_by_text(NOT_CLINICAL)).to_be_in_viewport()


def test_the_keyboard_alone(visit, searcher):
    page = visit()
    page.get_by_label("What are you looking for?").focus()
    page.keyboard.type("chest")
    page.keyboard.press("Enter")
    assert_shown(page, expected_hits(searcher, Query(("chest",))))
    for _ in range(30):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "() => [document.activeElement.innerText, getComputedStyle(document.activeElement).outlineStyle]"
        )
        if "Enlarge image 1" in name:
            break
    assert "Enlarge image 1" in name and outline == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


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


def test_no_query_is_logged_or_stands_in_an_address(visit, log):
    page = visit()
    urls = []
    page.on("request", lambda request: urls.append(request.url))
    ask(page, "a name nobody may read")
    expect(page.locator("[class*=st-key-card-]")).to_have_count(12)
    page.get_by_role("link", name="Model and evaluation").click()
    expect(page.get_by_role("heading", name="About")).to_be_visible()
    assert_named(page)
    assert not [url for url in (page.url, *urls) if "nobody" in url]
    assert "nobody" not in log.read_text()


def test_a_report_runs_nothing_and_leads_nowhere(visit):
    page = visit()
    page.get_by_role("link", name="Model and evaluation").click()
    page.get_by_role("tab", name="Evaluation").click()
    report = page.frame_locator("iframe").frame_locator("iframe")
    expect(report.get_by_role("heading", name="The report")).to_be_visible()
    page.wait_for_timeout(1000)  # for the refresh that must not happen
    report.get_by_role("heading", name="The report").click()
    report.get_by_role("link", name="out").click()
    report.get_by_role("button", name="send").click()
    page.wait_for_timeout(500)
    expect(report.get_by_role("heading", name="The report")).to_be_visible()
    assert page.title() != "taken"

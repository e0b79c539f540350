"""The app in a real browser: the journeys of its readers, on the command that serves it."""

import io
import re
from pathlib import Path

import pydicom
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from medclip import NOT_CLINICAL
from medclip.search.filters import make_filter
from medclip.search.index import Index
from medclip.search.query import Query, SearchOptions, similar
from support.accessibility import assert_named, contrast

DICOM = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"

pytestmark = pytest.mark.slow


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

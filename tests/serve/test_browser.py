"""The page in a real browser: the journeys of a newcomer, on the command that serves it."""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from medclip import NOT_CLINICAL
from medclip.search.index import Index
from medclip.search.query import search

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def address(index_folder, tmp_path_factory):
    """The address of `medclip app`, running."""
    port, log = free_port(), tmp_path_factory.mktemp("served") / "log"
    with log.open("wb") as said:
        command = [sys.executable, "-m", "medclip.cli", "app", "--index", str(index_folder), "--port", str(port)]
        served = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            assert served.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.fail(log.read_text())
        yield url
    finally:
        served.terminate()
        served.wait(20)
        with pytest.raises(OSError):  # the page does not outlive the command
            urllib.request.urlopen(f"{url}/_stcore/health", timeout=2)


@pytest.fixture
def page(address):
    """A page of the app in Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: the browser test needs one on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        opened = browser.new_page(viewport={"width": 1280, "height": 1600})
        opened.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        opened.goto(address)
        yield opened
        browser.close()


def assert_shown(page: Page, hits) -> None:
    for rank, hit in enumerate(hits, 1):
        # a count waits until the previous answer's elements are gone
        expect(page.get_by_text(f"{rank}. cosine {hit.score:.3f} · {hit.id}")).to_have_count(1)
        expect(page.get_by_text(hit.caption, exact=True)).to_have_count(1)
    pictures = page.locator("[data-testid=stImage] img")
    expect(pictures).to_have_count(len(hits))
    for picture in pictures.all():
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_words_an_example_and_a_picture_find_what_the_search_finds(page, index_folder, roco):
    index = Index(index_folder)
    expect(page.get_by_text(NOT_CLINICAL)).to_be_visible()
    box = page.get_by_label("What are you looking for?")
    box.fill("CT of the left chest")
    box.press("Enter")
    assert_shown(page, search(index, "CT of the left chest", 9))
    page.get_by_role("button", name="brain MRI").click()
    expect(box).to_have_value("brain MRI")
    assert_shown(page, search(index, "brain MRI", 9))
    picture = Path(roco.folder / "validation" / "radiology" / "images" / "ROCO_00007.jpg")
    page.locator("input[type=file]").set_input_files(picture)
    hits = search(index, picture, 9)
    assert hits[0].id == "ROCO_00007"
    assert_shown(page, hits)


def test_a_file_that_is_no_picture_is_one_sentence(page, tmp_path):
    (tmp_path / "x.png").write_bytes(b"not a picture")
    page.locator("input[type=file]").set_input_files(tmp_path / "x.png")
    expect(page.get_by_text("image unreadable")).to_be_visible()
    expect(page.get_by_text("Traceback")).to_have_count(0)

"""What the tests of the app share."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import streamlit as st
from playwright.sync_api import Page
from streamlit.testing.v1 import AppTest

from medclip import NOT_CLINICAL
from medclip.app.run import MAIN_SCRIPT, AppConfig
from medclip.atomic_io import write_with_checksum
from medclip.search.curate import delete
from medclip.search.index import Index
from support.browser import open_chromium, serve_app


@pytest.fixture
def page(monkeypatch):
    """Opens the app on index folders."""
    # the page takes the place of __main__, which later tests' worker processes would run anew
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])

    st.cache_data.clear()  # every test is the same session

    def open_page(*folders, **others) -> AppTest:
        monkeypatch.setattr("sys.argv", [str(MAIN_SCRIPT), AppConfig(folders, **others).to_json()])
        return AppTest.from_file(str(MAIN_SCRIPT), default_timeout=600).run()

    return open_page


@pytest.fixture
def sound():
    """Asserts that a page shows no traceback and the notice; returns it."""

    def check(at: AppTest) -> AppTest:
        assert list(at.exception) == []
        assert NOT_CLINICAL in [element.value for element in at.caption]
        return at

    return check


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
    (folder / "retrieval.json").write_text("{}")
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

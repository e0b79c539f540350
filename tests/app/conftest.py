"""What the tests of the app share."""

import sys

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from medclip import NOT_CLINICAL
from medclip.app.run import MAIN_SCRIPT, AppConfig


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

"""The page in each of its states, without a browser."""

import json
import sys

import pytest
from streamlit.testing.v1 import AppTest

from medclip import NOT_CLINICAL
from medclip.search.index import Index
from medclip.search.query import search
from medclip.serve.launch import APP


@pytest.fixture
def page(monkeypatch):
    """Opens the page on an index folder."""
    # the page takes the place of __main__, which later tests' worker processes would run anew
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])

    def open_page(folder) -> AppTest:
        monkeypatch.setattr("sys.argv", [str(APP), str(folder)])
        return AppTest.from_file(str(APP), default_timeout=60).run()

    return open_page


def captions(at: AppTest) -> list[str]:
    return [element.value for element in at.text]


def assert_no_traceback(at: AppTest) -> None:
    assert list(at.exception) == []
    assert NOT_CLINICAL in [element.value for element in at.caption]


def ask(at: AppTest, words: str) -> AppTest:
    return at.text_input(key="query").set_value(words).run()


def test_before_a_query_the_page_says_what_to_do(page, index_folder):
    at = page(index_folder)
    assert_no_traceback(at)
    assert captions(at) == []
    assert any("Type a query" in element.value for element in at.markdown)


def test_hits_are_the_searchs_own_best_first(page, index_folder):
    at = ask(page(index_folder), "CT of the left chest")
    hits = search(Index(index_folder), "CT of the left chest", 9)
    assert_no_traceback(at)
    assert captions(at) == [hit.caption for hit in hits]
    told = [element.value for element in at.markdown if "cosine" in element.value]
    assert told == [f"**{i + 1}.** cosine **{hit.score:.3f}** · `{hit.id}`" for i, hit in enumerate(hits)]


def test_an_example_fills_the_box_and_answers(page, index_folder):
    at = page(index_folder)
    example = at.button[0]
    at = example.click().run()
    assert_no_traceback(at)
    assert at.text_input(key="query").value == example.label
    assert len(captions(at)) == 9


def test_the_number_of_results_is_obeyed_and_stops_at_the_pool(page, index_folder):
    at = ask(page(index_folder), "chest")
    assert len(captions(at.slider[0].set_value(2).run())) == 2
    assert len(captions(at.slider[0].set_value(30).run())) == 12
    assert_no_traceback(at)


@pytest.mark.parametrize("words", ["", "   "])
def test_an_empty_query_is_no_query(page, index_folder, words):
    at = ask(page(index_folder), words)
    assert_no_traceback(at)
    assert captions(at) == [] and list(at.error) == []


def test_a_damaged_index_is_one_sentence(page, index_folder, copy):
    folder = copy(index_folder)
    (folder / "vectors.npy").write_bytes(b"nothing")
    at = page(folder)
    assert_no_traceback(at)
    assert "is damaged" in at.error[0].value


def test_an_index_of_another_model_is_one_sentence(page, index_folder, copy):
    folder = copy(index_folder)
    about = json.loads((folder / "index.json").read_text())
    about["model"] = str((index_folder / about["model"]).resolve())
    about["model_sha256"] = "0" * 64
    (folder / "index.json").write_text(json.dumps(about))
    at = ask(page(folder), "chest")
    assert_no_traceback(at)
    assert "was made by another model" in at.error[0].value
    assert captions(at) == []

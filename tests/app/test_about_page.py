"""The page about index, model and evaluation."""

from streamlit.testing.v1 import AppTest

from medclip.app.about_page import without_pictures


def page(places, evaluation):
    from medclip.app.about_page import about

    about(places, evaluation)


def test_it_shows_the_model_card_and_what_the_index_holds(index_folder, run):
    at = AppTest.from_function(page, default_timeout=60, args=({"index": (str(index_folder), None)}, None)).run()
    assert list(at.exception) == [] and list(at.error) == []
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    shown = [element.value for element in at.markdown]
    assert card[card.index("## Data") :].strip() in "\n".join(shown)
    assert at.table[0].value["Pictures"].tolist() == ["12"]


def test_a_folder_without_results_is_one_sentence(index_folder, tmp_path):
    places = {"index": (str(index_folder), None)}
    at = AppTest.from_function(page, default_timeout=60, args=(places, tmp_path)).run()
    assert list(at.exception) == [] and len(at.error) == 1


def test_a_model_without_a_card_says_so(index_folder, run, copy):
    bare = copy(run / "model")
    (bare / "README.md").unlink()
    at = AppTest.from_function(page, default_timeout=60, args=({"index": (str(index_folder), str(bare))}, None)).run()
    assert list(at.exception) == [] and "no card" in at.info[0].value


def test_a_card_fetches_nothing():
    card = "---\nlicense: other\n---\n# x\n![plot](https://example.org/x.png) --- [link](y)\n"
    assert without_pictures(card) == "# x\n[plot](https://example.org/x.png) --- [link](y)\n"

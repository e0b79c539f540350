"""The page about index, model and evaluation."""

from streamlit.testing.v1 import AppTest

from medclip.app.about_page import card_text
from medclip.app.run import IndexLocation


def page(locations, evaluation):
    from medclip.app.about_page import about_page

    about_page(locations, evaluation)


def open_about_page(index, model=None, evaluation=None) -> AppTest:
    locations = {"index": IndexLocation(index, model)}
    return AppTest.from_function(page, default_timeout=600, args=(locations, evaluation)).run()


def test_it_shows_the_model_card_and_what_the_index_holds(index_folder, run):
    at = open_about_page(index_folder)
    assert list(at.exception) == [] and list(at.error) == []
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    texts = [element.value for element in at.markdown]
    assert card_text(card)[card_text(card).index("#### Data") :].strip() in "\n".join(texts)
    assert "<!--" not in "\n".join(texts)
    assert at.table[0].value["Images"].tolist() == ["12"]


def test_headings_of_a_card_stand_below_those_of_the_page_and_code_stays():
    card = "# Card\n## Use\n```python\n# a comment\n```\n#### Fine\n#tag\n"
    assert card_text(card) == "### Card\n#### Use\n```python\n# a comment\n```\n###### Fine\n#tag\n"


def test_a_folder_without_a_report_is_one_sentence(index_folder, tmp_path):
    at = open_about_page(index_folder, evaluation=tmp_path)
    assert list(at.exception) == [] and "medclip evaluate" in at.error[0].value


def test_a_model_without_a_card_says_so(index_folder, run, copy):
    bare = copy(run / "model")
    (bare / "README.md").unlink()
    at = open_about_page(index_folder, bare)
    assert list(at.exception) == [] and "no card" in at.info[0].value


def test_a_card_fetches_nothing_and_shows_no_comment():
    head = "---\nlicense: other\n---\n<!-- made\nby -->\n"
    card = "# x\n![plot](https://example.org/x.png) --- [link](y)\n`<!-- -->`\n"
    assert card_text(head + card) == "### x\n[plot](https://example.org/x.png) --- [link](y)\n`<!-- -->`\n"
    assert card_text("!![a](b)") == card_text("!!![a](b)") == "[a](b)"
    assert card_text(unclosed := "<!--\n" * 100_000) == unclosed  # in a moment

"""Data as the app shows them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.app.text import article_link, escape_markdown, format_labels


@given(st.text(max_size=40))
def test_no_mark_of_markdown_stands_alone(text):
    escaped = escape_markdown(text)
    for position, letter in enumerate(escaped):
        if letter in "`*_[]<>$#~|!&:":
            assert escaped[position - 1] == "\\"
    assert "\n" not in escaped


@pytest.mark.parametrize(
    ("article", "link"),
    [
        ("PMC123", "https://pmc.ncbi.nlm.nih.gov/articles/PMC123/"),
        ("PMC123/../x", None),
        ("PHANTOM_V000003", None),
        ("xPMC1", None),
        ("", None),
    ],
)
def test_only_an_article_of_pmc_has_a_link(article, link):
    assert article_link(article) == link


def test_labels_are_a_line():
    assert format_labels({"modality": "ct", "side": "", "organ": "chest_lung"}) == "ct · chest lung"

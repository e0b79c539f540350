"""Data as the app shows them."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medclip.app.text import article_link, grey_of, labels_of, plain, windowed


def png(pixels):
    with io.BytesIO() as out:
        Image.fromarray(np.uint8(pixels)).save(out, "PNG")
        return out.getvalue()


@given(st.text(max_size=40))
def test_no_mark_of_markdown_stands_alone(text):
    said = plain(text)
    for place, letter in enumerate(said):
        if letter in "`*_[]<>$#~|!&:":
            assert said[place - 1] == "\\"
    assert "\n" not in said


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
    assert labels_of({"modality": "ct", "side": "", "organ": "chest_lung"}) == "ct · chest lung"


def test_the_window_is_that_of_dicom():
    """PS3.3 C.11.2.1.2.1 by cases, in its own words: c is the level, w the width."""
    grey = np.arange(256, dtype=np.uint8)
    for level, width in ((128, 256), (60, 40), (200, 2), (0, 512), (255, 17)):
        expected = []
        for x in range(256):
            if x <= level - 0.5 - (width - 1) / 2:
                expected.append(0)
            elif x > level - 0.5 + (width - 1) / 2:
                expected.append(255)
            else:
                expected.append(round(((x - (level - 0.5)) / (width - 1) + 0.5) * 255))
        assert np.abs(windowed(grey, level, width).astype(int) - expected).max() <= 1  # halves round either way


def test_the_whole_window_changes_nothing_and_the_narrowest_is_two_tones():
    grey = np.arange(256, dtype=np.uint8)
    assert (windowed(grey, 128, 256) == grey).all()
    assert windowed(grey, 100, 1).tolist() == [0] * 100 + [255] * 156


def test_only_a_grey_picture_has_values():
    assert (grey_of(png([[0, 7], [9, 255]])) == [[0, 7], [9, 255]]).all()
    assert grey_of(png(np.random.default_rng(0).integers(0, 255, (4, 4, 3)))) is None

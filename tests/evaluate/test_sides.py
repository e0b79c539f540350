"""Left and right: exchanged in words, chosen between by a model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.evaluate import sides
from medclip.evaluate.sides import mirrored, side_choice

WORDS = st.sampled_from(["left", "Left", "LEFT", "right", "Right", "RIGHT", "leftover", "upright", "CT", "of", "knee,"])
SENTENCES = st.lists(WORDS, max_size=8).map(" ".join)


@pytest.mark.parametrize(
    ("caption", "other"),
    [
        ("CT of the left knee", "CT of the right knee"),
        ("Right lung, right lobe", "Left lung, left lobe"),
        ("LEFT-sided effusion", "RIGHT-sided effusion"),
        ("the (left) kidney.", "the (right) kidney."),
        ("CT of the knee", None),
        ("from left to right", None),
        ("Left and RIGHT", None),
        ("upright, leftover, copyright", None),
        ("", None),
    ],
)
def test_examples(caption, other):
    assert mirrored(caption) == other


@given(SENTENCES)
def test_mirroring_twice_is_no_change(caption):
    other = mirrored(caption)
    assert other is None or (other != caption and mirrored(other) == caption)


@pytest.mark.xfail(
    strict=True, raises=KeyError, reason="bug: IGNORECASE lets i match the dotless ı, _OTHER has no 'rıght'"
)
def test_a_turkish_letter_is_no_crash():
    assert mirrored("the rıght knee") is None


def test_the_choice_counts_what_scores_above_its_mirror(monkeypatch):
    directions = {
        "the left knee": [1.0, 0],
        "the right knee": [0, 1.0],
        "a left eye": [1.0, 0],
        "a right eye": [1.0, 0],
    }
    monkeypatch.setattr(sides, "embed_texts", lambda model, texts: np.array([directions[t] for t in texts]))
    captions = ["the left knee", "no side at all", "the right knee", "a left eye"]
    images = np.array([[1.0, 0], [1.0, 0], [1.0, 0], [1.0, 0]])  # right, not asked, wrong, a tie
    found = side_choice(None, images, captions, ["a", "b", "c", "d"], seed=0)
    assert found["captions"] == 3
    assert found["accuracy"]["value"] == pytest.approx(1 / 3)


def test_no_sided_caption_gives_no_number():
    assert side_choice(None, np.eye(2), ["a knee", "left to right"], ["a", "b"], 0) is None

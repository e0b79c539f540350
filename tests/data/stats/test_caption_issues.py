"""Issues of captions are named, and ordinary captions have none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.data.stats.statistics import caption_issues, caption_skeleton


@pytest.mark.parametrize(
    ("caption", "issues"),
    [
        ("Axial CT of the chest (arrow), 5–10 mm; p < 0.05 & stable.", []),
        ("Orthopantomogram.", []),
        ("Figure (a).", []),
        ("A case of 12.5.1 ml contrast in 2014", []),
        ("Echo of de la Cruz's patient in the clinic, with an arrow", []),
        ("IMG_0042", ["file name"]),
        ("chest film.PNG", ["file name"]),
        ("A <b>large</b> mass", ["markup"]),
        ("\\documentclass[12pt]{minimal} mass", ["markup"]),
        ("mass &amp; oedema", ["markup"]),
        ("see https://example.org", ["markup"]),
        ("CT (a) and MRI (B) of the knee", ["several panels"]),
        ("Radiographie du thorax de face du patient", ["not English"]),
        ("Röntgenbild der Lunge mit Erguss", ["not English"]),
        ("胸部CT显示右肺上叶结节", ["not English"]),
        ("Рентгенография грудной клетки", ["not English"]),
        ("CT on 3 March 2014 at admission", ["date or e-mail"]),
        ("CT of 03.11.2014", ["date or e-mail"]),
        ("CT vom 3. März 2014 bei Aufnahme", ["date or e-mail"]),
        ("TC do dia 3 de março de 2014", ["not English", "date or e-mail"]),
        ("taken on 2014-03-11", ["date or e-mail"]),
        ("write to jane@clinic.org", ["date or e-mail"]),
        ("", []),
    ],
)
def test_issues(caption, issues):
    assert caption_issues(caption) == issues


def test_templates_differ_in_case_numbers_and_punctuation_alone():
    assert (
        caption_skeleton("Case 12: CT, 3.5 mm.")
        == caption_skeleton("case 7 – CT (12.25 MM)")
        == ["case", "#", "ct", "#", "#", "mm"]
    )


@given(st.text())
def test_any_text_is_checked(caption):
    assert set(caption_issues(caption)) <= {"file name", "markup", "several panels", "not English", "date or e-mail"}
    assert all(caption_skeleton(caption))

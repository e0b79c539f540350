"""Captions keep what their author wrote; licenses have one name each."""

import html
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.data.normalize import CAPTION_RULES, clean_caption, license_name, license_set
from medclip.errors import UserError

TEXT = st.text(max_size=80)
# What the world's captions hold besides letters: white space, marks, invisible and control characters.
ODD = "aZe\u0301\u0308 \t\n\r\u00a0\u2003\u200b\u200d\ufeff\u00ad\x00\x1f\u0085<&;#()ampFig12.:"
TRICKY = st.text(ODD, max_size=30)


@given(TEXT | TRICKY)
def test_cleaning_twice_changes_nothing_more(caption):
    once, _ = clean_caption(caption)
    assert clean_caption(once) == (once, [])
    assert unicodedata.is_normalized("NFC", once)
    assert once == " ".join(once.split())


@given(TEXT.filter(lambda text: "&" not in text and ")" not in text and "ig" not in text.casefold()))
def test_letters_and_their_case_are_kept(caption):
    def letters(text):
        return [c for c in unicodedata.normalize("NFC", text) if c.isalpha()]

    assert letters(clean_caption(caption)[0]) == letters(caption)


@given(st.lists(st.text(string.ascii_letters + string.digits + ",;'\"!?%+*=<>[]", min_size=1), max_size=8))
def test_an_ascii_caption_without_extra_spaces_is_unchanged(words):
    caption = " ".join(words)
    assert clean_caption(caption) == (caption, [])


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1).filter(lambda t: "&" not in t))
def test_an_escaped_caption_is_the_one_that_was_meant(caption):
    assert clean_caption(html.escape(caption))[0] == clean_caption(caption)[0]


DECODED, INVISIBLE, COMPOSED, SPACE, FIGURE, PANEL = CAPTION_RULES


@pytest.mark.parametrize(
    ("written", "wanted", "rules"),
    [
        (" Axial MRI (coronal view).", "Axial MRI (coronal view).", []),
        ("left\tkidney\n5\u00a0mm", "left kidney 5 mm", [SPACE]),
        ("Kienbo\u0308ck", "Kienböck", [COMPOSED]),
        ("b' axial CT '", "b' axial CT '", []),
        ("opac\u00adity\x07", "opacity", [INVISIBLE]),
        ("5 µm ≥ 3 cm²", "5 µm ≥ 3 cm²", []),  # NFC, not NFKC: a micro sign and a square stay what they are
        ("&lt; 5&nbsp;mm &#8805;&#x200b;", "< 5 mm ≥", [DECODED, INVISIBLE, SPACE]),
        ("R&amp;amp;D", "R&D", [DECODED]),
        ("A&copy, AT&T; &unknown; &", "A&copy, AT&T; &unknown; &", []),
        ("Figure 1: CT", "CT", [FIGURE]),
        ("FIG. 2A-C. CT", "CT", [FIGURE]),
        ("Figure1:Figure 2 – CT", "CT", [FIGURE]),
        ("Figure 3 shows the liver", "Figure 3 shows the liver", []),
        ("Figure 1.5 mm slices", "Figure 1.5 mm slices", []),
        ("see Figure 2: CT", "see Figure 2: CT", []),
        ("(a) CT of the liver", "CT of the liver", [PANEL]),
        ("(A). CT", "CT", [PANEL]),
        ("(a) CT, (b) MRI", "(a) CT, (b) MRI", []),
        ("a) CT and b) MRI", "a) CT and b) MRI", []),
        ("Figure 4: (a) CT", "CT", [FIGURE, PANEL]),
    ],
)
def test_examples(written, wanted, rules):
    assert clean_caption(written) == (wanted, rules)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("CC BY", "cc-by"),
        ("CC-BY-4.0", "cc-by"),
        ("cc by 4.0", "cc-by"),
        ("cc_by_nc_sa", "cc-by-nc-sa"),
        ("CC BY-NC-ND", "cc-by-nc-nd"),
        ("https://creativecommons.org/licenses/by-nc/3.0/", "cc-by-nc"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/", "public-domain"),
        ("CC0", "cc0"),
        ("CC0-1.0", "cc0"),
        ("CC Zero", "cc0"),
        ("CC", "cc"),
        ("NO-CC CODE", "no-cc-code"),
        ("", ""),
    ],
)
def test_license_names(text, name):
    assert license_name(text) == name


@given(st.text(max_size=30))
def test_a_name_is_its_own_name(text):
    assert license_name(license_name(text)) == license_name(text)


def test_a_list_of_licenses():
    assert license_set("CC BY 4.0, cc0") == {"cc-by", "cc0"}
    with pytest.raises(UserError, match="names no license"):
        license_set(" , ")

"""A foil differs from its caption in what is tested, and in nothing else."""

import re
from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.data.foils import (
    MODALITIES,
    ORGANS,
    PLANES,
    POSITIONS,
    SIDES,
    SIZES,
    WEIGHTINGS,
    affirm_finding,
    foil_rules,
    negate_finding,
    shuffle_words,
    swap_left_right,
    swap_terms,
)
from medclip.data.phantoms.cases import CASES, write_caption

WORDS = st.sampled_from(["left", "Left", "LEFT", "right", "Right", "RIGHT", "leftover", "upright", "CT", "of", "knee,"])
WORD = re.compile(r"(?<![\w-])[^\W\d_](?:[\w'’-]*\w)?")
FUNCTION_WORDS = {"a", "an", "the", "of", "in", "on", "with", "and", "no", "is", "this", "there", "by", "can", "be"}
SENTENCES = st.lists(WORDS, max_size=8).map(" ".join)
TABLES = {
    "left or right": SIDES,
    "brain or lung": ORGANS,
    "modality": MODALITIES,
    "MRI weighting": WEIGHTINGS,
    "plane": PLANES,
    "size": SIZES,
    "place": POSITIONS,
}
TABLED = sorted({word for table in TABLES.values() for pair in table for word in pair})
LIKE_CAPTIONS = st.lists(
    st.sampled_from([*TABLED, "a", "an", "A", "showing", "of the", "knee.", "mass", "no", "Kienböck's", "(arrow)"])
    | st.sampled_from(TABLED).map(str.upper)
    | st.sampled_from(TABLED).map(str.capitalize),
    max_size=10,
).map(" ".join)
PHANTOM_CAPTIONS = st.builds(
    lambda case, seed: write_caption(case, np.random.default_rng(seed)), st.sampled_from(CASES), st.integers(0, 10**6)
)
CAPTIONS = LIKE_CAPTIONS | PHANTOM_CAPTIONS | st.text(max_size=60)


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
def test_left_and_right_change_places(caption, other):
    assert swap_left_right(caption) == other


@given(SENTENCES)
def test_mirroring_twice_is_no_change(caption):
    other = swap_left_right(caption)
    assert other is None or (other != caption and swap_left_right(other) == caption)


def test_a_turkish_letter_is_no_crash():
    assert swap_left_right("the rıght knee") is None


@pytest.mark.parametrize(
    ("test", "caption", "foil"),
    [
        ("brain or lung", "Brain MRI, both lungs", None),
        ("brain or lung", "Cerebral oedema", "Pulmonary oedema"),
        ("brain or lung", "Fracture of the humeral head", None),
        ("brain or lung", "A mass in the head of the pancreas", None),
        ("brain or lung", "CT of the head and skull", "CT of the chest and thorax"),
        ("modality", "A CT scan of the knee", "An MRI scan of the knee"),
        ("modality", "An MR image, axial", "A CT image, axial"),
        ("modality", "ct showing a mass", "mri showing a mass"),
        ("modality", "Chest X-ray", "Chest ultrasound"),
        ("modality", "X-ray of the chest", "Ultrasound of the chest"),
        ("modality", "Computed tomography of a hip", "Magnetic resonance imaging of a hip"),
        ("modality", "CT and MRI of the knee", None),
        ("modality", "T1-weighted MRI of the knee", None),
        ("modality", "CTA of the neck", None),
        ("MRI weighting", "T2-weighted MRI", "T1-weighted MRI"),
        ("MRI weighting", "Fracture of the T1 vertebra", None),
        ("plane", "An axial CT", "A coronal CT"),
        ("plane", "SAGITTAL section", "AXIAL section"),
        ("plane", "axial and coronal views", None),
        ("plane", "coronal and sagittal views", None),
        ("plane", "The lateral ventricle", None),
        ("plane", "Lateral radiograph", "Frontal radiograph"),
        ("size", "a small mass", "a large mass"),
        ("size", "a cyst (small white arrow)", None),
        ("place", "An upper lobe", "A lower lobe"),
        ("place", "the postero-anterior view", None),
        ("finding present", "CT showing a large, solid mass.", "CT showing no large, solid mass."),
        ("finding present", "An effusion on the left", "No effusion on the left"),
        ("finding present", "X-ray shows pneumothorax", "X-ray shows no pneumothorax"),
        ("finding present", "There is no effusion but a mass", None),
        ("finding present", "A patient in bed", None),
        ("finding absent", "No pleural effusion is seen", "Pleural effusion is seen"),
        ("finding absent", "CT shows no evidence of fracture", "CT shows fracture"),
        ("finding absent", "Mass without calcification", "Mass with calcification"),
        ("finding absent", "CT with and without contrast", None),
        ("finding absent", "CT without contrast", None),
        ("finding absent", "The artery is no longer visible", None),
        ("finding absent", "A normal appearance", "An abnormal appearance"),
        ("finding absent", "Unremarkable chest film", "Abnormal chest film"),
        ("finding absent", "An abnormal lung", None),
        ("word order", "CT of the knee", None),
    ],
)
def test_examples(test, caption, foil):
    assert foil_rules(0)[test](caption) == foil


def letters_without(caption, table):
    """The words of a caption that are in no pair of a table; "a" and "an" may follow them."""
    words = sorted({word for pair in table for word in pair}, key=len, reverse=True)
    rest = re.sub("|".join(rf"\b{re.escape(word)}\b" for word in words), "", caption, flags=re.IGNORECASE | re.ASCII)
    return re.sub(r"\ban?\b", "", rest, flags=re.IGNORECASE)


@pytest.mark.parametrize("test", TABLES)
@given(CAPTIONS)
def test_an_exchange_touches_the_words_of_its_table_alone(test, caption):
    foil = foil_rules(0)[test](caption)
    if foil is not None:
        assert foil.lower() != caption.lower()
        assert letters_without(foil, TABLES[test]) == letters_without(caption, TABLES[test])


@pytest.mark.parametrize("table", [SIDES, WEIGHTINGS, SIZES, POSITIONS], ids=["sides", "weightings", "sizes", "places"])
@given(LIKE_CAPTIONS.filter(lambda caption: not re.search(r"\ban?\b", caption, re.IGNORECASE)))
def test_a_table_of_pairs_is_its_own_inverse(table, caption):
    foil = swap_terms(caption, table)
    assert foil is None or swap_terms(foil, table).lower() == caption.lower()


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("form", [str.lower, str.upper, str.capitalize])
def test_case_is_kept(table, form):
    for one, _ in table:
        foil = swap_terms(form(one), table)
        assert foil == form(foil) or (form is str.capitalize and foil[0].isupper())


@given(PHANTOM_CAPTIONS)
def test_a_phantom_can_be_negated_or_affirmed_and_never_both(caption):
    assert (negate_finding(caption) is None) != (affirm_finding(caption) is None)


def count_words(text):
    return Counter(re.findall(r"\w+", text.lower()))


@given(CAPTIONS)
def test_negation_adds_a_no_and_removes_an_article_at_most(caption):
    foil = negate_finding(caption)
    if foil is not None:
        before, after = count_words(caption), count_words(foil)
        assert after - before == Counter({"no": 1})
        assert before - after in (Counter(), Counter({"a": 1}), Counter({"an": 1}))


@given(CAPTIONS)
def test_affirmation_removes_the_negation_alone(caption):
    foil = affirm_finding(caption)
    if foil is not None:
        before, after = count_words(caption), count_words(foil)
        assert set(after - before) <= {"with", "abnormal", "a", "an"}
        assert set(before - after) <= {"no", "without", "normal", "unremarkable", "a", "an", "any", "evidence", "of",
                                       "sign", "signs", "definite", "clear"}  # fmt: skip


@given(CAPTIONS, st.integers(0, 9))
def test_another_order_has_the_same_words_and_the_same_frame(caption, seed):
    foil = shuffle_words(caption, seed)
    if foil is None:
        return
    assert foil == shuffle_words(caption, seed)
    assert foil.lower() != caption.lower()
    words, foil_words = (WORD.findall(text.lower()) for text in (caption, foil))
    assert Counter(foil_words) == Counter(words)
    assert WORD.sub("", foil) == WORD.sub("", caption)  # punctuation, numbers and spaces stay
    assert [w if w in FUNCTION_WORDS else "*" for w in foil_words] == [w if w in FUNCTION_WORDS else "*" for w in words]


def test_the_seed_orders_the_words():
    caption = "Axial CT of the abdomen showing a large cystic mass in the right kidney"
    assert len({shuffle_words(caption, seed) for seed in range(5)}) > 1
    assert all(foil[0].isupper() for foil in map(partial(shuffle_words, caption), range(5)))


@given(st.text())
def test_no_caption_breaks_a_rule(caption):
    for foil in foil_rules(0).values():
        assert foil(caption) != caption


def test_each_rule_applies_to_enough_real_captions(shared_folder):
    file = shared_folder / "roco" / "validation" / "radiology" / "captions.txt"
    lines = file.read_text(encoding="utf-8").splitlines()
    captions = [line.split("\t", 1)[1] for line in lines if "\t" in line]
    for name, rule in foil_rules(0).items():
        pairs = [(caption, foil) for caption in captions if (foil := rule(caption))]
        assert len(pairs) >= 20, name
        assert all(caption.casefold() != foil.casefold() for caption, foil in pairs)

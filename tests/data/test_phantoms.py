"""The phantoms: reproducible, labeled as drawn, and true to each modality's physics."""

import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from medclip.data.phantoms.cases import (
    CASES,
    FINDINGS,
    WORDINGS,
    Case,
    draw_case,
    phantom,
    phantom_mask,
    phantoms,
    write_caption,
)
from medclip.data.prepare_config import PrepareConfig
from medclip.data.sources.detect import open_source, source_length

SIDED = [case for case in CASES if case.side == "left"]
RADIUS = np.arange(128) - 63.5


def decode(pair):
    return Image.open(io.BytesIO(pair.image))


def words(text):
    return re.findall(r"[a-z]+", text.lower())


def stream(number=0):
    return np.random.SeedSequence(number)


def change(case, number):
    """How far the finding changes each pixel of the same body without it."""
    normal = Case(case.modality, case.organ, case.plane, "normal")
    return np.abs(draw_case(case, stream(number)).astype(int) - draw_case(normal, stream(number)))


def mirror(case):
    return Case(case.modality, case.organ, case.plane, case.finding, "right")


def test_same_seed_same_pairs_whatever_the_count():
    few, more = list(phantoms(3, seed=7, num_validation=2)), list(phantoms(5, seed=7, num_validation=4))
    assert few == more[:3] + more[5:7]
    assert few[1] == phantom(1, seed=7)
    assert few[4] == phantom(1, seed=7, split="validation")
    assert phantom(1, seed=8).image != few[1].image


def test_as_many_are_drawn_as_are_taken():
    assert list(open_source("phantoms:9", PrepareConfig(max_samples=2, seed=7))) == list(phantoms(2, 2, seed=7))
    assert (source_length("phantoms:9", 2), source_length("phantoms:1", 2)) == (4, 3)


def test_fields():
    pairs = list(phantoms(2, num_validation=1))
    assert [pair.id for pair in pairs] == ["PHANTOM_T000000", "PHANTOM_T000001", "PHANTOM_V000000"]
    assert [pair.split for pair in pairs] == ["train", "train", "validation"]
    assert {pair.license for pair in pairs} == {"CC0-1.0"}
    assert all(pair.article == pair.id for pair in pairs)
    assert all(list(pair.labels) == ["modality", "organ", "plane", "finding", "side"] for pair in pairs)


def test_the_image_is_a_labeled_gray_png():
    image = decode(phantom(3))
    assert (image.format, image.mode, image.size) == ("PNG", "L", (128, 128))
    assert "synthetic phantom, not a patient" in image.text.values()


@pytest.mark.slow
def test_validation_cases_are_distinct():
    cases = [tuple(pair.labels.values()) for pair in phantoms(0, num_validation=100)]
    assert len(set(cases)) == 100


def test_validation_can_show_every_case_once_but_no_more():
    assert len(set(CASES)) == len(CASES)
    assert phantom(len(CASES) - 1, split="validation").split == "validation"
    with pytest.raises(ValueError, match=rf"only {len(CASES)} different cases"):
        next(phantoms(1, num_validation=len(CASES) + 1))


@given(st.sampled_from(CASES), st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_caption_names_the_side_exactly_when_there_is_one(case, number):
    text = words(write_caption(case, np.random.default_rng(number)))
    assert [word for word in text if word in ("left", "right")] == [case.side] * bool(case.side)
    assert {"phantom", "synthetic", "simulated"} & set(text)
    assert 6 <= len(text) <= 30


@given(st.sampled_from(SIDED), st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_swapping_the_side_word_gives_the_mirrored_caption(case, number):
    left, right = (write_caption(c, np.random.default_rng(number)) for c in (case, mirror(case)))
    assert re.sub(r"\bleft\b", "right", left) == right


def test_what_a_foil_says_of_findings_is_true_of_another_phantom():
    """Only the image tells "a mass" from "no mass": captions say both, and "normal" as well as "abnormal"."""
    rng = np.random.default_rng(0)
    captions = {case: " ".join(write_caption(case, rng) for _ in range(40)).lower() for case in CASES}
    normal = " ".join(text for case, text in captions.items() if case.finding == "normal")
    others = " ".join(text for case, text in captions.items() if case.finding != "normal")
    for finding in FINDINGS[1:]:
        assert all(re.search(rf"\bno {noun}", normal) and noun in others for noun in WORDINGS[finding])
    assert "no evidence of a" in normal
    assert "normal appearance" in normal and "abnormal appearance" in others
    assert "abnormal appearance" not in normal
    assert not re.search(r"\b(no|without|normal|unremarkable)\b", others)


def test_only_normal_cases_and_side_views_have_no_side():
    for case in CASES:
        assert (case.side == "") == (case.finding == "normal" or case.plane in ("sagittal", "lateral"))


@given(st.sampled_from(SIDED), st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_finding_lies_in_its_half(case, number):
    left, right = change(case, number), change(mirror(case), number)
    assert left[:, 64:].sum() > 5 * left[:, :64].sum()  # the patient's left is the image's right
    assert right[:, :64].sum() > 5 * right[:, 64:].sum()


@given(st.sampled_from(SIDED), st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_finding_is_seen_and_well_off_the_midline(case, number):
    difference = change(case, number)
    visible = difference > 25
    assert visible.sum() > 40  # a mass on a knee's radiograph has 55, the least of 400 draws of each case
    assert np.average(RADIUS, weights=np.where(visible, difference, 0).sum(0)) > 0.15 * 128


def test_cyst_is_dark_on_t1_and_bright_on_t2():
    for number in range(5):
        signs = {}
        for modality in ("T1 MRI", "T2 MRI"):
            cyst, normal = (
                draw_case(Case(modality, "head", "axial", finding, side), stream(number)).astype(int)
                for finding, side in (("cyst", "left"), ("normal", ""))
            )
            inside = np.abs(cyst - normal) > 60
            signs[modality] = np.sign((cyst - normal)[inside].mean())
        assert signs == {"T1 MRI": -1, "T2 MRI": 1}


def test_ultrasound_is_a_fan_on_black():
    for organ in ("head", "chest", "heart"):
        image = draw_case(Case("ultrasound", organ, "axial", "normal"), stream())
        assert not image[[0, 0, -1, -1], [0, -1, 0, -1]].any()
        assert image[50:80, 50:80].mean() > 30


def test_calcium_shadows_and_a_cyst_enhances_what_lies_behind():
    normal, calcium, cyst = (
        draw_case(Case("ultrasound", "head", "axial", finding, side), stream()).astype(int)
        for finding, side in (("normal", ""), ("calcification", "left"), ("cyst", "left"))
    )
    deepest = slice(90, 105)
    assert (calcium - normal)[deepest].min() < -40 < 40 < (cyst - normal)[deepest].max()


def test_pet_shows_uptake_dark_on_white():
    normal, mass = (
        draw_case(Case("PET", "head", "axial", finding, side), stream()).astype(int)
        for finding, side in (("normal", ""), ("mass", "right"))
    )
    assert normal[0, 0] > 220
    assert (mass - normal).min() < -60


@pytest.mark.parametrize("index", range(0, 60, 7))
def test_a_finding_lies_where_the_image_differs_from_the_normal_one(index):
    pair, mask = phantom(index, 0, "validation"), phantom_mask(index, 0, "validation")
    case = Case(**pair.labels)
    if case.finding == "normal":
        assert not mask.any()
        return
    seed = np.random.SeedSequence(0, spawn_key=(1, index, 0))
    assert (draw_case(case, seed) == np.asarray(decode(pair))).all()
    normal = draw_case(Case(case.modality, case.organ, case.plane, "normal"), seed)
    differs = np.abs(draw_case(case, seed).astype(int) - normal) > 40
    assert differs[mask].mean() > 5 * differs[~mask].mean()
    assert 0.005 < mask.mean() < 0.15

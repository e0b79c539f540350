"""Corrupted images: the same every time, of the same size, and the worse the more severe."""

import io

import numpy as np
import pytest
from PIL import Image

from medclip.data.images import decode
from medclip.evaluate.corruptions import CORRUPTIONS, corrupted
from support.material import draw_image, image_bytes

GREY = draw_image(3, (160, 96))
COLOUR = Image.merge("RGB", [draw_image(n, (96, 160)) for n in range(3)])


def change(name, severity, picture=GREY, id="one", seed=0):
    return decode(corrupted(image_bytes(picture, "PNG"), name, severity, id, seed))


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("picture", [GREY, COLOUR, Image.new("L", (9, 7), 80)], ids=["grey", "color", "tiny"])
def test_size_and_mode_are_kept_at_every_severity(name, picture):
    for severity in (1, 2, 3):
        made = change(name, severity, picture)
        assert (made.size, made.mode) == (picture.size, decode(image_bytes(picture, "PNG")).mode)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_picture_is_corrupted_the_same_way(name):
    image = image_bytes(GREY, "PNG")
    assert corrupted(image, name, 2, "one", 0) == corrupted(image, name, 2, "one", 0)


@pytest.mark.parametrize("name", ["noise", "rotation", "crop", "burned-in text"])
def test_chance_differs_by_picture_and_by_seed(name):
    image = image_bytes(GREY, "PNG")
    assert len({corrupted(image, name, 2, f"{i}", 0) for i in range(8)}) > 1
    assert len({corrupted(image, name, 2, "one", seed) for seed in range(8)}) > 1


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_more_severe_is_farther_from_the_picture(name):
    clean = np.asarray(GREY, float)
    far = [np.abs(np.asarray(change(name, severity), float) - clean).mean() for severity in (1, 2, 3)]
    assert 0 < far[0] < far[1] < far[2]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_nothing_is_done_at_severity_nought(name):
    image = image_bytes(GREY)
    assert corrupted(image, name, 0, "one", 0) is image


def test_noise_is_as_strong_as_its_setting_says_and_grey():
    flat = Image.new("RGB", (200, 200), (128, 128, 128))
    noisy = np.asarray(decode(corrupted(image_bytes(flat, "PNG"), "noise", 2, "one", 0)), float)
    assert noisy.ndim == 2  # equal channels are read as one
    assert noisy.std() == pytest.approx(CORRUPTIONS["noise"].settings[1], rel=0.03)
    assert noisy.mean() == pytest.approx(128, abs=1)


def test_contrast_shrinks_about_the_mean():
    values = np.asarray(change("contrast", 2), float)
    assert values.std() == pytest.approx(CORRUPTIONS["contrast"].settings[1] * np.asarray(GREY, float).std(), rel=0.05)
    assert values.mean() == pytest.approx(np.asarray(GREY).mean(), abs=1)


def test_a_crop_shows_a_window_enlarged():
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 128).astype(np.uint8), (128, 1)))
    span = np.ptp(np.asarray(change("crop", 2, ramp), float).mean(axis=0))
    assert span == pytest.approx(255 * CORRUPTIONS["crop"].settings[1], rel=0.03)


def test_jpeg_is_what_pillow_makes_of_that_quality():
    out = io.BytesIO()
    GREY.save(out, "JPEG", quality=CORRUPTIONS["JPEG"].settings[0])
    assert change("JPEG", 1).tobytes() == Image.open(out).tobytes()


def test_text_is_white_in_one_corner_and_the_rest_untouched():
    plain = Image.new("L", (256, 256), 80)
    made = np.asarray(change("burned-in text", 2, plain))
    touched = made != 80
    assert made.max() == 255
    rows, columns = np.flatnonzero(touched.any(axis=1)), np.flatnonzero(touched.any(axis=0))
    assert rows.min() > 128 or rows.max() < 128
    assert columns.min() >= 0 and touched.mean() < 0.25

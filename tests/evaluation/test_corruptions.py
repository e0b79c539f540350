"""Corrupted images: the same every time, of the same size, and the worse the more severe."""

import io

import numpy as np
import pytest
from PIL import Image

from medclip.data.images import decode
from medclip.evaluation.corruptions import CORRUPTIONS, corrupt
from support.material import draw_image, image_bytes

BY_NAME = {corruption.name: corruption for corruption in CORRUPTIONS}
GRAY = draw_image(3, (160, 96))
COLOR = Image.merge("RGB", [draw_image(n, (96, 160)) for n in range(3)])


def change(name, severity, image=GRAY, id="one", seed=0):
    return decode(corrupt(image_bytes(image, "PNG"), BY_NAME[name], severity, id, seed))


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("image", [GRAY, COLOR, Image.new("L", (9, 7), 80)], ids=["gray", "color", "tiny"])
def test_size_and_mode_are_kept_at_every_severity(name, image):
    for severity in (1, 2, 3):
        made = change(name, severity, image)
        assert (made.size, made.mode) == (image.size, decode(image_bytes(image, "PNG")).mode)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_same_image_is_corrupted_the_same_way(name):
    image = image_bytes(GRAY, "PNG")
    assert corrupt(image, BY_NAME[name], 2, "one", 0) == corrupt(image, BY_NAME[name], 2, "one", 0)


@pytest.mark.parametrize("name", ["noise", "rotation", "crop", "burned-in text"])
def test_chance_differs_by_image_and_by_seed(name):
    image = image_bytes(GRAY, "PNG")
    assert len({corrupt(image, BY_NAME[name], 2, f"{i}", 0) for i in range(8)}) > 1
    assert len({corrupt(image, BY_NAME[name], 2, "one", seed) for seed in range(8)}) > 1


@pytest.mark.parametrize("name", BY_NAME)
def test_more_severe_is_farther_from_the_image(name):
    clean = np.asarray(GRAY, float)
    far = [np.abs(np.asarray(change(name, severity), float) - clean).mean() for severity in (1, 2, 3)]
    assert 0 < far[0] < far[1] < far[2]


@pytest.mark.parametrize("name", BY_NAME)
def test_nothing_is_done_at_severity_nought(name):
    image = image_bytes(GRAY)
    assert corrupt(image, BY_NAME[name], 0, "one", 0) is image


def test_noise_is_as_strong_as_its_setting_says_and_gray():
    flat = Image.new("RGB", (200, 200), (128, 128, 128))
    noisy = np.asarray(decode(corrupt(image_bytes(flat, "PNG"), BY_NAME["noise"], 2, "one", 0)), float)
    assert noisy.ndim == 2  # equal channels are read as one
    assert noisy.std() == pytest.approx(BY_NAME["noise"].settings[1], rel=0.03)
    assert noisy.mean() == pytest.approx(128, abs=1)


def test_contrast_shrinks_about_the_mean():
    values = np.asarray(change("contrast", 2), float)
    assert values.std() == pytest.approx(BY_NAME["contrast"].settings[1] * np.asarray(GRAY, float).std(), rel=0.05)
    assert values.mean() == pytest.approx(np.asarray(GRAY).mean(), abs=1)


def test_a_crop_shows_a_window_enlarged():
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 128).astype(np.uint8), (128, 1)))
    span = np.ptp(np.asarray(change("crop", 2, ramp), float).mean(axis=0))
    assert span == pytest.approx(255 * BY_NAME["crop"].settings[1], rel=0.03)


def test_jpeg_is_what_pillow_makes_of_that_quality():
    out = io.BytesIO()
    GRAY.save(out, "JPEG", quality=BY_NAME["JPEG"].settings[0])
    assert change("JPEG", 1).tobytes() == Image.open(out).tobytes()


def test_text_is_white_in_one_corner_and_the_rest_untouched():
    plain = Image.new("L", (256, 256), 80)
    made = np.asarray(change("burned-in text", 2, plain))
    touched = made != 80
    assert made.max() == 255
    rows, columns = np.flatnonzero(touched.any(axis=1)), np.flatnonzero(touched.any(axis=0))
    assert rows.min() > 128 or rows.max() < 128
    assert columns.min() >= 0 and touched.mean() < 0.25

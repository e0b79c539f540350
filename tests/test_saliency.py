"""Saliency lies where the embedding comes from, in the frame of the image, and nowhere in an image without detail."""

import dataclasses
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from medclip import saliency as saliency_module
from medclip.data.images import decode
from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.model.image_processor import map_to_image, parse_image_processor, preprocess
from medclip.saliency import MIN_CHANGE, overlay_saliency, saliency_map
from support.material import draw_image, image_bytes

SQUEEZED = parse_image_processor({"size": {"height": 64, "width": 64}, "do_center_crop": False})
CROPPED = parse_image_processor({"size": {"shortest_edge": 64}, "crop_size": 64, "do_center_crop": True})
PADDED = parse_image_processor({"do_resize": False, "crop_size": 200, "do_center_crop": True})
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 192), dtype=np.uint8))


@pytest.fixture
def looking_at(model):
    """`saliency_map` of a model whose cosine is the contrast in one box of its square: top, bottom, left, right."""

    def with_box(processor, top, bottom, left, right, sign=1):
        def embed(_, pixels):
            s = pixels.shape[1]
            box = pixels[:, int(top * s) : int(bottom * s), int(left * s) : int(right * s)]
            return sign * box.astype(float).std(axis=(1, 2, 3))[:, None] / 255

        return partial(
            saliency_map,
            dataclasses.replace(model, image_processor=processor),
            text="words",
            text_encoder=lambda *_: np.ones((1, 1)),
            pixel_encoder=embed,
        )

    return with_box


def share_inside(saliency, top, bottom, left, right):
    h, w = saliency.shape
    return saliency[int(top * h) : int(bottom * h), int(left * w) : int(right * w)].sum() / saliency.sum()


@pytest.mark.parametrize("box", [(0, 0.25, 0, 0.25), (0.5, 0.75, 0.25, 0.5), (0.75, 1, 0.75, 1)])
def test_it_points_at_what_the_vector_is_made_of(looking_at, box):
    saliency = looking_at(SQUEEZED, *box)(image_bytes(NOISE, "PNG"))
    assert saliency.shape == (128, 192) and saliency.dtype == np.float32
    y, x = np.unravel_index(saliency.argmax(), saliency.shape)
    assert box[0] <= y / 128 <= box[1] and box[2] <= x / 192 <= box[3]
    assert share_inside(saliency, *box) > 4 * (1 / 16)


def test_what_speaks_against_the_text_is_negative(looking_at):
    saliency = looking_at(SQUEEZED, 0, 0.5, 0, 0.5, sign=-1)(image_bytes(NOISE, "PNG"))
    assert saliency.max() <= 0 and saliency.min() < -0.01


def test_what_the_crop_cuts_off_has_none(looking_at):
    saliency = looking_at(CROPPED, 0, 1, 0, 1)(image_bytes(NOISE, "PNG"))
    # 32 of 192 columns on each side are cut off
    assert (saliency[:, :30] == 0).all() and (saliency[:, -30:] == 0).all()
    assert (saliency[:, 34:-34] > 0).all()


@pytest.mark.parametrize("level", [0, 90, 255])
def test_an_equal_image_is_flat(model, level):
    image = image_bytes(Image.new("L", (96, 80), level), "PNG")
    saliency = saliency_map(model, image, "CT of the chest")
    assert np.abs(saliency).max() < MIN_CHANGE
    shown = np.asarray(overlay_saliency(decode(image), saliency))
    assert (shown == level).all()  # rounding is not colored


def test_it_is_what_the_cosine_loses(model, monkeypatch):
    """One flat spot over the whole image: the map is the difference of two plain cosines."""
    monkeypatch.setattr(saliency_module, "SPOTS_PER_SIDE", 1)
    monkeypatch.setattr(saliency_module, "SPOT_WIDTH", 50)
    image = image_bytes(draw_image(7, (64, 64)), "PNG")
    saliency = saliency_map(model, image, "CT of the chest")
    assert np.ptp(saliency) < 1e-6
    pixels = Image.fromarray(preprocess(decode(image), model.image_processor))
    blurred = pixels.filter(ImageFilter.GaussianBlur(50 * pixels.width))
    before, after = (
        embed_images(model, [image, image_bytes(blurred, "PNG")]) @ embed_texts(model, ["CT of the chest"])[0]
    )
    assert abs(before - after) > 1e-4
    assert saliency.mean() == pytest.approx(before - after, abs=2e-6)


def test_every_pixel_weighs_alike(model):
    """A checkerboard and a cosine that is its contrast anywhere: the same saliency everywhere."""
    checkers = Image.fromarray(np.uint8(255 * (np.indices((64, 64)).sum(axis=0) % 2)))
    saliency = saliency_map(
        dataclasses.replace(model, image_processor=SQUEEZED),
        image_bytes(checkers, "PNG"),
        "words",
        text_encoder=lambda *_: np.ones((1, 1)),
        pixel_encoder=lambda _, x: np.abs(x / 255 - 0.5).mean(axis=(1, 2, 3))[:, None],
    )
    assert saliency[16:48, 16:48].std() / saliency.mean() < 0.02
    assert saliency.min() > 0.5 * saliency.max()  # in a corner, where spots lie half outside


@pytest.mark.parametrize("processor", [SQUEEZED, CROPPED, PADDED], ids=["squeezed", "cropped", "padded"])
@given(st.integers(40, 150), st.integers(40, 150))
def test_a_map_lies_where_its_pixels_came_from(processor, width, height):
    ramp = np.add.outer(np.linspace(0, 127, height), np.linspace(0, 127, width))
    image = image_bytes(Image.fromarray(np.rint(ramp).astype(np.uint8)), "PNG")
    back = map_to_image(preprocess(decode(image), processor)[..., 0].astype(np.float32), (width, height), processor)
    assert back.shape == (height, width)
    near = np.abs(back - ramp)
    assert np.median(near[back > 0]) < 4  # grey levels of 254; a shift by a tenth of the side would be 12


def test_color_follows_sign_and_strength():
    saliency = np.zeros((20, 30), np.float32)
    saliency[:5], saliency[-5:] = 0.1, -0.2
    shown = np.asarray(overlay_saliency(Image.new("L", (30, 20), 100), saliency)).astype(int)
    assert (shown[5:15] == 100).all()
    assert shown[0, 0, 0] > shown[0, 0, 2] and shown[-1, 0, 2] > shown[-1, 0, 0]
    assert np.abs(shown[-1] - 100).sum() > np.abs(shown[0] - 100).sum()


def test_an_unreadable_image_and_no_text_are_refused(model, tmp_path):
    with pytest.raises(UserError, match=r"x\.png: image missing"):
        saliency_map(model, tmp_path / "x.png", "words")
    with pytest.raises(UserError, match="the image: image unreadable"):
        saliency_map(model, b"no image", "words")
    with pytest.raises(UserError, match="the text is empty"):
        saliency_map(model, image_bytes(NOISE), "  ")

"""Relevance lies where the vectors come from, in the frame of the image, and nowhere in an image without detail."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medclip import saliency as module
from medclip.data.images import decode
from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.model.image_processor import map_to_image, preprocess
from medclip.saliency import NOTHING, drawn_over, saliency_map
from support.material import drawn, encoded

SQUEEZED = {"size": {"height": 64, "width": 64}, "do_center_crop": False}
CROPPED = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}, "do_center_crop": True}
PADDED = {"do_resize": False, "crop_size": {"height": 200, "width": 200}, "do_center_crop": True}
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 192), dtype=np.uint8))


@pytest.fixture
def looks_at(model, monkeypatch):
    """A model whose cosine is the contrast inside one box (top, bottom, left, right) of its square, as shares."""

    def with_box(preprocessor, top, bottom, left, right, sign=1):
        def embed(_, pixels):
            s = pixels.shape[1]
            seen = pixels[:, int(top * s) : int(bottom * s), int(left * s) : int(right * s)]
            return sign * seen.astype(float).std(axis=(1, 2, 3))[:, None] / 255

        monkeypatch.setattr(module, "embed_pixels", embed)
        monkeypatch.setattr(module, "embed_texts", lambda *_: np.ones((1, 1)))
        return dataclasses.replace(model, preprocessor=preprocessor)

    return with_box


def share_inside(found, top, bottom, left, right):
    h, w = found.shape
    return found[int(top * h) : int(bottom * h), int(left * w) : int(right * w)].sum() / found.sum()


@pytest.mark.parametrize("box", [(0, 0.25, 0, 0.25), (0.5, 0.75, 0.25, 0.5), (0.75, 1, 0.75, 1)])
def test_it_points_at_what_the_vector_is_made_of(looks_at, box):
    found = saliency_map(looks_at(SQUEEZED, *box), encoded(NOISE, "PNG"), "words")
    assert found.shape == (128, 192) and found.dtype == np.float32
    y, x = np.unravel_index(found.argmax(), found.shape)
    assert box[0] <= y / 128 <= box[1] and box[2] <= x / 192 <= box[3]
    assert share_inside(found, *box) > 4 * (1 / 16)


def test_what_speaks_against_the_text_is_negative(looks_at):
    found = saliency_map(looks_at(SQUEEZED, 0, 0.5, 0, 0.5, sign=-1), encoded(NOISE, "PNG"), "words")
    assert found.max() <= 0 and found.min() < -0.01


def test_what_the_crop_cuts_off_has_none(looks_at):
    found = saliency_map(looks_at(CROPPED, 0, 1, 0, 1), encoded(NOISE, "PNG"), "words")
    assert (found[:, :30] == 0).all() and (found[:, -30:] == 0).all()  # 32 of 192 columns on each side are cut off
    assert (found[:, 34:-34] > 0).all()


@pytest.mark.parametrize("level", [0, 90, 255])
def test_an_equal_picture_is_flat(model, level):
    picture = encoded(Image.new("L", (96, 80), level), "PNG")
    found = saliency_map(model, picture, "CT of the chest")
    assert np.abs(found).max() < NOTHING
    shown = np.asarray(drawn_over(decode(picture), found))
    assert (shown == level).all()  # rounding is not colored


def test_it_is_what_the_cosine_loses(model):
    """One spot over the whole image: the map is the difference of two plain cosines."""
    picture = encoded(drawn(7, (64, 64)), "PNG")
    text = embed_texts(model, ["CT of the chest"])[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_spots", lambda side: np.ones((1, side, side), np.float32))
        found = saliency_map(model, picture, "CT of the chest")
        assert np.ptp(found) < 1e-6
    pixels = Image.fromarray(preprocess(decode(picture), model.preprocessor))
    blurred = pixels.filter(module.ImageFilter.GaussianBlur(module.WIDTH * pixels.width / module.SPOTS))
    whole, less = embed_images(model, [picture, encoded(blurred, "PNG")]) @ text
    assert found.mean() == pytest.approx(whole - less, abs=2e-6)


def test_spots_cover_everything_alike():
    total = module._spots(64).sum(axis=0)
    assert total[16:48, 16:48].std() / total.mean() < 0.02  # but for the border, which fewer spots reach
    assert total.min() > 0.25 * total.max()  # in a corner, which has spots on one of four sides


@pytest.mark.parametrize("preprocessor", [SQUEEZED, CROPPED, PADDED], ids=["squeezed", "cropped", "padded"])
@given(st.integers(40, 150), st.integers(40, 150))
def test_a_square_is_laid_back_where_it_was_taken_from(preprocessor, width, height):
    ramp = np.add.outer(np.linspace(0, 127, height), np.linspace(0, 127, width))
    picture = encoded(Image.fromarray(np.rint(ramp).astype(np.uint8)), "PNG")
    back = map_to_image(
        preprocess(decode(picture), preprocessor)[..., 0].astype(np.float32), (width, height), preprocessor
    )
    assert back.shape == (height, width)
    near = np.abs(back - ramp)
    assert np.median(near[back > 0]) < 4  # grey levels of 254; a shift by a tenth of the side would be 12


def test_color_follows_sign_and_strength():
    found = np.zeros((20, 30), np.float32)
    found[:5], found[-5:] = 0.1, -0.2
    shown = np.asarray(drawn_over(Image.new("L", (30, 20), 100), found)).astype(int)
    assert (shown[5:15] == 100).all()
    assert shown[0, 0, 0] > shown[0, 0, 2] and shown[-1, 0, 2] > shown[-1, 0, 0]
    assert np.abs(shown[-1] - 100).sum() > np.abs(shown[0] - 100).sum()


def test_an_unreadable_picture_and_no_text_are_refused(model, tmp_path):
    with pytest.raises(UserError, match=r"x\.png: image missing"):
        saliency_map(model, tmp_path / "x.png", "words")
    with pytest.raises(UserError, match="the image: image unreadable"):
        saliency_map(model, b"no image", "words")
    with pytest.raises(UserError, match="the text is empty"):
        saliency_map(model, encoded(NOISE), "  ")

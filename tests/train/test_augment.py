"""Augmentation changes light and framing, never sides."""

import jax
import numpy as np
import pytest

from medclip.train.augment import augmented
from medclip.train.config import TrainConfig

SIDE, COUNT = 16, 200
RAMP = np.broadcast_to(np.linspace(20, 235, SIDE)[None, :, None], (SIDE, SIDE, 3)).astype(np.uint8)


DEFAULT = TrainConfig()
_compiled = jax.jit(augmented, static_argnames="recipe")


def changed(picture, key=0, **asked):
    """200 changed versions of an image, by the default recipe or with something else asked of it."""
    keys = jax.random.split(jax.random.key(key), COUNT)
    return np.asarray(_compiled(keys, np.broadcast_to(picture, (COUNT, SIDE, SIDE, 3)), recipe=TrainConfig(**asked)))


@pytest.fixture(scope="module")
def many():
    """Versions of an image that brightens from left to right."""
    return changed(RAMP)


def test_left_stays_left(many):
    slopes = np.diff(many.mean(axis=(1, 3)), axis=1)
    assert (slopes > -1e-3).all()  # rounding; clipping at 0 or 255 may flatten an end
    assert (many[:, :, -1].mean(axis=(1, 2)) - many[:, :, 0].mean(axis=(1, 2)) > 50).all()


def test_up_stays_up():
    tall = changed(RAMP.transpose(1, 0, 2))
    assert (tall[:, -1].mean(axis=(1, 2)) - tall[:, 0].mean(axis=(1, 2)) > 50).all()


def test_values_stay_pixels(many):
    assert many.shape == (COUNT, SIDE, SIDE, 3)
    assert np.isfinite(many).all()
    assert many.min() >= 0
    assert many.max() <= 255


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_stay_in_range(level):
    even = changed(np.full(RAMP.shape, level, np.uint8))
    assert np.isfinite(even).all()
    assert even.min() >= 0
    assert even.max() <= 255
    assert np.ptp(even, axis=(1, 2, 3)).max() < 1e-3  # no edge of another color is drawn in


def test_a_crop_keeps_most_of_the_picture(many):
    seen = np.ptp(many.mean(axis=(1, 3)), axis=1) / np.ptp(RAMP.astype(float))
    # The share of the ramp that is left is at least the crop's side times the lowest contrast, 0.8, less a pixel.
    assert seen.min() > DEFAULT.min_crop_scale**0.5 * 0.8 - 1 / SIDE


def test_each_picture_and_each_key_has_its_own_change(many):
    assert len(np.unique(many.reshape(COUNT, -1), axis=0)) == COUNT
    assert np.array_equal(changed(RAMP), many)
    assert not np.array_equal(changed(RAMP, key=1), many)


def test_a_picture_s_change_follows_its_own_key():
    keys = jax.random.split(jax.random.key(0), COUNT)
    pictures = np.broadcast_to(RAMP, (COUNT, SIDE, SIDE, 3))
    half = np.asarray(_compiled(keys[: COUNT // 2], pictures[: COUNT // 2], recipe=DEFAULT))
    np.testing.assert_allclose(half, changed(RAMP)[: COUNT // 2], atol=1e-3)


def test_a_flip_is_asked_for_and_then_half_of_the_pictures():
    slopes = np.diff(changed(RAMP, flip=True).mean(axis=(1, 3)), axis=1).mean(axis=1)
    assert 0.35 < (slopes < 0).mean() < 0.65


def test_a_rotation_turns_about_the_center_within_its_bounds():
    spot = np.zeros((SIDE, SIDE, 3), np.uint8)
    spot[2:4, 7:9] = 255  # above the center
    turned = changed(spot, rotation=20.0, min_crop_scale=1.0).mean(axis=3)
    y, x = np.meshgrid(*[np.arange(SIDE) - (SIDE - 1) / 2] * 2, indexing="ij")
    light = turned - turned.min(axis=(1, 2), keepdims=True)
    weight = light.sum(axis=(1, 2))
    angles = np.degrees(np.arctan2((light * x).sum(axis=(1, 2)) / weight, -(light * y).sum(axis=(1, 2)) / weight))
    assert 15 < np.abs(angles).max() < 21
    assert (angles > 5).any()
    assert (angles < -5).any()

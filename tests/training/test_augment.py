"""Augmentation changes light and framing, never sides; each setting does what it says and 0 does nothing."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from medclip.training.config import TrainConfig, resolve
from medclip.training.step import augment

SIDE, COUNT = 16, 200
RAMP = np.broadcast_to(np.linspace(20, 235, SIDE)[None, :, None], (SIDE, SIDE, 3)).astype(np.uint8)
OFF = {"min_crop_scale": 1.0, "rotation": 0.0, "color_jitter": 0.0}
_compiled = jax.jit(augment, static_argnames="config")


def config_of(**settings):
    return resolve(TrainConfig(batch_size=2, **settings), 2)


def augmented_versions(image, key=0, **settings):
    """200 changed versions of an image, by the default config or with other settings."""
    keys = jax.random.split(jax.random.key(key), COUNT)
    return np.asarray(_compiled(keys, np.broadcast_to(image, (COUNT, SIDE, SIDE, 3)), config=config_of(**settings)))


@pytest.fixture(scope="module")
def many():
    """Versions of an image that brightens from left to right."""
    return augmented_versions(RAMP)


def test_left_stays_left(many):
    slopes = np.diff(many.mean(axis=(1, 3)), axis=1)
    assert (slopes > -1e-3).all()  # rounding; clipping at 0 or 255 may flatten an end
    assert (many[:, :, -1].mean(axis=(1, 2)) - many[:, :, 0].mean(axis=(1, 2)) > 50).all()


def test_up_stays_up():
    tall = augmented_versions(RAMP.transpose(1, 0, 2))
    assert (tall[:, -1].mean(axis=(1, 2)) - tall[:, 0].mean(axis=(1, 2)) > 50).all()


def test_values_stay_pixels(many):
    assert many.shape == (COUNT, SIDE, SIDE, 3)
    assert np.isfinite(many).all()
    assert many.min() >= 0
    assert many.max() <= 255


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_stay_in_range(level):
    even = augmented_versions(np.full(RAMP.shape, level, np.uint8))
    assert np.isfinite(even).all()
    assert even.min() >= 0
    assert even.max() <= 255
    assert np.ptp(even, axis=(1, 2, 3)).max() < 1e-3  # no edge of another color is drawn in


def test_a_crop_keeps_most_of_the_image(many):
    fraction = np.ptp(many.mean(axis=(1, 3)), axis=1) / np.ptp(RAMP.astype(float))
    # What is left of the ramp is at least the crop's side times the lowest contrast, less a pixel.
    default = config_of()
    assert fraction.min() > default.min_crop_scale**0.5 * (1 - default.color_jitter) - 1 / SIDE


def test_each_image_and_each_key_has_its_own_change(many):
    assert len(np.unique(many.reshape(COUNT, -1), axis=0)) == COUNT
    assert np.array_equal(augmented_versions(RAMP), many)
    assert not np.array_equal(augmented_versions(RAMP, key=1), many)


def test_an_image_s_change_follows_its_own_key():
    keys = jax.random.split(jax.random.key(0), COUNT)
    images = np.broadcast_to(RAMP, (COUNT, SIDE, SIDE, 3))
    half = np.asarray(_compiled(keys[: COUNT // 2], images[: COUNT // 2], config=config_of()))
    np.testing.assert_allclose(half, augmented_versions(RAMP)[: COUNT // 2], atol=1e-3)


def test_nothing_is_changed_with_everything_off():
    assert np.array_equal(augmented_versions(RAMP, **OFF), np.broadcast_to(RAMP, (COUNT, SIDE, SIDE, 3)))


@pytest.mark.parametrize("jitter", [0.1, 0.4])
def test_color_jitter_is_a_change_of_mean_and_spread_within_its_bounds(jitter):
    values = np.linspace(100, 140, SIDE)  # nothing is clipped
    image = np.broadcast_to(values[None, :, None], (SIDE, SIDE, 3)).astype(np.uint8)
    versions = augmented_versions(image, **OFF | {"color_jitter": jitter})
    brightness = versions.mean(axis=(1, 2, 3)) / image.mean()
    contrast = versions.std(axis=(1, 2, 3)) / image.std()
    for factor in (brightness, contrast):
        assert np.abs(factor - 1).max() == pytest.approx(jitter, rel=0.1)
        assert np.abs(factor - 1).max() <= jitter + 1e-4
    assert abs(np.corrcoef(brightness, contrast)[0, 1]) < 0.2  # each by its own chance


def test_a_rotation_is_that_of_an_independent_library_by_some_angle_within_its_bounds():
    spot = np.zeros((SIDE, SIDE, 3), np.uint8)
    spot[2:4, 7:9] = 255  # above the center
    versions = augmented_versions(spot, **OFF | {"rotation": 20.0}).mean(axis=3)
    y, x = np.meshgrid(*[np.arange(SIDE) - (SIDE - 1) / 2] * 2, indexing="ij")
    weight = versions.sum(axis=(1, 2))
    angles = np.degrees(np.arctan2((versions * x).sum(axis=(1, 2)) / weight, -(versions * y).sum(axis=(1, 2)) / weight))
    assert 15 < np.abs(angles).max() < 21
    assert (angles > 5).any()
    assert (angles < -5).any()
    candidates = np.linspace(-20, 20, 81)
    turned = [ndimage.rotate(spot[..., 0].astype(float), -a, reshape=False, order=1) for a in candidates]
    for version, angle in zip(versions[:20], angles[:20], strict=True):
        errors = [np.abs(version - reference).max() for reference in turned]
        assert min(errors) < 6  # of 255: a quarter of a degree between two candidates
        assert candidates[int(np.argmin(errors))] == pytest.approx(angle, abs=2)

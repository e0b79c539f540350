"""The order of training is a function of (seed, step), and decoded pixels are cached by what they are."""

import shutil

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medclip.data.batches import fitted_pixels, rows_at
from medclip.data.images import fit
from medclip.data.shards import Split
from medclip.model.presets import preset_preprocessor


@st.composite
def sizes(draw):
    n = draw(st.integers(1, 60))
    return n, draw(st.integers(1, n))


@given(sizes(), st.integers(0, 5), st.integers(0, 4))
def test_an_epoch_sees_no_row_twice_and_leaves_out_less_than_a_batch(size, seed, epoch):
    n, batch = size
    steps = n // batch
    seen = np.concatenate([rows_at(n, batch, seed, epoch * steps + i) for i in range(steps)])
    assert len(set(seen)) == len(seen) == steps * batch
    assert n - len(seen) < batch
    assert set(seen) <= set(range(n))


@given(sizes(), st.integers(0, 5), st.lists(st.integers(0, 100), min_size=2, max_size=6))
def test_a_step_has_its_rows_whatever_was_asked_before(size, seed, steps):
    forth = {step: rows_at(*size, seed, step).tolist() for step in steps}
    back = {step: rows_at(*size, seed, step).tolist() for step in reversed(steps)}
    assert forth == back


def test_seeds_and_epochs_have_their_own_order():
    orders = [tuple(rows_at(50, 50, seed, epoch)) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == len(orders)


def test_no_row_is_left_out_for_ever():
    seen = {row for step in range(60) for row in rows_at(10, 7, 0, step)}
    assert seen == set(range(10))


def test_cached_pixels_are_the_fitted_pictures(data):
    split, preprocessor = Split(data, "validation"), preset_preprocessor(32)
    pixels = fitted_pixels(split, preprocessor)
    assert pixels.shape == (12, 32, 32, 3)
    for row in range(len(split)):
        assert np.array_equal(pixels[row], fit(split.image(row), preprocessor))


def test_the_cache_is_read_again_and_never_mistaken(data, copy):
    folder, small = copy(data), preset_preprocessor(16)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    split = Split(folder, "validation")
    first = fitted_pixels(split, small)
    (made,) = (folder / "cache").iterdir()
    when = made.stat().st_mtime_ns
    assert np.array_equal(fitted_pixels(split, small), first)
    assert made.stat().st_mtime_ns == when
    assert fitted_pixels(Split(folder, "validation", 5), small).shape == (5, 16, 16, 3)
    assert fitted_pixels(split, preset_preprocessor(24)).shape == (12, 24, 24, 3)

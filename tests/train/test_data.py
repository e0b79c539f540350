"""The order of training is a function of (seed, step); pixels are the same decoded once or when asked for."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.data.dataset import Split
from medclip.encode.decode import decode_pixels
from medclip.errors import WorkError
from medclip.model.image_processor import square_preprocessor
from medclip.train.data import Pictures, cached, rows_at


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


def test_the_order_of_past_runs_is_kept_and_cannot_be_written_to():
    rows = rows_at(1000, 3, 5, 333 * 2 + 1)
    assert rows.tolist() == np.random.default_rng((5, 2)).permutation(1000)[3:6].tolist()
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 1


def test_an_epoch_is_drawn_once(monkeypatch):
    drawn, make = [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: drawn.append(seed) or make(seed))
    for step in range(30):
        rows_at(101, 10, 3, step)
    assert drawn == [(3, 0), (3, 1), (3, 2)]


def test_pixels_are_the_fitted_pictures_decoded_once_or_when_asked_for(data):
    split, preprocessor = Split(data, "validation"), square_preprocessor(32)
    pictures = Pictures(split, preprocessor)
    kept = cached(pictures)
    assert kept.shape == pictures.shape == (12, 32, 32, 3)
    assert (kept.dtype, len(pictures)) == (np.uint8, 12)
    for row in range(len(split)):
        assert np.array_equal(kept[row], decode_pixels(split.image(row), preprocessor))
    for rows in (np.array([[7, 0], [3, 7]]), np.array([11]), slice(2, 9), slice(5, 100), slice(None), np.arange(0)):
        assert np.array_equal(pictures[rows], kept[rows])


def test_a_damaged_picture_is_named_by_its_pair(data, copy):
    folder = copy(data)
    path = folder / "validation-00000.arrow"
    picture = Split(folder, "validation").image(4)
    path.write_bytes(path.read_bytes().replace(picture, bytes(len(picture))))
    pictures = Pictures(Split(folder, "validation"), square_preprocessor(16))
    assert pictures[np.arange(4)].shape == (4, 16, 16, 3)
    with pytest.raises(WorkError, match=r"the image of ROCO_00004 in split 'validation' of .* \(image unreadable\)"):
        pictures[:]


def test_the_cache_is_read_again_and_never_mistaken(data, copy):
    folder, small = copy(data), square_preprocessor(16)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    split = Split(folder, "validation")
    first = cached(Pictures(split, small))
    (made,) = (folder / "cache").iterdir()
    when = made.stat().st_mtime_ns
    assert np.array_equal(cached(Pictures(split, small)), first)
    assert made.stat().st_mtime_ns == when
    assert cached(Pictures(Split(folder, "validation", 5), small)).shape == (5, 16, 16, 3)
    assert cached(Pictures(split, square_preprocessor(24))).shape == (12, 24, 24, 3)

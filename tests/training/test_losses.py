"""The contrastive loss is the formula of the paper, over the whole batch."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.training.losses import Foils
from support.compiled import contrastive_loss, duplicate_aware_mask, sigmoid_loss

CLOSE = 1e-5  # float32 sums of a few dozen terms against float64


def unit_rows(seed, b, p=8):
    rows = np.random.default_rng(seed).standard_normal((b, p))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def logit_scale_params(scale):
    return {"logit_scale": np.float32(scale)}


def all_candidates(b):
    return np.ones((b, b), bool)


def by_hand(images, texts, scale, mask, foils=None):
    """The loss as two loops over every pair, in float64; an image's own foils are candidates for it alone."""
    b, total = len(images), 0.0
    for i in range(b):
        to_text = {j: np.exp(scale) * images[i] @ texts[j] for j in range(b) if mask[i][j]}
        to_image = {j: np.exp(scale) * images[j] @ texts[i] for j in range(b) if mask[j][i]}
        if foils:
            own = np.asarray(foils.texts[i], np.float64)[np.asarray(foils.mask[i])]
            to_text |= {("foil", k): np.exp(scale) * images[i] @ text for k, text in enumerate(own)}
        for scores in (to_text, to_image):
            chance = np.log(sum(np.exp(score) for score in scores.values()))
            total -= scores[i] - chance
    return total / (2 * b)


def assert_by_hand(images, texts, scale, mask, foils=None):
    params = logit_scale_params(scale)
    value = float(contrastive_loss(np.float32(images), np.float32(texts), params, mask, foils))
    expected = by_hand(images, texts, scale, np.asarray(mask), foils)
    assert value == pytest.approx(expected, rel=CLOSE, abs=CLOSE * np.exp(scale))


def random_foils(seed, b, k):
    mask = np.random.default_rng(seed).random((b, k)) < 0.6
    return Foils(np.float32(unit_rows(seed + 2000, b * k).reshape(b, k, -1)), mask)


@given(st.sampled_from([(1, 0), (1, 3), (3, 2), (8, 0), (8, 3)]), st.floats(0, np.log(100)), st.integers(0, 100))
def test_the_loss_equals_two_loops(shape, scale, seed):
    b, k = shape
    images, texts = unit_rows(seed, b), unit_rows(seed + 1000, b)
    assert_by_hand(images, texts, scale, all_candidates(b), random_foils(seed, b, k) if k else None)


def test_a_foil_is_a_candidate_of_its_own_image_alone():
    """Two images along x and y, each with its own caption; the first has one foil, which lies along y."""
    images = texts = np.eye(2, dtype=np.float32)
    foils = Foils(np.float32([[[0.0, 1.0]], [[1.0, 0.0]]]), np.array([[True], [False]]))
    e = np.exp(1)  # the logit of an own caption is 1, that of any other one and of the foil 0
    first, second, to_image = np.log(e / (e + 2)), np.log(e / (e + 1)), 2 * np.log(e / (e + 1))
    value = contrastive_loss(images, texts, logit_scale_params(0.0), all_candidates(2), foils)
    assert float(value) == pytest.approx(-(first + second + to_image) / 4, rel=CLOSE)
    params = logit_scale_params(0.0) | {"logit_bias": np.float32(0)}
    own, other = np.log1p(np.exp(-1)), np.log(2)
    value = sigmoid_loss(images, texts, params, all_candidates(2), foils)
    assert float(value) == pytest.approx((2 * own + 2 * other + other) / 2, rel=CLOSE)


NUMBERS = st.lists(st.integers(0, 3), min_size=5, max_size=5)


@given(NUMBERS, NUMBERS, st.integers(0, 100))
def test_repetitions_and_absent_foils_are_no_negatives(image, captions, seed):
    mask = np.asarray(duplicate_aware_mask(np.array(image), np.array(captions)))
    for i in range(5):
        for j in range(5):
            repeated = captions[j] == captions[i] or image[j] == image[i]
            assert mask[i, j] == (i == j or not repeated)
    assert_by_hand(unit_rows(seed, 5), unit_rows(seed + 1000, 5), 2.0, mask, random_foils(seed, 5, 3))


@pytest.mark.slow
def test_a_repeated_pair_pulls_on_nothing():
    """With every caption the same there is nothing to tell apart: no loss and no gradient."""
    images, texts = np.float32(unit_rows(0, 4)), np.float32(unit_rows(1, 4))
    mask = duplicate_aware_mask(np.arange(4), np.zeros(4, int))
    value, gradient = jax.jit(jax.value_and_grad(contrastive_loss, (0, 1, 2)))(
        images, texts, logit_scale_params(2.0), mask
    )
    assert float(value) == pytest.approx(0, abs=CLOSE)
    assert all(np.abs(g).max() < CLOSE for g in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_gradients_are_finite_where_nothing_counts_and_scales_are_large():
    images, texts = np.float32(unit_rows(0, 6)), np.float32(unit_rows(1, 6))
    mask = duplicate_aware_mask(np.array([0, 0, 1, 2, 3, 4]), np.array([0, 1, 1, 2, 3, 4]))
    foils = Foils(random_foils(0, 6, 2).texts, np.array([[True, False], [False, False]] * 3))
    for loss, params in (
        (contrastive_loss, logit_scale_params(np.log(100))),
        (sigmoid_loss, logit_scale_params(np.log(100)) | {"logit_bias": np.float32(-10)}),
    ):

        def with_foils(images, texts, params, foil_texts, loss=loss):
            return loss(images, texts, params, mask, foils._replace(texts=foil_texts))

        gradient = jax.jit(jax.grad(with_foils, (0, 1, 2, 3)))(images, texts, params, foils.texts)
        assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize("b", [2, 8, 128])
def test_chance_is_the_logarithm_of_the_whole_batch(b):
    same = np.full((b, 4), 0.5, np.float32)
    assert float(contrastive_loss(same, same, logit_scale_params(2.66), all_candidates(b))) == pytest.approx(
        np.log(b), rel=CLOSE
    )


def test_pairs_shuffled_against_each_other_raise_the_loss():
    images = np.float32(unit_rows(0, 16))
    texts = np.float32(images + 0.1 * unit_rows(1, 16))

    def loss(x, y):
        return float(contrastive_loss(x, y, logit_scale_params(2.66), all_candidates(16)))

    matched = loss(images, texts)
    for shift in range(1, 16):
        assert loss(images, np.roll(texts, shift, axis=0)) > matched + 0.5
    order = np.random.default_rng(0).permutation(16)
    assert loss(images[order], texts[order]) == pytest.approx(matched, rel=CLOSE)
    assert loss(texts, images) == pytest.approx(matched, rel=CLOSE)


@given(st.sampled_from([0, 3]), st.integers(0, 100))
def test_the_sigmoid_loss_equals_two_loops(k, seed):
    images, texts, foils = unit_rows(seed, 4), unit_rows(seed + 1000, 4), random_foils(seed, 4, k) if k else None
    params = {"logit_scale": np.full(1, 2.0, np.float32), "logit_bias": np.full(1, -3.0, np.float32)}
    mask = np.asarray(duplicate_aware_mask(np.arange(4), np.array([0, 1, 1, 3])))
    total = 0.0
    for i in range(4):
        for j in range(4):
            score = np.exp(2) * images[i] @ texts[j] - 3
            total += np.log1p(np.exp(-score if i == j else score)) if mask[i, j] else 0
        for j in range(k):
            total += np.log1p(np.exp(np.exp(2) * images[i] @ foils.texts[i, j] - 3)) if foils.mask[i, j] else 0
    value = float(sigmoid_loss(np.float32(images), np.float32(texts), params, mask, foils))
    assert value == pytest.approx(total / 4, rel=CLOSE)

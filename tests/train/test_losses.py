"""The contrastive loss is the formula of the paper, over the whole batch."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.train.losses import contrastive, sigmoid

CLOSE = 1e-5  # float32 sums of a few dozen terms against float64


def unit_rows(seed, b, p=8):
    rows = np.random.default_rng(seed).standard_normal((b, p))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def scaled(scale):
    return {"logit_scale": jnp.float32(scale)}


def by_hand(images, texts, scale):
    """The loss as two loops over every pair, in float64; rows of texts beyond the images are candidates for images."""
    b, total = len(images), 0.0
    for i in range(b):
        to_text = [np.exp(scale) * images[i] @ texts[j] for j in range(len(texts))]
        to_image = [np.exp(scale) * images[j] @ texts[i] for j in range(b)]
        for scores in (to_text, to_image):
            total -= scores[i] - np.log(sum(np.exp(score) for score in scores))
    return total / (2 * b)


@given(st.sampled_from([1, 3, 8]), st.floats(0, np.log(100)), st.integers(0, 100))
def test_the_loss_equals_two_loops(b, scale, seed):
    images, texts = unit_rows(seed, b), unit_rows(seed + 1000, b)
    found = float(contrastive(jnp.float32(images), jnp.float32(texts), scaled(scale)))
    assert found == pytest.approx(by_hand(images, texts, scale), rel=CLOSE, abs=CLOSE * np.exp(scale))


@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 100))
def test_wrong_captions_are_candidates_for_the_pictures_alone(wrong, padding, seed):
    images, texts = unit_rows(seed, 4), unit_rows(seed + 1000, 4 + wrong)
    padded = jnp.float32(np.concatenate([texts, np.repeat(images[:1], padding, axis=0)]))
    real = jnp.arange(len(padded)) < len(texts)
    found = float(contrastive(jnp.float32(images), padded, scaled(2.0), real))
    assert found == pytest.approx(by_hand(images, texts, 2.0), rel=CLOSE, abs=CLOSE * np.exp(2.0))


@pytest.mark.parametrize("b", [2, 8, 128])
def test_chance_is_the_logarithm_of_the_whole_batch(b):
    same = jnp.ones((b, 4)) / 2
    assert float(contrastive(same, same, scaled(2.66))) == pytest.approx(np.log(b), rel=CLOSE)


def test_pairs_shuffled_against_each_other_raise_the_loss():
    images = jnp.float32(unit_rows(0, 16))
    texts = jnp.float32(images + 0.1 * unit_rows(1, 16))
    matched = float(contrastive(images, texts, scaled(2.66)))
    for shift in range(1, 16):
        assert float(contrastive(images, jnp.roll(texts, shift, axis=0), scaled(2.66))) > matched + 0.5
    order = np.random.default_rng(0).permutation(16)
    together = float(contrastive(images[order], texts[order], scaled(2.66)))
    assert together == pytest.approx(matched, rel=CLOSE)


def test_images_and_texts_are_treated_alike():
    images, texts = jnp.float32(unit_rows(0, 6)), jnp.float32(unit_rows(1, 6))
    forth, back = (float(contrastive(*pair, scaled(2.0))) for pair in ((images, texts), (texts, images)))
    assert forth == pytest.approx(back, rel=CLOSE)


@given(st.integers(0, 3), st.integers(0, 100))
def test_the_sigmoid_loss_equals_two_loops(wrong, seed):
    images, texts = unit_rows(seed, 4), unit_rows(seed + 1000, 4 + wrong)
    params = {"logit_scale": jnp.full(1, 2.0), "logit_bias": jnp.full(1, -3.0)}
    total = 0.0
    for i in range(4):
        for j in range(4 + wrong):
            score = np.exp(2) * images[i] @ texts[j] - 3
            total += np.log1p(np.exp(-score if i == j else score))
    padded, real = jnp.float32(np.concatenate([texts, images[:1]])), jnp.arange(5 + wrong) < 4 + wrong
    assert float(sigmoid(jnp.float32(images), padded, params, real)) == pytest.approx(total / 4, rel=CLOSE)

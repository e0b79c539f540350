"""Ranks and the nearest others are what float64 counts, ties and bad values included, and take little memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medclip.dot_products import TIE_TOLERANCE, nearest_others, rank_both
from medclip.metrics import ranks, recall_at_k
from support.handmade_results import RANKS_EXAMPLE, by_hand


@st.composite
def matrices(draw):
    """Images and texts of small whole numbers: their products are exact in float32, and often tie."""
    n, p = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    values = st.lists(st.integers(-2, 2), min_size=n * p, max_size=n * p)
    return tuple(np.array(draw(values), np.float32).reshape(n, p) for _ in range(2))


@st.composite
def several(draw):
    """Images with one to four captions each, some of which belong to other images too."""
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    n, p = sum(counts), draw(st.integers(1, 3))
    pairs = [(image, text) for text, image in enumerate(np.repeat(np.arange(len(counts)), counts))]
    pairs += draw(st.lists(st.tuples(st.integers(0, len(counts) - 1), st.integers(0, n - 1)), max_size=4))
    images, texts = (draw(st.lists(st.integers(-2, 2), min_size=m * p, max_size=m * p)) for m in (len(counts), n))
    return np.reshape(images, (-1, p)), np.reshape(texts, (-1, p)), np.array(pairs)


@given(matrices())
def test_ranks_equal_a_count_by_hand(pair):
    images, texts = pair
    for own, queries, candidates in zip(ranks(*pair), (images, texts), (texts, images), strict=True):
        for i, rank in enumerate(own):
            scores = [float(np.dot(queries[i], candidate)) for candidate in candidates]
            better = sum(score > scores[i] for score in scores)
            tied = sum(score == scores[i] for j, score in enumerate(scores) if j != i)
            assert rank == 1 + better + tied


@given(several())
def test_of_several_captions_the_best_counts_and_the_others_do_not_stand_before_it(case):
    images, texts, pairs = case
    to_text, to_image = ranks(images, texts, pairs)
    for i, image in enumerate(images):
        assert to_text[i] == by_hand(image, texts, {t for p, t in pairs if p == i})
    for t, text in enumerate(texts):
        assert to_image[t] == by_hand(text, images, {p for p, own in pairs if own == t})


def test_the_example_of_the_docstring():
    both = ranks(*RANKS_EXAMPLE)
    assert [own.tolist() for own in both] == [[2, 3], [2, 1, 2]]
    assert [recall_at_k(own, 1) for own in both] == [0, pytest.approx(1 / 3)]


def test_recall_of_images_is_that_of_at_least_one_of_their_captions():
    rng = np.random.default_rng(0)
    images, texts = rng.standard_normal((40, 4)), rng.standard_normal((200, 4))  # five captions an image, as in COCO
    pairs = np.stack([np.repeat(np.arange(40), 5), np.arange(200)], axis=1)
    to_text, to_image = ranks(images, texts, pairs)
    for k in (1, 5, 10):
        first = np.argsort(-(images @ texts.T), axis=1)[:, :k] // 5
        assert recall_at_k(to_text, k) == np.mean([i in first[i] for i in range(40)])
        first = np.argsort(-(texts @ images.T), axis=1)[:, :k]
        assert recall_at_k(to_image, k) == np.mean([t // 5 in first[t] for t in range(200)])


@given(several(), st.sampled_from([(1, 1), (2, 3), (512, 2048)]), st.sampled_from([0, 1]), st.data())
def test_one_pass_ranks_counts_the_group_and_finds_the_nearest_wherever_it_is_cut(case, tile, max_open, data):
    images, texts, own = case
    is_own, scores = np.zeros((len(images), len(texts)), bool), images @ texts.T
    is_own[own[:, 0], own[:, 1]] = True
    groups = [np.array(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))) for n in scores.shape]
    same = groups[0][:, None] == groups[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medclip.dot_products.TILE", tile)
        patch.setattr("medclip.dot_products.MAX_OPEN_SHARE", max_open)
        patch.setattr("medclip.dot_products.MAX_UNDECIDED", data.draw(st.integers(0, 3)))
        both = rank_both(images, texts, own, (groups[0], groups[1]))
        others = nearest_others(texts)
    sides = zip(both, (scores, scores.T), (is_own, is_own.T), (same, same.T), strict=True)
    for ranking, of_side, own_here, same_here in sides:
        best, wrong = np.where(own_here, of_side, -np.inf).max(axis=1), np.where(own_here, -np.inf, of_side)
        ahead = wrong >= best[:, None]
        assert np.array_equal(ranking.own_scores, best)
        assert np.array_equal(ranking.num_ahead, ahead.sum(axis=1))
        assert np.array_equal(ranking.num_ahead_in_group, (ahead & same_here).sum(axis=1))
        assert np.array_equal(ranking.nearest.candidates, wrong.argmax(axis=1))
        assert np.array_equal(ranking.nearest.scores, wrong.max(axis=1))
    to_others = np.where(np.eye(len(texts), dtype=bool), -np.inf, texts @ texts.T)
    assert np.array_equal(others.candidates, to_others.argmax(axis=1))
    assert np.array_equal(others.scores, to_others.max(axis=1))


@pytest.mark.parametrize("spread", [1, 1e-6])
def test_what_float32_cannot_tell_is_decided_in_float64(spread):
    """Every caption has a twin that differs by 1e-8; few of the scores lie that near to each other, or nearly all."""
    rng = np.random.default_rng(0)
    texts = np.ones(32) + spread * rng.standard_normal((600, 32))
    texts[300:] = texts[:300] + 1e-8 * rng.standard_normal((300, 32))
    images = texts + spread * rng.standard_normal((600, 32))
    counts = []
    for scores in (images @ texts.T, images.astype(np.float32) @ texts.astype(np.float32).T):
        own = np.diagonal(scores) - TIE_TOLERANCE
        counts.append([(scores >= own[:, None]).sum(axis=1), (scores >= own).sum(axis=0)])
    assert np.array_equal(ranks(images, texts), counts[0])
    assert not np.array_equal(*counts)
    scores = images @ texts.T
    np.fill_diagonal(scores, -np.inf)
    for ranking, own in zip(rank_both(images, texts, np.argwhere(np.eye(600))), (scores, scores.T), strict=True):
        assert np.array_equal(ranking.nearest.candidates, own.argmax(axis=1))
        np.testing.assert_allclose(ranking.nearest.scores, own.max(axis=1), rtol=1e-14)
    scores = texts @ texts.T
    np.fill_diagonal(scores, -np.inf)
    assert np.array_equal(nearest_others(texts).candidates, scores.argmax(axis=1))


def test_a_perfect_model_has_rank_one_everywhere_and_a_reversed_one_the_last():
    assert (np.array(ranks(np.eye(20), np.eye(20))) == 1).all()
    assert (np.array(ranks(1e200 * np.eye(20), np.eye(20))) == 1).all()  # beyond float32
    assert (np.array(ranks(np.eye(20), -np.eye(20))) == 20).all()


def test_a_collapsed_model_gains_nothing():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((1, 128)).astype(np.float32)
    for n in range(2, 70):  # every width that the kernels' edges may see
        others, same = rng.standard_normal((n, 128)).astype(np.float32), np.repeat(one, n, axis=0)
        assert (ranks(others, same)[0] == n).all()
        assert (ranks(same, others)[1] == n).all()


def test_memory_grows_with_the_pool_and_not_its_square(monkeypatch):
    monkeypatch.setattr("medclip.dot_products.TILE", (128, 256))
    images, texts = np.random.default_rng(0).standard_normal((2, 2000, 8)).astype(np.float32)
    tracemalloc.start()
    ranks(images, texts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6  # all scores at once would be 32 MB, and what they are compared to 4 MB


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_what_is_not_finite_is_refused(bad, side):
    both = [np.eye(3), np.eye(3)]
    both[side][1, 2] = bad
    with pytest.raises(ValueError, match="not finite"):
        ranks(*both)


@pytest.mark.parametrize(
    ("texts", "pairs", "result"),
    [
        (np.eye(3)[:2], None, "do not pair up"),
        (np.eye(4), [[0, 0]], "do not pair up"),
        (np.eye(3), [[0, 0], [1, 1], [1, 2]], "belongs to nothing"),
        (np.eye(3), [[0, 0], [1, 1], [2, 1]], "belongs to nothing"),
    ],
)
def test_what_does_not_pair_up_is_refused(texts, pairs, result):
    with pytest.raises(ValueError, match=result):
        ranks(np.eye(3), texts, None if pairs is None else np.array(pairs))

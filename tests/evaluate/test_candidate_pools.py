"""Other pools, against brute force and exact expectation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from medclip.evaluate.candidate_pools import article_disjoint, duplicate_aware, fixed_pools, over_draws
from medclip.metrics import rank_metrics, ranks
from support.handmade_results import by_hand


@st.composite
def labeled(draw):
    """Pairs of small whole numbers with an article, an image and a caption each; equal names have equal vectors."""
    n, p = draw(st.integers(1, 10)), draw(st.integers(1, 3))
    names = {what: draw(st.lists(st.sampled_from("abcde"), min_size=n, max_size=n)) for what in ("article", "i", "t")}
    values = {
        what: {name: draw(st.lists(st.integers(-2, 2), min_size=p, max_size=p)) for name in "abcde"} for what in "it"
    }
    images, texts = (np.array([values[what][name] for name in names[what]]) for what in "it")
    return images, texts, names["article"], names["i"], names["t"]


@given(labeled())
def test_neighbors_of_the_query_s_article_do_not_count(case):
    images, texts, articles, *_ = case
    apart, pool = article_disjoint(ranks(images, texts), images, texts, articles)
    for found, queries, candidates in zip(apart, (images, texts), (texts, images), strict=True):
        for i, query in enumerate(queries):
            left = [j for j in range(len(queries)) if j == i or articles[j] != articles[i]]
            assert found[i] == by_hand(query, candidates[left], {left.index(i)})
            assert pool[i] == len(left)


@given(labeled())
def test_the_same_picture_or_caption_elsewhere_is_as_right(case):
    images, texts, _, pictures, captions = case
    found = duplicate_aware(images, texts, pictures, captions)
    sides = (("image_to_text", pictures, captions, images, texts), ("text_to_image", captions, pictures, texts, images))
    for way, asks, answers, queries, candidates in sides:
        own = found[way]
        distinct = [answers.index(name) for name in dict.fromkeys(answers)]  # the first row of each
        assert sorted(asks[row] for row in own["rows"]) == sorted(set(asks))
        for row, rank, right, pool in zip(*(own[name] for name in ("rows", "ranks", "right", "pool")), strict=True):
            partners = {answers[j] for j in range(len(asks)) if asks[j] == asks[row]}
            good = {place for place, j in enumerate(distinct) if answers[j] in partners}
            assert (right, pool) == (len(good), len(distinct))
            assert rank == by_hand(queries[row], candidates[distinct], good)


def test_without_repetitions_nothing_changes():
    images, texts = np.random.default_rng(0).standard_normal((2, 50, 4))
    names = [f"{i:02}" for i in range(50)]
    for way, full in zip(("image_to_text", "text_to_image"), ranks(images, texts), strict=True):
        assert np.array_equal(duplicate_aware(images, texts, names, names)[way]["ranks"], full)
    assert np.array_equal(article_disjoint(ranks(images, texts), images, texts, names)[0], ranks(images, texts))


def test_a_fixed_pool_gives_what_is_expected_of_all_pools_of_its_size():
    """Of r - 1 better candidates among n - 1, a pool of m has a hypergeometric number among its other m - 1."""
    rng, draws = np.random.default_rng(0), 16
    images = rng.standard_normal((60, 8))
    texts = images + rng.standard_normal((60, 8))
    found = fixed_pools(images, texts, [f"{i}" for i in range(60)], 20, draws, 0)
    for way, full in zip(("image_to_text", "text_to_image"), ranks(images, texts), strict=True):
        for k in (1, 5):
            wanted = hypergeom(59, full - 1, 19).cdf(k - 1).mean()
            said = found[way][f"R@{k}"]
            assert said["value"] == pytest.approx(np.mean(said["draws"]))
            assert said["value"] == pytest.approx(wanted, abs=4 * np.std(said["draws"], ddof=1) / draws**0.5)


def test_a_pool_of_all_pairs_is_the_full_pool_in_every_draw():
    images, texts = np.random.default_rng(0).standard_normal((2, 30, 4))
    found = fixed_pools(images, texts, [f"{i // 2}" for i in range(30)], 30, 3, 0)
    for way, full in zip(("image_to_text", "text_to_image"), ranks(images, texts), strict=True):
        for name, value in rank_metrics(full).items():
            assert found[way][name]["draws"] == [value] * 3
            assert found[way][name]["low"] <= found[way][name]["value"] <= found[way][name]["high"]


def test_draws_differ_and_follow_the_seed():
    images, texts = np.random.default_rng(0).standard_normal((2, 60, 4))
    first, again, other = (fixed_pools(images, texts, list("ab") * 30, 20, 3, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first["image_to_text"]["mean_rank"]["draws"])) == 3


def test_a_draw_that_a_resample_leaves_empty_is_passed_over():
    found, chosen = [np.array([1, 2]), np.array([2, 1])], [np.array([0, 1]), np.array([2, 3])]
    said = over_draws(found, chosen, list("abcd"), 0)
    assert said["R@1"] == {"value": 0.5, "low": 0, "high": 1, "draws": [0.5, 0.5]}


@pytest.mark.slow
def test_about_95_of_100_intervals_hold_the_truth_of_pools():
    """Articles and pairs are drawn anew each time, so the truth is the mean over both; candidates change with them."""
    rng, trials, size = np.random.default_rng(0), 120, 40
    articles = [f"{i // 3}" for i in range(150)]

    def drawn():
        subjects = 0.7 * rng.standard_normal((50, 1, 16)) + rng.standard_normal((50, 3, 16))
        blur = rng.uniform(0.8, 2.4, (50, 1, 1)) * rng.standard_normal((50, 3, 16))  # articles are clear or not
        return subjects.reshape(-1, 16), (subjects + blur).reshape(-1, 16)

    def found(images, texts, rows):
        return ranks(images[rows], texts[rows])[0]

    def of_one():
        return found(*drawn(), rng.choice(150, size, replace=False))

    truth = np.mean([list(rank_metrics(of_one()).values()) for _ in range(1000)], axis=0)
    held = np.zeros(len(truth))
    for trial in range(trials):
        images, texts = drawn()
        chosen = [rng.choice(150, size, replace=False) for _ in range(4)]
        said = over_draws([found(images, texts, rows) for rows in chosen], chosen, articles, trial, resamples=100)
        held += [m["low"] <= t <= m["high"] for m, t in zip(said.values(), truth, strict=True)]
    # Three standard errors of a share of 0.95 over 120 trials are 0.060.
    assert (held / trials > 0.89).all(), held / trials

"""No match by the text's length, where the right values are known: by hand, or by the generating distribution."""

import numpy as np
import pytest

from medclip.no_match import (
    Excerpt,
    ExcerptCosines,
    Threshold,
    Withheld,
    cut_captions,
    fit_thresholds,
    group_by_words,
    is_no_match,
    withhold,
)

THRESHOLDS = (Threshold(1, 1, 0.1), Threshold(1, 100, 0.3), Threshold(4, 1, 0.6))
SHORT, LONG = "chest CT", "CT of the chest"


def excerpts_of(cosines, min_words=1, organs=None):
    """Pairs (i, i), all of one length."""
    n = len(cosines)
    organs = organs or [""] * n
    return ExcerptCosines(cosines, np.eye(n, dtype=bool), np.full(n, min_words), organs, organs)


@pytest.mark.parametrize(
    ("highest", "num_images", "text", "no_match"),
    [
        ([0.5, 0.4, 0.3, 0.2, 0.11, -0.9], 100, SHORT, False),  # 0.302: the mean of five, not of six
        ([0.5, 0.4, 0.3, 0.2, 0.09], 100, SHORT, True),  # 0.298
        ([0.5, 0.4, 0.3, 0.2, 0.09], 10_000, SHORT, True),  # larger than validation: the same threshold
        ([0.205], 10, SHORT, False),  # half of the way between 1 and 100 on a logarithm: 0.2
        ([0.195], 10, SHORT, True),
        ([0.59], 10, LONG, True),  # of four words
        ([0.61], 10, LONG, False),
        ([0.61], 10, LONG * 30, False),  # longer than all that was calibrated: as the longest
    ],
)
def test_no_match_by_hand(highest, num_images, text, no_match):
    assert is_no_match(THRESHOLDS, np.array(highest), num_images, group_by_words(text)) is no_match


def test_without_a_threshold_for_so_short_a_text_nothing_is_said():
    assert is_no_match((), np.array([-1.0]), 10, group_by_words(LONG)) is None
    assert is_no_match(THRESHOLDS[2:], np.array([-1.0]), 10, group_by_words(SHORT)) is None


@pytest.mark.parametrize(
    ("text", "min_words"),
    [
        ("", 1),
        (" CT\n of  knees ", 1),
        ("CT of the knees", 4),
        ("a " * 7, 4),
        ("a " * 8, 8),
        ("a " * 99, 16),
        ("膝関節のCT", 1),
    ],
)
def test_words_are_counted_between_spaces(text, min_words):
    assert group_by_words(text) == min_words


def test_each_caption_stands_once_in_every_group_up_to_its_own():
    captions = ["CT", "axial CT of the  left knee", " ".join(map(str, range(20)))]
    excerpts = cut_captions(captions)
    assert [(excerpt.row, excerpt.min_words) for excerpt in excerpts] == [
        *[(0, 1), (1, 1), (1, 4)],
        *[(2, 1), (2, 4), (2, 8), (2, 16)],
    ]
    assert [excerpt for excerpt in excerpts if not excerpt.is_cut] == [
        Excerpt(row, min_words, captions[row], False) for row, min_words in enumerate((1, 4, 16))
    ]
    first_words = [" ".join(map(str, range(count))) for count in (3, 7, 15)]
    assert [excerpt.text for excerpt in excerpts if excerpt.is_cut] == ["axial CT of", *first_words]


def test_few_texts_give_no_threshold():
    """5 % of 18 + 1 is less than one text; of 19 + 1 it is the lowest mean of five."""
    cosines = np.random.default_rng(0).normal(0, 0.1, (19, 19))
    assert list(fit_thresholds(excerpts_of(cosines[:18, :18]), 0)) == []
    last = list(fit_thresholds(excerpts_of(cosines, min_words=4), 0))[-1]
    assert last == Threshold(4, 19, pytest.approx(np.sort(cosines, axis=1)[:, -5:].mean(axis=1).min()))


def test_the_rate_holds_in_an_index_of_any_few_images():
    """Of up to five images the mean is of all, so that each more lowers it; then of the highest alone. A threshold
    between those of four and of eight images called every sixth right text of five images none."""
    random = np.random.default_rng(0)
    cosines = random.normal(0, 0.1, (400, 400)) + np.diag(np.full(400, 0.5))
    thresholds = tuple(fit_thresholds(excerpts_of(cosines), 0))
    for num_images in (1, 3, 5, 6, 12, 24):
        pools = random.normal(0, 0.1, (1000, num_images))
        pools[:, 0] += 0.5
        no_match = [is_no_match(thresholds, row, num_images, 1) for row in -np.sort(-pools, axis=1)]
        assert np.mean(no_match) == pytest.approx(0.05, abs=0.02), num_images


def test_each_length_has_the_threshold_of_its_own_texts():
    """Thirty texts of each of two lengths and one image: their cosines with it are 0.00 … 0.29 and 0.50 … 0.79."""
    cosines = np.concatenate([np.arange(30) / 100, 0.5 + np.arange(30) / 100])[:, None]
    of_lengths = ExcerptCosines(cosines, np.ones((60, 1), bool), np.repeat([1, 8], 30), [""] * 60, [""])
    assert list(fit_thresholds(of_lengths, 0)) == [Threshold(1, 1, 0.0), Threshold(8, 1, 0.5)]


def test_an_organ_is_withheld_at_each_length():
    """Ten images of knees, ten of lungs. Texts have 0.9 with images of their organ and 0.2 (of lungs) or 0.4 (of knees)
    with the others: of these the threshold 0.3 finds the first to have no match."""
    organs = ["lung"] * 10 + ["knee"] * 10
    cosines = np.where(np.equal.outer(organs, organs), 0.9, np.where(np.array(organs) == "lung", 0.2, 0.4)[:, None])
    thresholds = (Threshold(1, 20, 0.3), Threshold(4, 20, 0.5))
    short = excerpts_of(cosines, 1, organs)
    assert list(withhold(thresholds, short)) == [Withheld(1, 20, 0.5)]
    assert list(withhold(thresholds, excerpts_of(cosines, 4, organs))) == [Withheld(4, 20, 1.0)]
    assert list(withhold(thresholds, excerpts_of(cosines, 1, ["", *organs[1:]]))) == [
        Withheld(1, 10, 0.0)
    ]  # not 9 lungs
    assert list(withhold((), short)) == []


def clustered_pairs(n, noise, lengths):
    """Unit vectors (n, 64) of images that show an organ (of twelve, as unequal) and a detail; and of texts of each
    length, the shorter with more noise, so with lower cosines."""
    rng = np.random.default_rng(0)
    organs = rng.choice(12, n, p=rng.dirichlet(np.full(12, 3)))
    latent = rng.standard_normal((12, 64))[organs] + 0.8 * rng.standard_normal((n, 64))
    spreads = [noise, *(noise * 2 / np.sqrt(length) for length in lengths)]
    images, *texts = (latent + spread * rng.standard_normal((n, 64)) for spread in spreads)
    return *(v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (images, np.stack(texts))), organs


@pytest.mark.parametrize("noise", [1.2, 2.0])
@pytest.mark.slow
def test_the_stated_rates_hold_at_every_length_over_random_halves(noise):
    """300 halves of 400 pairs, calibrated on one, the other searched: 5 % of each length within 2 points, and withheld
    organs as often as stated within 3."""
    images, texts, organs = clustered_pairs(400, noise, lengths := (1, 4, 16))
    rng, no_match, rates = np.random.default_rng(1), [], []
    for draw in range(300):
        order, halves = rng.permutation(400), []
        for rows in (order[:200], order[200:]):
            names = [f"organ {organ}" for organ in organs[rows]]
            cosines = (texts[:, rows] @ images[rows].T).reshape(-1, 200)
            right, min_words = np.tile(np.eye(200, dtype=bool), (3, 1)), np.repeat(lengths, 200)
            halves.append(ExcerptCosines(cosines, right, min_words, names * 3, names))
        thresholds = list(fit_thresholds(halves[0], draw))
        for least in lengths:
            highest = -np.sort(-halves[1].of_group(least).cosines, axis=1)
            no_match.append([is_no_match(thresholds, row, 200, least) for row in highest])
        rates.append([[entry.no_match_rate for entry in withhold(thresholds, half)] for half in halves])
    assert np.reshape(no_match, (300, 3, 200)).mean(axis=(0, 2)) == pytest.approx(np.full(3, 0.05), abs=0.02)
    stated, measured = np.mean(rates, axis=0)
    assert measured == pytest.approx(stated, abs=0.03)
    assert (measured > 0.05).all()  # more often than what is there

"""Misranked pairs and neighbors, against what a loop gives."""

import numpy as np
import pytest

from medclip.evaluation import retrieval
from medclip.evaluation.results import MisrankedPair, NearestImage
from medclip.evaluation.retrieval import nearest_images
from medclip.metrics import DistinctPairs


def rows(images, texts, image_ids=None, caption_ids=None):
    """Pairs of which row i of both is one, without repeats unless ids say so."""
    ids = [np.arange(len(images)) if ids is None else np.array(ids) for ids in (image_ids, caption_ids)]
    return DistinctPairs.of_rows(images, texts, *ids)


def misranked_pairs(pairs, ids, limit):
    return retrieval.misranked_pairs(pairs, pairs.rank(), ids, limit)


def test_the_widest_margin_comes_first_and_the_sure_pair_not_at_all():
    images = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    texts = np.array([[0.6, 0.8, 0], [1.0, 0, 0], [0, 0, 1.0]])
    pairs = [
        pair for pair in misranked_pairs(rows(images, texts), ["a", "b", "c"], 9) if pair.direction == "image_to_text"
    ]
    assert pairs == [
        MisrankedPair("image_to_text", "b", "a", 0.0, 0.8),
        MisrankedPair("image_to_text", "a", "b", 0.6, 1.0),
    ]
    assert next(misranked_pairs(rows(images, texts), ["a", "b", "c"], 1)).margin == pytest.approx(0.8)


def test_both_directions_are_listed():
    images = np.array([[1.0, 0], [0.6, 0.8], [0.8, 0.6]])
    texts = np.array([[0, 1.0], [1.0, 0], [0.8, 0.6]])
    pairs = list(misranked_pairs(rows(images, texts), ["a", "b", "c"], 2))
    assert [(pair.direction, pair.id, pair.other) for pair in pairs[:2]] == [
        ("image_to_text", "a", "b"),
        ("image_to_text", "b", "c"),
    ]
    assert {pair.direction for pair in pairs[2:]} == {"text_to_image"}
    assert pairs[0] == MisrankedPair("image_to_text", "a", "b", 0, 1)


def test_pairs_that_all_rank_first_are_not_listed():
    assert list(misranked_pairs(rows(np.eye(4), np.eye(4)), list("abcd"), 3)) == []


def test_a_tie_is_not_misranked():
    one = np.array([[1.0, 0], [1.0, 0]])
    assert list(misranked_pairs(rows(one, one), ["a", "b"], 3)) == []


def test_a_single_pair_has_no_others():
    assert list(misranked_pairs(rows(np.eye(1), np.eye(1)), ["a"], 3)) == []
    assert list(nearest_images(rows(np.eye(1), np.eye(1)), ["a"], 3)) == []


def test_the_closest_images_come_first():
    images = np.array([[1.0, 0], [0.6, 0.8], [0.8, 0.6]])
    assert list(nearest_images(rows(images, images), ["a", "b", "c"], 2)) == [
        NearestImage("b", "c", pytest.approx(0.96)),
        NearestImage("c", "b", pytest.approx(0.96)),
    ]


def test_another_caption_of_the_image_is_not_wrong():
    """Image A prefers its second caption; the third, of B, is the only wrong one, and A's own are ahead of it."""
    images = np.array([[1.0, 0], [1.0, 0], [0, 1.0]])
    texts = np.array([[0.6, 0.8], [1.0, 0], [0.8, -0.6]])
    pairs = rows(images, texts, image_ids=[0, 0, 1])
    misranked = {(pair.direction, pair.id, pair.other) for pair in misranked_pairs(pairs, ["a1", "a2", "b1"], 9)}
    # B's own is worst of all three; a1 is nearer to B (.8) than to A (.6), b1 nearer to A (.8) than to B (-.6)
    assert misranked == {("image_to_text", "b1", "a1"), ("text_to_image", "a1", "b1"), ("text_to_image", "b1", "a1")}


def test_a_repeated_image_is_no_neighbor_of_itself():
    images = np.array([[1.0, 0], [1.0, 0], [0.6, 0.8], [0, 1.0]])
    nearest = list(nearest_images(rows(images, images, image_ids=[0, 0, 1, 2]), list("abcd"), 9))
    assert [(image.id, image.other) for image in nearest] == [("c", "d"), ("d", "c"), ("a", "c")]

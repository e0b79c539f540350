"""Pairs that a model takes for one another and images that lie closest: examples for people to look at. Pure numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float64, Int64, Num

from medclip.evaluation.results import MisrankedPair, NearestImage
from medclip.metrics import DIRECTIONS

MAX_QUERIES = 512  # at once


def misranked_pairs(
    images: Num[np.ndarray, "n p"], texts: Num[np.ndarray, "n p"], ids: Sequence[str], limit: int
) -> Iterator[MisrankedPair]:
    """In each direction at most `limit` pairs that prefer another pair's caption (image), the widest margin first.

    Row i of `images` and `texts` is the pair `ids[int(i)]`. Scores are rounded to four digits. Memory is linear in n.
    """
    if len(ids) < 2:
        return
    own = (images.astype(np.float64) * texts).sum(axis=1)
    for direction, (queries, candidates) in zip(DIRECTIONS, ((images, texts), (texts, images)), strict=True):
        others, scores = nearest_neighbors(queries, candidates, 1, own=False)
        margins = scores[:, 0] - own
        for i in np.argsort(-margins, kind="stable")[:limit]:
            if margins[i] > 0:
                before, after = round(float(own[i]), 4), round(float(scores[i, 0]), 4)
                yield MisrankedPair(direction, ids[int(i)], ids[int(others[i, 0])], before, after)


def nearest_images(images: Num[np.ndarray, "n p"], ids: Sequence[str], limit: int) -> Iterator[NearestImage]:
    """At most `limit` images and the one closest to each, the closest first; scores rounded to four digits."""
    if len(ids) < 2:
        return
    others, scores = nearest_neighbors(images, images, 1, own=False)
    for i in np.argsort(-scores[:, 0], kind="stable")[:limit]:
        yield NearestImage(ids[int(i)], ids[int(others[i, 0])], round(float(scores[i, 0]), 4))


def nearest_neighbors(
    queries: Num[np.ndarray, "n p"], candidates: Num[np.ndarray, "m p"], k: int, own: bool = True
) -> tuple[Int64[np.ndarray, "n k"], Float64[np.ndarray, "n k"]]:
    """Rows of the k best candidates for each query by dot product, best first, and their scores.

    Without `own`, candidate i is left out for query i: pass the same matrix twice for a vector's nearest neighbors. Of
    equal candidates the first counts as best; k is cut to the number of candidates.
    """
    k = min(k, len(candidates) - (not own))
    rows, exact = np.empty((len(queries), k), np.int64), candidates.T.astype(np.float64)
    scores = np.empty((len(queries), k))
    for start in range(0, len(queries), MAX_QUERIES):
        part = queries[start : start + MAX_QUERIES].astype(np.float64) @ exact
        here = np.arange(len(part))
        if not own:
            part[here, here + start] = -np.inf
        best = part.argmax(axis=1)[:, None] if k == 1 else np.argsort(-part, axis=1, kind="stable")[:, :k]
        rows[start : start + MAX_QUERIES] = best
        scores[start : start + MAX_QUERIES] = np.take_along_axis(part, best, axis=1)
    return rows, scores

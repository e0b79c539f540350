"""Which pairs a model confuses, and what lies nearest to what: from plain matrices of unit vectors. Pure numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from medclip.metrics import WAYS

_CHUNK = 512


@dataclass(frozen=True, slots=True)
class MisrankedPair:
    """An image that another pair's caption fits better than its own, by `margin` of cosine."""

    id: str
    other: str
    own_score: float
    other_score: float

    @property
    def margin(self) -> float:
        """How much better the other caption fits."""
        return self.other_score - self.own_score


def confused(images: np.ndarray, texts: np.ndarray, ids: Sequence[str], most: int) -> list[MisrankedPair]:
    """At most `most` pairs whose images prefer another caption, the widest margin first.

    Row i of `images` and `texts` (n, p) is the pair `ids[i]`. Exchange the two for captions that prefer another
    image. Memory is linear in n.
    """
    others, scores = nearest(images, texts, 1, own=False)
    own = (images.astype(np.float64) * texts).sum(axis=1)
    margins = scores[:, 0] - own
    order = np.argsort(-margins, kind="stable")[:most]
    return [
        MisrankedPair(ids[i], ids[others[i, 0]], float(own[i]), float(scores[i, 0])) for i in order if margins[i] > 0
    ]


def examples(images: np.ndarray, texts: np.ndarray, ids: Sequence[str], most: int) -> dict[str, Any]:
    """`most_confused` both ways and `nearest_pictures`, as lists of at most `most` dicts, for people to look at."""
    if len(ids) < 2:
        return {"most_confused": {way: [] for way in WAYS}, "nearest_pictures": []}
    ways = zip(WAYS, ((images, texts), (texts, images)), strict=True)
    told = {way: [_told(one) for one in confused(*sides, ids, most)] for way, sides in ways}
    others, scores = (found[:, 0] for found in nearest(images, images, 1, own=False))
    order = np.argsort(-scores, kind="stable")[:most]
    near = [{"id": ids[i], "other": ids[others[i]], "score": round(float(scores[i]), 4)} for i in order]
    return {"most_confused": told, "nearest_pictures": near}


def _told(one: MisrankedPair) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(one).items()}


def nearest(queries: np.ndarray, candidates: np.ndarray, k: int, own: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Rows i64 (n, k) of the k best candidates for each query by dot product, best first, and their scores f64 (n, k).

    Without `own`, candidate i is none for query i: pass the same matrix twice for a vector's nearest neighbors. Of
    equal candidates the first counts as best; k is at most the number of candidates.
    """
    k = min(k, len(candidates) - (not own))
    found, exact = np.empty((len(queries), k), np.int64), candidates.T.astype(np.float64)
    scores = np.empty((len(queries), k))
    for start in range(0, len(queries), _CHUNK):
        part = queries[start : start + _CHUNK].astype(np.float64) @ exact
        here = np.arange(len(part))
        if not own:
            part[here, here + start] = -np.inf
        best = part.argmax(axis=1)[:, None] if k == 1 else np.argsort(-part, axis=1, kind="stable")[:, :k]
        found[start : start + _CHUNK], scores[start : start + _CHUNK] = best, np.take_along_axis(part, best, axis=1)
    return found, scores

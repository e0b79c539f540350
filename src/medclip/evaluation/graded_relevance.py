"""Retrieval graded by meaning: a neighbor that shares the query's UMLS concepts is not a miss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence, Set

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Num

from medclip.dot_products import TIE_TOLERANCE
from medclip.metrics import SHARE, Estimate, estimates
from medclip.progress import Advance

K = 10
MAX_SCORES = 2**20  # in memory at once: 8 MB
METRICS = (f"nDCG@{K}", "mAP")
RELEVANCE_THRESHOLD = 0.5
"""From this relevance on a candidate counts as relevant for the mean average precision."""
_DISCOUNT = 1 / np.log2(np.arange(2, K + 2))
RELEVANCE = "Jaccard index of the concept sets"


def merge_sets(sets: Sequence[Iterable[str]], ids: Int[np.ndarray, " n"]) -> list[frozenset[str]]:
    """The concepts of each id, in order: those that any of its rows has. `ids` count from 0 in order of appearance."""
    merged: list[set[str]] = [set() for _ in range(int(ids.max()) + 1)]
    for i, concepts in zip(ids.tolist(), sets, strict=True):
        merged[i].update(concepts)
    return list(map(frozenset, merged))


class Concepts:
    """The concept sets of n candidates, and how much each has in common with a query's."""

    def __init__(self, sets: Sequence[Iterable[str]]):
        """Repetitions within a set count once."""
        candidates = [frozenset(concepts) for concepts in sets]
        self._sizes = np.array([len(concepts) for concepts in candidates])
        holders: defaultdict[str, list[int]] = defaultdict(list)
        for row, concepts in enumerate(candidates):
            for concept in concepts:
                holders[concept].append(row)
        self._holders = {concept: np.array(rows) for concept, rows in holders.items()}

    def relevance(self, query: Set[str]) -> Float64[np.ndarray, " n"]:
        """Jaccard index |A∩B| / |A∪B| of a query's set, which is not empty, with every candidate's: f64 (n,), 0 to 1.

        It needs no weights, is 1 for equal sets alone, and does not make a caption that names much relevant to all, as
        the count of shared concepts would.
        """
        shared = np.zeros(len(self._sizes))
        for concept in query & self._holders.keys():
            shared[self._holders[concept]] += 1
        return shared / (self._sizes + len(query) - shared)


def grade(
    queries: Num[np.ndarray, "n p"],
    candidates: Num[np.ndarray, "m p"],
    query_sets: Sequence[Set[str]],
    concepts: Concepts,
    right: Int[np.ndarray, "k 2"],
    advance: Advance | None = None,
) -> Float64[np.ndarray, "n 4"]:
    """nDCG@10, average precision, and what a random order gives of both; NaN for queries without concepts.

    `concepts` are those of the candidates; `right` says which query (its row) a candidate belongs to, whose relevance
    then is 1. nDCG@k = DCG@k / the DCG@k of the best order, DCG@k = Σ rel_r / log2(r + 1) over ranks r up to k
    (Järvelin and Kekäläinen 2002, gains not exponentiated, as scikit-learn's `ndcg_score`). For average precision a
    candidate counts as relevant from `RELEVANCE_THRESHOLD` on: the mean over relevant candidates of the share of
    relevant ones among those that score at least as high (scikit-learn's `average_precision_score`, but for the mean
    over ties). Ties count against the model. Chance is exact: the mean relevance at every rank, and for R relevant
    among N (1/N) (H + (R-1)/(N-1) (N-H)), H = 1 + 1/2 + … + 1/N (Bestgen 2015).
    """
    n = len(candidates)
    grades, exact = np.full((len(queries), 4), np.nan), candidates.T.astype(np.float64)
    harmonic = (1 / np.arange(1, n + 1)).sum()
    with_concepts = np.flatnonzero([len(names) for names in query_sets])
    right = right[np.argsort(right[:, 0], kind="stable")]
    bounds = np.searchsorted(right[:, 0], np.arange(len(queries) + 1))
    size = max(1, MAX_SCORES // n)
    for start in range(0, len(with_concepts), size):
        rows = with_concepts[start : start + size]
        for row, scores in zip(rows, queries[rows].astype(np.float64) @ exact, strict=True):
            relevance = concepts.relevance(query_sets[row])
            relevance[right[bounds[row] : bounds[row + 1], 1]] = 1
            best = ideal_gain(relevance)
            relevant = relevance >= RELEVANCE_THRESHOLD
            grades[row] = (
                gain(scores, relevance) / best,
                average_precision(scores, relevant),
                relevance.mean() * _DISCOUNT[:n].sum() / best,
                (harmonic + (relevant.sum() - 1) / max(1, n - 1) * (n - harmonic)) / n,
            )
        if advance:
            advance(len(rows))
    return grades


def gain(scores: Float[np.ndarray, " n"], relevance: Float[np.ndarray, " n"]) -> float:
    """DCG@10 of candidates in the order of their scores; of equal ones the least relevant comes first."""
    behind = scores - TIE_TOLERANCE * relevance  # less than a tie apart, so nothing else changes places
    first = np.argpartition(-behind, K)[:K] if len(behind) > K else np.arange(len(behind))
    first = first[np.argsort(-behind[first])]
    return float(relevance[first] @ _DISCOUNT[: len(first)])


def ideal_gain(relevance: Float[np.ndarray, " n"]) -> float:
    """DCG@10 of the best order."""
    largest = np.partition(relevance, -K)[-K:] if len(relevance) > K else relevance
    return float(np.sort(largest)[::-1] @ _DISCOUNT[: len(largest)])


def average_precision(scores: Float[np.ndarray, " n"], relevant: Bool[np.ndarray, " n"]) -> float:
    """Mean over the relevant candidates, of which there is one at least, of the precision at their score."""
    own = np.sort(scores[relevant])
    bars = own - TIE_TOLERANCE
    num_relevant = len(own) - np.searchsorted(own, bars)
    num_candidates = len(scores) - np.searchsorted(np.sort(scores), bars)
    return float((num_relevant / num_candidates).mean())


def grade_estimates(
    grades: Float64[np.ndarray, "n 4"], articles: Sequence[str], seed: int
) -> tuple[dict[str, Estimate], dict[str, float]]:
    """nDCG@10 and mAP of one direction with intervals, and their chance, of what `grade` returns."""
    rows = np.flatnonzero(~np.isnan(grades[:, 0]))

    def means(values: np.ndarray) -> dict[str, float]:
        return dict(zip(METRICS, values[:, :2].mean(axis=0).tolist(), strict=True))

    chance = dict(zip(METRICS, grades[rows, 2:].mean(axis=0).tolist(), strict=True))
    groups, ranges = [articles[int(row)] for row in rows], dict.fromkeys(METRICS, SHARE)
    return estimates(grades[rows], groups, means, seed, ranges), chance

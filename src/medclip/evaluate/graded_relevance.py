"""Retrieval graded by meaning: a neighbor that shares the query's UMLS concepts is no miss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from medclip.metrics import AT_ONCE, TIE, intervals
from medclip.progress import Advance

K = 10
RELEVANT = 0.5
"""From this relevance on a candidate counts as relevant for the mean average precision."""
_DISCOUNT = 1 / np.log2(np.arange(2, K + 2))
RELEVANCE = "Jaccard index of the concept sets"


class Concepts:
    """The concept sets of n pairs, and how much each pair's set has in common with all others'."""

    def __init__(self, sets: Sequence[Sequence[str]]):
        """Repetitions within a set count once."""
        self.sets = [frozenset(one) for one in sets]
        self.sizes = np.array([len(one) for one in self.sets])
        holders: defaultdict[str, list[int]] = defaultdict(list)
        for row, one in enumerate(self.sets):
            for concept in one:
                holders[concept].append(row)
        self._holders = {concept: np.array(rows) for concept, rows in holders.items()}

    def relevance(self, row: int) -> np.ndarray:
        """Jaccard index |A∩B| / |A∪B| of a row's set, which is not empty, with every row's: f64 (n,), 0 to 1.

        It needs no weights, is 1 for equal sets alone, and does not make a caption that names much relevant to all, as
        the count of shared concepts would.
        """
        shared = np.zeros(len(self.sizes))
        for concept in self.sets[row]:
            shared[self._holders[concept]] += 1
        return shared / (self.sizes + self.sizes[row] - shared)


def graded(
    queries: np.ndarray, candidates: np.ndarray, concepts: Concepts, advance: Advance | None = None
) -> np.ndarray:
    """nDCG@10, average precision, and what a random order gives of both: f64 (n, 4); NaN for queries without concepts.

    nDCG@k = DCG@k / the DCG@k of the best order, DCG@k = Σ rel_r / log2(r + 1) over ranks r up to k (Järvelin and
    Kekäläinen 2002, gains not exponentiated, as scikit-learn's `ndcg_score`). Average precision takes as relevant what
    has a relevance of at least `RELEVANT`: the mean over relevant candidates of the share of relevant ones among those
    that score at least as high (scikit-learn's `average_precision_score`, but for the mean over ties). A query's own
    candidate has relevance 1. Ties count against the model. Chance is exact: the mean relevance at every rank, and for
    R relevant among N (1/N) (H + (R-1)/(N-1) (N-H)), H = 1 + 1/2 + … + 1/N (Bestgen 2015).
    """
    n = len(candidates)
    found, exact = np.full((n, 4), np.nan), candidates.T.astype(np.float64)
    harmonic = (1 / np.arange(1, n + 1)).sum()
    asking = np.flatnonzero(concepts.sizes)
    size = max(1, AT_ONCE // n)
    for start in range(0, len(asking), size):
        rows = asking[start : start + size]
        for row, scores in zip(rows, queries[rows].astype(np.float64) @ exact, strict=True):
            relevance = concepts.relevance(row)
            best = ideal_gain(relevance)
            relevant = relevance >= RELEVANT
            found[row] = (
                gain(scores, relevance) / best,
                average_precision(scores, relevant),
                relevance.mean() * _DISCOUNT[:n].sum() / best,
                (harmonic + (relevant.sum() - 1) / max(1, n - 1) * (n - harmonic)) / n,
            )
        if advance:
            advance(len(rows))
    return found


def gain(scores: np.ndarray, relevance: np.ndarray) -> float:
    """DCG@10 of candidates in the order of their scores; of equal ones the least relevant comes first."""
    behind = scores - TIE * relevance  # less than a tie apart, so nothing else changes places
    first = np.argpartition(-behind, K)[:K] if len(behind) > K else np.arange(len(behind))
    first = first[np.argsort(-behind[first])]
    return float(relevance[first] @ _DISCOUNT[: len(first)])


def ideal_gain(relevance: np.ndarray) -> float:
    """DCG@10 of the best order."""
    most = np.partition(relevance, -K)[-K:] if len(relevance) > K else relevance
    return float(np.sort(most)[::-1] @ _DISCOUNT[: len(most)])


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Mean over the relevant candidates, of which there is one at least, of the precision at their score."""
    bars = np.sort(scores[relevant]) - TIE
    own, reached = (len(of) - np.searchsorted(np.sort(of), bars) for of in (scores[relevant], scores))
    return float((own / reached).mean())


def concept_figures(found: np.ndarray, articles: Sequence[str], seed: int) -> dict[str, Any]:
    """nDCG@10 and mAP of one way with intervals, and chance, from what `graded` found."""
    asked = ~np.isnan(found[:, 0])
    own = [article for article, asks in zip(articles, asked, strict=True) if asks]
    names = (f"nDCG@{K}", "mAP")

    def measure(rows: np.ndarray) -> dict[str, float]:
        return dict(zip(names, rows[:, :2].mean(axis=0).tolist(), strict=True))

    chance = dict(zip(names, found[asked, 2:].mean(axis=0).tolist(), strict=True))
    return {**intervals(found[asked], own, measure, seed), "chance": chance}

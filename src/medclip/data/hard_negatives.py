"""Hard negatives: the foils that training makes of its own captions, in other words than evaluation measures.

`foils.foil_rules` are the measured ones. A caption's hard negative is never its measured foil: planes and modalities
are exchanged for other ones, findings are negated and affirmed in other words, and exactly two words change places
where the test moves at least three. Left and right have one opposite each: there the captions alone differ.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from medclip.data.foils import (
    FRONTAL_NOUNS,
    MODALITY_CLUE,
    affirm_finding,
    exchange_two_words,
    negate_finding,
    swap_left_right,
    swap_terms,
)

KINDS = ("left-right", "negation", "plane", "modality", "order")

PLANES = (
    ("sagittal", "coronal"), ("axial", "sagittal"), ("transverse", "sagittal"),
    *((f"posteroanterior {noun}", f"lateral {noun}") for noun in FRONTAL_NOUNS),
    *((f"{frontal} {noun}", f"oblique {noun}") for frontal in ("frontal", "anteroposterior", "AP")
      for noun in FRONTAL_NOUNS),
)  # fmt: skip
MODALITIES = (
    ("computed tomography", "ultrasound"), ("CT", "ultrasound"), ("computerized tomography", "ultrasonography"),
    ("computed tomographic", "sonographic"), ("computed tomography", "sonography"),
    ("magnetic resonance imaging", "x-ray"), ("MRI", "x-ray"), ("MR", "x-ray"),
    ("magnetic resonance", "radiographic"), ("magnetic resonance imaging", "radiography"),
    ("radiograph", "computed tomography image"), ("radiographs", "computed tomography images"),
    ("sonogram", "magnetic resonance image"),
    ("sonograms", "magnetic resonance images"),
)  # fmt: skip
NEGATIONS = ("no evidence of ", "no sign of ")  # as true captions say it: other words would give the foil away
AFFIRMATIONS = ("evidence of ", "signs of ")
ABNORMAL = "pathological"

MAX_COUNTED = 100_000  # captions that shares are of: more take minutes and change no digit


@lru_cache(maxsize=MAX_COUNTED)  # each epoch asks for the same
def hard_negatives(caption: str, kinds: tuple[str, ...], seed: int) -> tuple[str | None, ...]:
    """The caption's foil of each kind, None where it has none; a function of its arguments alone."""
    return tuple(_RULES[kind](caption, seed) for kind in kinds)


def hard_negative_shares(captions: Sequence[str], kinds: tuple[str, ...], seed: int) -> dict[str, float]:
    """The share of captions that have a foil, by kind; of evenly spaced ones where there are more than MAX_COUNTED."""
    counted = captions[:: -(-len(captions) // MAX_COUNTED)]
    present = np.array([[foil is not None for foil in hard_negatives(caption, kinds, seed)] for caption in counted])
    return {kind: round(float(share), 4) for kind, share in zip(kinds, present.mean(axis=0), strict=True)}


def _negate_or_affirm(caption: str, seed: int) -> str | None:
    """The first finding negated where the caption negates nothing, or else affirmed."""
    choice = zlib.crc32(f"{seed} {caption}".encode())
    negated = negate_finding(caption, NEGATIONS[choice % len(NEGATIONS)], keep_article=True)
    return negated or affirm_finding(caption, AFFIRMATIONS[choice % len(AFFIRMATIONS)], ABNORMAL)


_RULES: dict[str, Callable[[str, int], str | None]] = {
    "left-right": lambda caption, seed: swap_left_right(caption),
    "negation": _negate_or_affirm,
    "plane": lambda caption, seed: swap_terms(caption, PLANES),
    "modality": lambda caption, seed: swap_terms(caption, MODALITIES, MODALITY_CLUE),
    "order": exchange_two_words,
}

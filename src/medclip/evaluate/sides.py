"""Does the model know left from right? Its choice between a caption and the same caption mirrored."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from medclip.encoder import embed_texts
from medclip.evaluate.metrics import interval
from medclip.model.hub import Model

_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}


def mirrored(caption: str) -> str | None:
    """The caption with left and right exchanged, case kept; None where it names no side, or both."""
    if len({side.lower() for side in _SIDE.findall(caption)}) != 1:
        return None

    def other(found: re.Match[str]) -> str:
        word = _OTHER[found.group().lower()]
        return word.upper() if found.group().isupper() else word.title() if found.group().istitle() else word

    return _SIDE.sub(other, caption)


def side_choice(
    model: Model, images: np.ndarray, captions: Sequence[str], articles: Sequence[str], seed: int
) -> dict[str, Any] | None:
    """Share of one-sided captions that score above their mirror for their own picture; chance is 0.5, ties fail.

    `images` are unit vectors (n, p). None where no caption names exactly one side.
    """
    sided = [(i, caption, other) for i, caption in enumerate(captions) if (other := mirrored(caption))]
    if not sided:
        return None
    rows, said, other = (list(column) for column in zip(*sided, strict=True))
    true = (images[rows] * embed_texts(model, said)).sum(axis=1)
    false = (images[rows] * embed_texts(model, other)).sum(axis=1)
    right = (true > false).astype(np.float64)
    accuracy = interval(right, [articles[i] for i in rows], lambda values: float(values.mean()), seed)
    return {"captions": len(rows), "accuracy": accuracy}

"""Which captions are encoded together, and how many of their tokens: a caption costs little more than its own length.

The shape that a caption is encoded in follows from its own tokens alone. So its features are the same, bit for bit,
whatever captions are beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Bool, Int, Int32

from medclip.encode.decode import BATCH_SIZE
from medclip.model.config import TextConfig
from medclip.model.packing import pool_columns

LENGTHS = (16, 32, 48, 64, 128, 256, 512)
"""Tokens; each is another shape to compile, beside the context length. Half of radiology captions have 17 to 44."""
_BATCH_TOKENS, _CPU_BATCH_TOKENS = 2048, 512
"""Of a batch at most, whose last of each length is half padding. On a CPU more take as long for each (docs/log.md)."""
WINDOW = 2048  # captions that are put in order of their length: more leave less padding, and more to do again


def batch_rows(length: int) -> int:
    """How many captions of `length` tokens are encoded at once."""
    tokens = _CPU_BATCH_TOKENS if jax.default_backend() == "cpu" else _BATCH_TOKENS
    return max(1, min(BATCH_SIZE, tokens // length))


def caption_batches(
    ids: Int32[np.ndarray, "b t"], valid: Bool[np.ndarray, "b t"], tower: TextConfig, lengths: Sequence[int] = LENGTHS
) -> Iterator[tuple[Int[np.ndarray, " n"], int]]:
    """Rows of captions to encode at once, `batch_rows` at most, and the tokens of each that do it.

    That is the least of `lengths` (ascending) and of t that holds what decides its features.
    """
    t = ids.shape[1]
    shapes = np.array([*(length for length in lengths if length < t), t])
    chosen = shapes[np.searchsorted(shapes, _needed_tokens(ids, valid, tower))]
    for length in np.unique(chosen).tolist():
        rows, size = np.flatnonzero(chosen == length), batch_rows(length)
        yield from ((rows[at : at + size], length) for at in range(0, len(rows), size))


def _needed_tokens(
    ids: Int32[np.ndarray, "b t"], valid: Bool[np.ndarray, "b t"], tower: TextConfig
) -> Int[np.ndarray, " b"]:
    """How many of its first tokens decide a caption's features: up to the last real one and the one it is pooled at.

    All, where padding is read (SigLIP), comes first, or is all there is.
    """
    t = ids.shape[1]
    needed = np.maximum(t - np.argmax(valid[:, ::-1], axis=1), pool_columns(ids, tower) + 1)
    return np.where(valid[:, 0] & (not tower.family.reads_padding), needed, t)

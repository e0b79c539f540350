"""Captions packed end to end, so that the cost of text follows its real length (Krell et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32

from medclip.errors import UserError
from medclip.model.config import TextConfig

# Row counts are rounded up to a multiple of a twelfth of the captions, at least 4: few shapes to compile, little waste.
_GRID_DIVISOR, _MIN_GRID_ROWS = 12, 4


class PackedText(NamedTuple):
    """Captions in n blocks of r rows of t tokens; c captions a block, each in one row and attending to itself alone."""

    ids: np.ndarray
    """i32 (n, r, t)"""
    caption_index: np.ndarray
    """i32 (n, r, t): the caption of its block that a token belongs to; -1 is padding."""
    position: np.ndarray
    """i32 (n, r, t): position of a token in its caption, from 0; -1 is that of padding (RoBERTa)."""
    pool_index: np.ndarray
    """i32 (n, c): the token, of its block's r * t, that a caption is pooled at, where the family pools at one."""


def pack(
    ids: Int32[np.ndarray, "n c t"], valid: Bool[np.ndarray, "n c t"], tower: TextConfig, min_rows: int = 0
) -> PackedText:
    """Pack ids, where `valid`, into as few rows as fit the fullest block, and not fewer than other blocks need.

    A caption without valid tokens takes no room; the token it is pooled at is another's and means nothing.
    """
    n, c, t = ids.shape
    valid = read_tokens(valid, tower)
    lengths = valid.sum(axis=2)
    slots, pooled = [_first_fit(block, t) for block in lengths], pool_columns(ids, tower)
    shape = (n, max(min_rows, _count_rows(slots, c)), t)
    packed = PackedText(
        ids=np.zeros(shape, np.int32),
        caption_index=np.full(shape, -1, np.int32),
        position=np.zeros(shape, np.int32),
        pool_index=np.zeros((n, c), np.int32),
    )
    for b, (rows, starts) in enumerate(slots):
        for i in np.flatnonzero(lengths[b]):
            columns, row, span = np.flatnonzero(valid[b, i]), rows[i], slice(starts[i], starts[i] + lengths[b, i])
            packed.ids[b, row, span] = ids[b, i, columns]
            packed.caption_index[b, row, span] = i
            packed.position[b, row, span] = _positions(ids[b, i], columns, tower)
            packed.pool_index[b, i] = row * t + starts[i] + _pool_position(int(pooled[b, i]), columns, tower)
    return packed


def read_tokens(valid: Bool[np.ndarray, "*b t"], tower: TextConfig) -> Bool[np.ndarray, "*b t"]:
    """The tokens that a tower reads of each caption: all of one that has any, where padding is part of it."""
    return np.broadcast_to(valid.any(axis=-1, keepdims=True), valid.shape) if tower.family.reads_padding else valid


def rows_needed(lengths: Int[np.ndarray, "n c"], room: int) -> int:
    """The rows of `room` tokens that `pack` takes for captions of so many tokens each, in n blocks."""
    return _count_rows([_first_fit(block, room) for block in lengths], lengths.shape[1])


def _count_rows(slots: Sequence[tuple[np.ndarray, np.ndarray]], num_captions: int) -> int:
    grid = max(_MIN_GRID_ROWS, -(-num_captions // _GRID_DIVISOR))
    return min(num_captions, -(-max(int(rows.max()) + 1 for rows, _ in slots) // grid) * grid)


def _positions(ids: np.ndarray, columns: np.ndarray, tower: TextConfig) -> np.ndarray:
    """The positions of a caption's valid `columns`, as in `towers`."""
    if not tower.family.after_padding:
        return columns
    real = ids[columns] != tower.pad_token_id  # a caption may hold a literal <pad>, or end with what pads
    return np.cumsum(real) * real - 1


def _first_fit(lengths: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and start of each caption: longest first, into the first row with room for it."""
    rows, starts, free = np.zeros(len(lengths), int), np.zeros(len(lengths), int), np.full(len(lengths), room)
    for i in np.argsort(-lengths, kind="stable"):
        rows[i] = row = int(np.argmax(free >= lengths[i]))
        starts[i] = room - free[row]
        free[row] -= lengths[i]
    return rows, starts


def pool_columns(ids: Int32[np.ndarray, "*b t"], tower: TextConfig) -> Int[np.ndarray, "*b"]:
    """The column of the token that each caption is pooled at, as in `towers`; 0 for a mean."""
    pool = tower.family.pool
    if pool in ("end", "argmax"):
        return np.argmax(ids if pool == "argmax" else ids == tower.eos_token_id, axis=-1)
    return np.full(ids.shape[:-1], ids.shape[-1] - 1 if pool == "last" else 0)


def _pool_position(column: int, columns: np.ndarray, tower: TextConfig) -> int:
    """The position of a caption's pooled `column` among its valid `columns`."""
    if tower.family.pool == "mean":
        return 0
    if column not in columns:
        raise UserError(
            "the text tower pools a token of padding: train with padding_side right in tokenizer_config.json."
        )
    return int(np.searchsorted(columns, column))

"""Captions laid end to end, so that the cost of text follows its real length (Krell et al. 2021)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medclip.model.config import TextConfig
from medclip.model.families import TEXT

# Row counts are rounded up to a multiple of a twelfth of the captions, at least 4: few shapes to compile, little waste.
_PARTS, _LEAST = 12, 4


class Packed(NamedTuple):
    """Captions in n blocks of r rows of t tokens; c captions a block, each in one row and attending to itself alone."""

    ids: np.ndarray
    """i32 (n, r, t)"""
    caption: np.ndarray
    """i32 (n, r, t): which caption of its block a token belongs to; -1 is padding."""
    position: np.ndarray
    """i32 (n, r, t): place of a token in its caption, from 0."""
    pooled: np.ndarray
    """i32 (n, c): which of its block's r * t tokens stands for a caption, where the family pools at one."""


def pack(ids: np.ndarray, valid: np.ndarray, tower: TextConfig) -> Packed:
    """Lay ids i32 (n, c, t) where `valid` bool (n, c, t) into as few rows as fit the fullest block.

    A caption without valid tokens takes no room; its pool is some other's and means nothing.
    """
    n, c, t = ids.shape
    family = TEXT[tower.model_type]
    if family.attends == "all":  # padding is part of such a caption
        valid = np.broadcast_to(valid.any(axis=2, keepdims=True), valid.shape)
    lengths = valid.sum(axis=2)
    places = [_first_fit(block, t) for block in lengths]
    grid = max(_LEAST, -(-c // _PARTS))
    r = min(c, -(-max(int(row.max()) + 1 for row, _ in places) // grid) * grid)
    packed = Packed(*(np.full((n, r, t), fill, np.int32) for fill in (0, -1, 0)), np.zeros((n, c), np.int32))
    pool = tower.pool or family.pool
    for b, (rows, starts) in enumerate(places):
        for i in np.flatnonzero(lengths[b]):
            real, row, at = ids[b, i][valid[b, i]], rows[i], slice(starts[i], starts[i] + lengths[b, i])
            packed.ids[b, row, at] = real
            packed.caption[b, row, at] = i
            packed.position[b, row, at] = np.arange(len(real))
            packed.pooled[b, i] = row * t + starts[i] + _stands(real, pool, tower)
    return packed


def _first_fit(lengths: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and start of each caption: longest first, into the first row with room for it."""
    rows, starts, free = np.zeros(len(lengths), int), np.zeros(len(lengths), int), np.full(len(lengths), room)
    for i in np.argsort(-lengths, kind="stable"):
        rows[i] = row = int(np.argmax(free >= lengths[i]))
        starts[i] = room - free[row]
        free[row] -= lengths[i]
    return rows, starts


def _stands(ids: np.ndarray, pool: str, tower: TextConfig) -> int:
    """The place, among a caption's tokens, of the one that stands for it; as in `towers`."""
    if pool == "last":
        return len(ids) - 1
    if pool == "end":
        return int(np.argmax(ids if tower.eos_token_id == 2 else ids == tower.eos_token_id))
    return 0

"""How many tokens each caption of a run has, and each of its foils: what the shape of a batch follows from.

Where several processes train, each tokenizes its own part of a batch alone. A part is padded as the fullest of all is,
so each must know how long the captions of the others are: they are counted once, a share by each process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Bool, Int, UInt16

from medclip.data.dataset import Split
from medclip.data.hard_negatives import hard_negatives
from medclip.model.checkpoint import Model
from medclip.model.packing import read_tokens, rows_needed
from medclip.training import distributed
from medclip.training.config import ResolvedTrainConfig

BLOCK = 4096  # captions at once


@dataclass(frozen=True)
class TokenCounts:
    """Of some rows of a split."""

    rows: Int[np.ndarray, " k"]
    """In order."""
    counts: UInt16[np.ndarray, "k f"]
    """Of the caption, and of its foil of each kind: 0 where it has none."""

    def rows_needed(self, rows: Int[np.ndarray, " b"], foil_mask: Bool[np.ndarray, "n m k"], model: Model) -> int:
        """The rows of tokens that the fullest of n blocks of these pairs takes, as `text_inputs` packs them.

        A block has its m captions and then their foils, where `foil_mask` says so.
        """
        n, m, k = foil_mask.shape
        tower, room = model.config.text, model.tokenizer.context_length
        absent = read_tokens(np.arange(room) == 0, tower).sum()
        counts = self.counts[np.searchsorted(self.rows, rows)]
        captions, foils = counts[:, :1].reshape(n, m), counts[:, 1:].reshape(n, m, k)
        lengths = np.concatenate([captions, np.where(foil_mask, foils, absent).reshape(n, m * k)], axis=1)
        return rows_needed(lengths.astype(int), room)


def count_tokens(rows: Int[np.ndarray, " k"], split: Split, model: Model, config: ResolvedTrainConfig) -> TokenCounts:
    """The counts of these rows, which are in order; each process tokenizes its share of them. All must call this."""
    size = -(-len(rows) // jax.process_count()) * jax.process_count()
    padded = np.resize(rows, size)  # a part of the same size for each: some rows are counted twice
    own = padded[distributed.process_slice(size)]
    blocks = (own[start : start + BLOCK] for start in range(0, size, BLOCK))
    counts = np.concatenate([_count(split.take("caption", block), model, config) for block in blocks if len(block)])
    return TokenCounts(rows, distributed.gather(counts)[: len(rows)])


def _count(captions: Sequence[str], model: Model, config: ResolvedTrainConfig) -> UInt16[np.ndarray, "k f"]:
    texts = [(caption, *hard_negatives(caption, config.hard_negatives, config.seed)) for caption in captions]
    is_text = np.array([[text is not None for text in of_pair] for of_pair in texts])
    _, valid = model.tokenizer.encode([text for of_pair in texts for text in of_pair if text is not None])
    counts = np.zeros(is_text.shape, np.uint16)
    counts[is_text] = read_tokens(valid, model.config.text).sum(axis=1)
    return counts

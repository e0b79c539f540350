"""What a run learns from, and its batches: a function of the seed and the step, made while the device works."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import jax
import numpy as np

from medclip.data.batches import rows_at
from medclip.data.captions import mirrored
from medclip.data.shards import Split
from medclip.errors import UserError
from medclip.model.hub import Model
from medclip.model.packing import pack
from medclip.train.recipe import Recipe
from medclip.train.step import Batch


@dataclass(frozen=True)
class Pairs:
    """The pairs of a run. Row i of everything is pair i."""

    images: np.ndarray
    """Pixels u8 (n, s, s, 3), or a frozen tower's pools f32 (n, w)."""
    captions: Sequence[str]
    pictures: np.ndarray
    """i32 (n,): equal where pictures are."""
    words: dict[str, int]
    """A number for each caption, letter case and spacing apart."""
    concepts: np.ndarray
    """i32 (n, k): each pair's UMLS concepts that others have too, padded with `kinds`."""
    kinds: int
    pools: dict[str, np.ndarray] | None = None
    """A frozen text tower's pool f32 (w,) of each caption, as written and with its sides exchanged."""


def read_pairs(split: Split, images: np.ndarray, soft: bool) -> Pairs:
    """The pairs of a split whose pixels or pools are `images`; `soft`: with their concepts."""
    captions, known = split.column("caption"), {}
    pictures = [known.setdefault(digest, len(known)) for digest in split.column("sha256")]
    words = {text: i for i, text in enumerate(dict.fromkeys(map(_folded, captions)))}
    said = [sorted(set(row or ())) for row in split.column("concepts")] if soft else [[]] * len(captions)
    often = Counter(concept for row in said for concept in row)
    number = {concept: i for i, concept in enumerate(sorted(c for c, times in often.items() if times > 1))}
    if soft and not number:
        raise UserError(f"--soft-targets: no two pairs of {split.folder} share a UMLS concept.")
    rows = [[number[concept] for concept in row if concept in number] for row in said]
    concepts = np.full((len(rows), max(map(len, rows))), len(number), np.int32)
    for i, row in enumerate(rows):
        concepts[i, : len(row)] = row
    return Pairs(images, captions, np.array(pictures, np.int32), words, concepts, len(number))


def batches(
    pairs: Pairs, model: Model, recipe: Recipe, devices: int, first: int
) -> Iterator[tuple[int, np.ndarray, Batch, float]]:
    """From step `first` on: its number, its rows, this process's blocks of it, and the seconds it was waited for."""
    blocks = devices * (recipe.batch // (recipe.microbatch or recipe.batch))
    if recipe.batch % blocks:
        raise UserError(f"--batch {recipe.batch} does not divide into {blocks} blocks: one a device and microbatch.")

    def make(number: int) -> tuple[np.ndarray, Batch]:
        rows = rows_at(len(pairs.captions), recipe.batch, recipe.seed, number)
        return rows, batch_of(pairs, rows, model, recipe, blocks, number)

    with ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(make, first)
        for number in range(first, recipe.steps):
            start = time.monotonic()
            rows, batch = waiting.result()
            waited = time.monotonic() - start
            if number + 1 < recipe.steps:
                waiting = ahead.submit(make, number + 1)
            yield number, rows, batch, waited


def batch_of(pairs: Pairs, rows: np.ndarray, model: Model, recipe: Recipe, blocks: int, number: int) -> Batch:
    """The pairs of those rows, for step `number`, in blocks, of which this process gets its share.

    Wrong captions are dealt out one to each block in turn, so that no block is longer than others and the set of them
    does not depend on the number of blocks.
    """
    m, room = recipe.batch // blocks, int(recipe.batch * recipe.exchanged_sides)
    captions = [pairs.captions[row] for row in rows]
    wrong = wrong_sides(captions, room)
    dealt = [captions[b * m : (b + 1) * m] + wrong[b::blocks] for b in range(blocks)]
    c = m + -(-room // blocks)
    real = np.array([[i < len(block) for i in range(c)] for block in dealt])
    words = np.full((blocks, c), -1, np.int32)
    for b, block in enumerate(dealt):
        words[b, : len(block)] = [pairs.words.get(_folded(caption), -1) for caption in block]
    share, at = blocks // jax.process_count(), jax.process_index()
    mine = slice(share * at, share * (at + 1))
    keys = np.random.SeedSequence((recipe.seed, number)).generate_state(2 * recipe.batch).reshape(blocks, m, 2)
    own = rows.reshape(blocks, m)[mine]
    texts = _pools(dealt, c, pairs.pools) if pairs.pools else pack(*_encoded(dealt, c, model), model.config.text)
    texts = jax.tree.map(lambda x: x[mine], texts)
    numbers = pairs.pictures[own], words[mine], pairs.concepts[own]
    return Batch(pairs.images[own], texts, real[mine], *numbers, keys[mine])


def wrong_sides(captions: Sequence[str], most: int) -> list[str]:
    """The first one-sided captions with left and right exchanged."""
    return [wrong for caption in captions if (wrong := mirrored(caption))][:most]


def _encoded(dealt: Sequence[Sequence[str]], c: int, model: Model) -> tuple[np.ndarray, np.ndarray]:
    """Ids and valid (n, c, t) of the captions of each block, absent ones without valid tokens."""
    ids, valid = model.tokens.encode([caption for block in dealt for caption in block])
    shape = (len(dealt), c, ids.shape[1])
    found = np.zeros(shape, np.int32), np.zeros(shape, bool)
    start = 0
    for b, block in enumerate(dealt):
        for whole, part in zip(found, (ids, valid), strict=True):
            whole[b, : len(block)] = part[start : start + len(block)]
        start += len(block)
    return found


def _pools(dealt: Sequence[Sequence[str]], c: int, pools: dict[str, np.ndarray]) -> np.ndarray:
    width = len(next(iter(pools.values())))
    found = np.ones((len(dealt), c, width), np.float32)  # ones: an absent caption's vector must be finite
    for b, block in enumerate(dealt):
        for i, caption in enumerate(block):
            found[b, i] = pools[caption]
    return found


def _folded(caption: str) -> str:
    return " ".join(caption.casefold().split())

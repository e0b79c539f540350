"""What a run learns from, and its batches: a function of the seed and the step, made while the device works."""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from medclip.data.dataset import Split
from medclip.data.foils import swap_left_right
from medclip.data.normalize import casefold_whitespace
from medclip.errors import UserError
from medclip.model.checkpoint import Model
from medclip.model.packing import pack
from medclip.progress import console
from medclip.train.config import TrainConfig
from medclip.train.data import Pictures, cache_of, cached, rows_at
from medclip.train.distributed import is_first, wait_for_all
from medclip.train.step import Batch

AHEAD = 2  # batches made while the device works: one is tokenized while images of the other are still decoded


@dataclass(frozen=True)
class Pairs:
    """The pairs of a run. A batch reads what it needs of them when it is made: memory does not grow with them."""

    split: Split
    images: Pictures | np.ndarray
    """Row i, of pair i: its pixels u8 (s, s, 3), or a frozen tower's pool f32 (w,), held in memory."""
    concepts: dict[str, int]
    """A number for each UMLS concept that more than one pair has, if targets are soft."""
    most: int
    """The most of these that a pair has."""
    pools: dict[str, np.ndarray] | None = None
    """A frozen text tower's pool f32 (w,) of each caption, as written and with its sides exchanged; in memory."""


def read_images(training: Split, preprocessor: Mapping[str, Any], cache_gb: float) -> Pictures | np.ndarray:
    """The images of training: decoded once into DATA/cache where they have room there, or else at each step."""
    pictures = Pictures(training, preprocessor)
    gb, free = math.prod(pictures.shape) / 1e9, shutil.disk_usage(training.folder).free / 1e9
    kept = gb <= cache_gb and (cache_of(pictures).exists() or gb < free)
    if is_first():
        why = f"limit --image-cache-gb {cache_gb:g}, {free:,.0f} GB free"
        where = "kept in DATA/cache" if kept else "not kept: decoded at each step"
        console.print(
            f"images of {training.name}: {len(training):,} take {gb:,.2f} GB decoded, {where} ({why})", soft_wrap=True
        )
        if kept:
            cached(pictures)
    wait_for_all("pixels")  # for what the first decodes
    return cached(pictures) if kept else pictures


def read_pairs(split: Split, images: Pictures | np.ndarray, soft: bool) -> Pairs:
    """The pairs of a split whose pixels or pools are `images`; `soft`: with their concepts."""
    if not soft:
        return Pairs(split, images, {}, 0)
    often = Counter(concept for row in split.iter_column("concepts") for concept in set(row or ()))
    number = {concept: i for i, concept in enumerate(sorted(c for c, times in often.items() if times > 1))}
    if not number:
        raise UserError(f"--soft-target-temperature: no two pairs of {split.folder} share a UMLS concept.")
    most = max(len(number.keys() & set(row or ())) for row in split.iter_column("concepts"))
    return Pairs(split, images, number, most)


def batches(
    pairs: Pairs, model: Model, recipe: TrainConfig, devices: int, first: int
) -> Iterator[tuple[int, np.ndarray, Batch, float]]:
    """From step `first` on: its number, its rows, this process's blocks of it, and when it was asked for."""
    blocks = devices * (recipe.batch_size // (recipe.micro_batch_size or recipe.batch_size))
    if recipe.batch_size % blocks:
        raise UserError(
            f"--batch-size {recipe.batch_size} does not divide into {blocks} blocks: one a device and microbatch."
        )

    def make(number: int) -> tuple[np.ndarray, Batch]:
        rows = rows_at(len(pairs.split), recipe.batch_size, recipe.seed, number)
        return rows, batch_of(pairs, rows, model, recipe, blocks, number)

    with ThreadPoolExecutor(AHEAD) as ahead:
        waiting = deque(ahead.submit(make, number) for number in range(first, min(first + AHEAD, recipe.steps)))
        for number in range(first, recipe.steps):
            asked = time.monotonic()
            rows, batch = waiting.popleft().result()
            if number + AHEAD < recipe.steps:
                waiting.append(ahead.submit(make, number + AHEAD))
            yield number, rows, batch, asked


def batch_of(pairs: Pairs, rows: np.ndarray, model: Model, recipe: TrainConfig, blocks: int, number: int) -> Batch:
    """The pairs of those rows, for step `number`, in blocks, of which this process gets its share.

    Only the images of that share are decoded; all captions are read, as how long they are decides every block's
    shape. Wrong captions are dealt out one to each block in turn, so that no block is longer than others and the set of
    them does not depend on the number of blocks.
    """
    m, room = recipe.batch_size // blocks, int(recipe.batch_size * recipe.hard_negatives)
    captions = pairs.split.take("caption", rows)
    wrong = wrong_sides(captions, room)
    dealt = [captions[b * m : (b + 1) * m] + wrong[b::blocks] for b in range(blocks)]
    c = m + -(-room // blocks)
    real = np.array([[i < len(block) for i in range(c)] for block in dealt])
    said = [caption for block in dealt for caption in block]
    words = _placed(_numbers(map(casefold_whitespace, said)), real, -1)
    pictures = _numbers(pairs.split.take("sha256", rows)).reshape(blocks, m)
    if pairs.pools:
        texts = _placed(np.stack([pairs.pools[caption] for caption in said]), real, 1)  # an absent one must be finite
    else:
        texts = pack(*(_placed(x, real) for x in model.tokenizer.encode(said)), model.config.text)
    keys = np.random.SeedSequence((recipe.seed, number)).generate_state(2 * recipe.batch_size).reshape(blocks, m, 2)
    share, at = blocks // jax.process_count(), jax.process_index()
    mine = slice(share * at, share * (at + 1))
    own = rows.reshape(blocks, m)[mine]
    numbers = pictures[mine], words[mine], _concepts(pairs, own)
    return Batch(pairs.images[own], jax.tree.map(lambda x: x[mine], texts), real[mine], *numbers, keys[mine])


def wrong_sides(captions: Sequence[str], most: int) -> list[str]:
    """The first one-sided captions with left and right exchanged."""
    return [wrong for caption in captions if (wrong := swap_left_right(caption))][:most]


def _placed(values: np.ndarray, real: np.ndarray, absent: float = 0) -> np.ndarray:
    """Values (k, …) of the k captions that are `real` (n, c), as (n, c, …)."""
    found = np.full((*real.shape, *values.shape[1:]), absent, values.dtype)
    found[real] = values
    return found


def _numbers(values: Iterable[str]) -> np.ndarray:
    """i32: equal where the values are."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], np.int32)


def _concepts(pairs: Pairs, rows: np.ndarray) -> np.ndarray:
    found = np.full((rows.size, pairs.most), len(pairs.concepts), np.int32)
    if pairs.concepts:
        for i, said in enumerate(pairs.split.take("concepts", rows.ravel())):
            known = sorted(pairs.concepts.keys() & set(said or ()))
            found[i, : len(known)] = [pairs.concepts[concept] for concept in known]
    return found.reshape(*rows.shape, pairs.most)

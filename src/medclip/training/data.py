"""What a run trains on, and its batches: a function of (seed, step), made ahead while the device works."""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped, UInt8, UInt32

from medclip.data.checked_files import DamageError
from medclip.data.dataset import Split, duplicate_ids
from medclip.data.hard_negatives import hard_negatives
from medclip.data.normalize import casefold_whitespace
from medclip.data.pixel_cache import cache_file, open_cache, write_cache
from medclip.encode.decode import fill_pixels, pixel_batches, pixel_software
from medclip.encode.encoder import Backend, split_pixels
from medclip.errors import LockedError, UserError, describe_error
from medclip.model.checkpoint import Model
from medclip.model.image_processor import ImageProcessor
from medclip.model.packing import PackedText, pack
from medclip.progress import console, progress
from medclip.training import distributed
from medclip.training.config import ResolvedTrainConfig
from medclip.training.distributed import barrier, is_first
from medclip.training.frozen_features import CachedViews, frozen_captions, frozen_images, frozen_views
from medclip.training.optim import is_frozen
from medclip.training.step import Batch
from medclip.training.token_counts import TokenCounts, count_tokens

NUM_PREFETCHED = 2  # one batch is tokenized while images of the other are still decoded
T = TypeVar("T")
POLL_SECONDS = 0.002  # resolution of the wait for data; steps take tens of milliseconds and more


def rows_at(n: int, batch_size: int, seed: int, step: int) -> Int[np.ndarray, " b"]:
    """Row numbers of a step: each epoch is a fresh permutation of n rows, its remainder left out.

    Needs 1 <= batch_size <= n. The array is a view of the epoch's order and cannot be written to.
    """
    epoch, batch = divmod(step, n // batch_size)
    return _epoch_order(n, seed, epoch)[batch * batch_size : (batch + 1) * batch_size]


@lru_cache(maxsize=1)
def _epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """Drawn once an epoch and held, 8 bytes a pair: of all n! orders each is equally likely.

    25 million take 1 s and 200 MB. An order computed row by row (a Feistel network that walks its cycles, Black and
    Rogaway 2002) needs no memory but 0.8 ms for 4,096 rows: over an epoch more time, for one of few possible orders.
    """
    order = np.random.default_rng((seed, epoch)).permutation(n)
    order.flags.writeable = False
    return order


class SplitImages:
    """The images of a split at a model's input size, decoded when they are indexed: `images[rows]`."""

    def __init__(self, split: Split, processor: ImageProcessor):
        self.split, self.image_processor = split, processor
        self.shape = (len(split), processor.side, processor.side, 3)
        """(n, s, s, 3), of u8."""

    def __getitem__(self, rows: Int[np.ndarray, ...]) -> UInt8[np.ndarray, "... s s 3"]:
        """Pixels of those rows, decoded in threads. WorkError names a damaged image."""
        pixels = np.empty((rows.size, *self.shape[1:]), np.uint8)
        images = ((row, None) for row in rows.ravel().tolist())
        return fill_pixels(pixels, images, self.read).reshape(*rows.shape, *self.shape[1:])

    def iter_first(self, num_rows: int) -> Iterator[tuple[int, bytes]]:
        """The first rows with their encoded images, for `read`; those behind a URL a shard at a time."""
        rows = range(num_rows)
        return zip(rows, self.split.iter_images(rows), strict=True)

    def read(self, image: tuple[int, bytes | None]) -> UInt8[np.ndarray, "s s 3"]:
        """Pixels of a row, whose image is read unless it is given. Errors of `split_pixels`."""
        return split_pixels(self.split, image[0], self.image_processor, image[1])


def decode_into(images: SplitImages, pixels: UInt8[np.ndarray, "m s s 3"]) -> None:
    """Fill `pixels` with the first m images."""
    with progress(f"decode {images.split.name}", len(pixels), "pairs") as advance:
        fill_pixels(pixels, images.iter_first(len(pixels)), images.read, advance)


def pixel_cache_file(images: SplitImages) -> Path:
    """The file of `cache_pixels`, named by hashes of the data with what the processor does, and of the software."""
    keys = ((images.image_processor, images.split.digest), pixel_software())
    return cache_file(images.split, images.shape[1], *(hashlib.sha256(repr(key).encode()).hexdigest() for key in keys))


def cache_pixels(images: SplitImages) -> UInt8[np.ndarray, "n s s 3"]:
    """All images as a memory map in DATA/cache, decoded unless they are there, whole. Errors of `write_cache`."""
    path, split = pixel_cache_file(images), images.split
    try:
        return open_cache(path, split)
    except FileNotFoundError:
        pass
    except DamageError as error:
        console.print(f"warning: {path} {error}: its images are decoded again.", soft_wrap=True)
    with progress(f"decode {split.name}", len(split), "pairs") as advance:
        write_cache(path, split, pixel_batches(images.iter_first(len(split)), images.read), advance)
    return open_cache(path, split)


def read_images(
    split: Split, processor: ImageProcessor, max_cache_gb: float
) -> SplitImages | UInt8[np.ndarray, "n s s 3"]:
    """The images of a split: decoded once into DATA/cache where they have room there, or else at each step."""
    images = SplitImages(split, processor)
    gb, free_gb = math.prod(images.shape) / 1e9, shutil.disk_usage(split.folder).free / 1e9
    use_cache = gb <= max_cache_gb and (pixel_cache_file(images).exists() or gb < free_gb)
    cached = images
    if is_first():
        reason = f"limit --image-cache-gb {max_cache_gb:g}, {free_gb:,.0f} GB free"
        outcome = "cached in DATA/cache" if use_cache else "not cached: decoded at each step"
        console.print(
            f"images of {split.name}: {len(split):,} take {gb:,.2f} GB decoded, {outcome} ({reason})", soft_wrap=True
        )
        if use_cache:
            try:
                cached = cache_pixels(images)
            except (OSError, LockedError) as error:
                console.print(f"not cached after all: {describe_error(error)}", soft_wrap=True)
    barrier("pixels")  # the first process decodes for all
    if is_first() or not use_cache:
        return cached
    try:
        return open_cache(pixel_cache_file(images), split)
    except (FileNotFoundError, DamageError):
        return images


@dataclass(frozen=True)
class Pairs:
    """The pairs of a run, read a batch at a time: memory does not grow with their number."""

    split: Split
    images: SplitImages | np.ndarray | CachedViews
    """Row i, of pair i: its pixels u8 (s, s, 3), or a frozen tower's features f32 (w,) in memory, or views."""
    text_features: Mapping[str, np.ndarray] | None = None
    """A frozen text tower's features f32 (w,) of each caption and of each hard negative; in memory."""


def read_pairs(
    split: Split, backend: Backend, config: ResolvedTrainConfig, scales: Mapping[str, float], max_cache_gb: float
) -> Pairs:
    """The pairs of a split as a model's towers take them.

    `scales` are the tensors' learning-rate scales: a frozen tower's features are computed once and take the place of
    its input (LiT, Zhai et al. 2022): of the image as it is, or of `cached_views` augmented views of it. Where the
    first layers of a ViT alone are frozen, what they give for such views takes the place of the image.
    """
    model = backend.model
    if config.cached_views:
        images = frozen_views(backend, split, config, scales)
    elif is_frozen(model.config.vision, scales):
        images = frozen_images(backend, split)
    else:
        images = read_images(split, model.image_processor, max_cache_gb)
    text_features = _text_features(backend, split, config) if is_frozen(model.config.text, scales) else None
    return Pairs(split, images, text_features)


def _text_features(backend: Backend, split: Split, config: ResolvedTrainConfig) -> dict[str, np.ndarray]:
    captions = split.column("caption")
    foils = (foil for c in captions for foil in hard_negatives(c, config.hard_negatives, config.seed) if foil)
    texts = list(dict.fromkeys([*captions, *foils]))
    return dict(zip(texts, frozen_captions(backend, texts), strict=True))


class Loader(Generic[T]):
    """Iterates batches of successive steps, made ahead in threads, and measures its own wait.

    `device_output` is for the loop to set to the arrays that the device is computing: time in which they are not ready
    yet is not a wait for data.
    """

    def __init__(self, make: Callable[[int], T], steps: range):
        self._make, self._steps = make, steps
        self.device_output: Any = None
        self.wait_seconds = 0.0
        """Time in which the device had nothing to do for want of a batch."""

    def __iter__(self) -> Iterator[T]:
        steps = iter(self._steps)
        with ThreadPoolExecutor(NUM_PREFETCHED) as pool:
            queue = deque(pool.submit(self._make, step) for step in islice(steps, NUM_PREFETCHED))
            while queue:
                result = self._await(queue.popleft())
                queue.extend(pool.submit(self._make, step) for step in islice(steps, 1))
                yield result

    def _await(self, batch: Future[T]) -> T:
        while not batch.done() and not all(array.is_ready() for array in jax.tree.leaves(self.device_output)):
            wait([batch], timeout=POLL_SECONDS)
        start = time.monotonic()
        result = batch.result()
        self.wait_seconds += time.monotonic() - start
        return result


def count_blocks(config: ResolvedTrainConfig, num_devices: int) -> int:
    """The blocks of a batch: one per device and micro-batch. UserError where it does not divide into these."""
    num_blocks = num_devices * (config.batch_size // config.micro_batch_size)
    if config.batch_size % num_blocks:
        raise UserError(
            f"--batch-size {config.batch_size} does not divide into {num_blocks} blocks: "
            "one per device and micro-batch."
        )
    return num_blocks


def make_loader(
    pairs: Pairs, model: Model, config: ResolvedTrainConfig, num_devices: int, first_step: int
) -> Loader[tuple[np.ndarray, Batch]]:
    """The rows of each step, `first_step` (counted from 0) on, and this process's part of its batch.

    UserError as of `count_blocks`.
    """
    num_blocks, steps = count_blocks(config, num_devices), range(first_step, config.steps)
    counts = None
    if jax.process_count() > 1 and not pairs.text_features:
        rows = rows_of_steps(len(pairs.split), config.batch_size, config.seed, steps)
        counts = count_tokens(rows, pairs.split, model, config)

    def make(step: int) -> tuple[np.ndarray, Batch]:
        rows = rows_at(len(pairs.split), config.batch_size, config.seed, step)
        return rows, make_batch(pairs, rows, model, config, num_blocks, step, counts)

    return Loader(make, steps)


def rows_of_steps(n: int, batch_size: int, seed: int, steps: range) -> Int[np.ndarray, " k"]:
    """The rows of all these steps, in order."""
    if len(steps) >= n // batch_size:
        return np.arange(n)
    return np.unique(np.concatenate([rows_at(n, batch_size, seed, step) for step in steps]))


def make_batch(
    pairs: Pairs,
    rows: Int[np.ndarray, " b"],
    model: Model,
    config: ResolvedTrainConfig,
    num_blocks: int,
    step: int,
    counts: TokenCounts | None = None,
) -> Batch:
    """The pairs of those rows in blocks, of which this process gets its share.

    Only the images of that share are decoded and only its captions tokenized; all captions are read, to number equal
    ones and as no foil may be what another pair says of the same image. `counts`, of these rows among others, is for
    one process of several: the lengths of all captions decide every block's shape.
    """
    block_rows = rows.reshape(num_blocks, -1)
    mine = distributed.process_slice(num_blocks)
    captions, image_hashes = pairs.split.take("caption", rows), pairs.split.take("sha256", rows)
    foils = batch_foils(captions, image_hashes, config)
    foil_mask = np.array([[foil is not None for foil in own] for own in foils], bool)
    foil_mask = foil_mask.reshape(*block_rows.shape, len(config.hard_negatives))
    own = slice(mine.start * block_rows.shape[1], mine.stop * block_rows.shape[1])
    min_rows = counts.rows_needed(rows, foil_mask, model) if counts else 0
    texts = text_inputs(*block_captions(captions[own], foils[own], foil_mask[mine]), pairs, model, min_rows)
    image_ids, caption_ids = duplicate_ids(image_hashes, captions)
    keys = augmentation_keys(config.seed, step, config.batch_size).reshape(*block_rows.shape, 2)[mine]
    return Batch(
        images=_images_at(pairs.images, block_rows[mine], keys),
        texts=texts,
        foil_mask=foil_mask[mine],
        image_ids=image_ids.reshape(block_rows.shape)[mine],
        caption_ids=caption_ids.reshape(block_rows.shape)[mine],
        aug_keys=keys,
    )


def batch_foils(
    captions: Sequence[str], image_hashes: Sequence[str], config: ResolvedTrainConfig
) -> list[tuple[str | None, ...]]:
    """Each pair's foil of each kind; None where it has none, or where another pair says it of the same image."""
    true = set(zip(image_hashes, map(casefold_whitespace, captions), strict=True))
    return [
        tuple(
            foil if foil and (image, casefold_whitespace(foil)) not in true else None
            for foil in hard_negatives(caption, config.hard_negatives, config.seed)
        )
        for caption, image in zip(captions, image_hashes, strict=True)
    ]


def block_captions(
    captions: Sequence[str], foils: Sequence[Sequence[str | None]], foil_mask: Bool[np.ndarray, "n m k"]
) -> tuple[list[str], Bool[np.ndarray, "n c"]]:
    """The captions of n blocks, each with those of its m pairs and then their foils, and where a block has one."""
    n, m, k = foil_mask.shape
    blocks = [
        [*captions[i : i + m], *(foil for own in foils[i : i + m] for foil in own if foil is not None)]
        for i in range(0, n * m, m)
    ]
    text_mask = np.concatenate([np.ones((n, m), bool), foil_mask.reshape(n, m * k)], axis=1)
    return [caption for block in blocks for caption in block], text_mask


def text_inputs(
    captions: Sequence[str], text_mask: Bool[np.ndarray, "n c"], pairs: Pairs, model: Model, min_rows: int = 0
) -> PackedText | Float[np.ndarray, "n c w"]:
    """The text tower's input for dealt captions, in so many rows at least, or a frozen tower's features."""
    if pairs.text_features:
        features = np.stack([pairs.text_features[caption] for caption in captions])
        return _scatter(features, text_mask, 1)  # an absent one must have a finite unit vector
    ids, valid = (_scatter(tokens, text_mask) for tokens in model.tokenizer.encode(captions))
    valid[..., 0] |= ~text_mask  # the mean of no token has no gradient that is finite
    return pack(ids, valid, model.config.text, min_rows)


def _images_at(
    images: SplitImages | np.ndarray | CachedViews, rows: Int[np.ndarray, "n m"], keys: UInt32[np.ndarray, "n m 2"]
) -> np.ndarray:
    """The images of rows; of views, the one that an image's random key draws."""
    return images.draw(rows, keys[..., 0]) if isinstance(images, CachedViews) else images[rows]


def augmentation_keys(seed: int, step: int, batch_size: int) -> UInt32[np.ndarray, "b 2"]:
    """The random key of each image of a step."""
    return np.random.SeedSequence((seed, step)).generate_state(2 * batch_size).reshape(batch_size, 2)


def _scatter(
    values: Shaped[np.ndarray, "k ..."], mask: Bool[np.ndarray, "n c"], fill: int = 0
) -> Shaped[np.ndarray, "n c ..."]:
    """Values of the k places where `mask` is True, at their places."""
    full = np.full((*mask.shape, *values.shape[1:]), fill, values.dtype)
    full[mask] = values
    return full

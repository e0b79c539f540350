"""How the cost of ours grows with the size of its input: python -m performance.growth CURVE ROUNDS SIZE…"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from performance.models import choose_images, write_pairs
from performance.record import Bounds, Growth, Result, run
from performance.training import train_peak

if TYPE_CHECKING:
    from medclip.model.checkpoint import Model

Curve = Callable[[int], Callable[[], object]]
"""Makes the input of a size; what it returns is timed."""


def candidates(size: int) -> Callable[[], object]:
    from medclip.metrics import ranks

    images, texts = _unit_rows(size), _unit_rows(size)
    return lambda: ranks(images, texts)


def index_rows(size: int) -> Callable[[], object]:
    from medclip.search.stores.base import scan

    rows, query, mask = _unit_rows(size), _unit_rows(1), np.ones(size, bool)
    return lambda: scan([(0, rows)], query, 10, mask)


def caption_length(size: int) -> Callable[[], object]:
    backend = _small_backend()
    ids, valid = np.ones((16, size), np.int32), np.ones((16, size), bool)
    return lambda: backend.text_features(ids, valid)


def batch(size: int) -> Callable[[], object]:
    model = _small_backend("tiny").model
    side = model.image_processor.side
    ids, valid = model.tokenizer.encode(["CT of the chest"] * size)
    return _step(model, "tiny", np.zeros((size, side, side, 3), np.uint8), ids, valid)


def step_captions(size: int) -> Callable[[], object]:
    model = _small_backend().model
    features = np.ones((16, model.config.vision.hidden_size), np.float32)  # a frozen vision tower's
    return _step(model, "small", features, np.ones((16, size), np.int32), np.ones((16, size), bool))


def _step(
    model: Model, preset: Literal["tiny", "small"], images: np.ndarray, ids: np.ndarray, valid: np.ndarray
) -> Callable[[], object]:
    """One step of training from the first state, on pixels or on features of images."""
    import jax

    from medclip.model.packing import pack
    from medclip.model.shapes_init import in_tower
    from medclip.training.config import TrainConfig, resolve
    from medclip.training.distributed import all_devices, shard_blocks
    from medclip.training.losses import contrastive_loss
    from medclip.training.optim import make_optimizer
    from medclip.training.step import Batch, init_state, make_step

    size, vision = len(images), model.config.vision
    config = resolve(TrainConfig(preset=preset, batch_size=size), size)
    trainable = {name for name in model.params if images.ndim > 2 or not in_tower(name, vision)}
    optimizer, mesh = make_optimizer(config, {}), all_devices()
    step = make_step(model, config, trainable, optimizer, contrastive_loss, mesh)
    numbers = np.arange(size, dtype=np.int32)[None]
    inputs = Batch(
        images=images[None], texts=pack(ids[None], valid[None], model.config.text),
        foil_mask=np.zeros((1, size, 0), bool), image_ids=numbers, caption_ids=numbers,
        aug_keys=np.zeros((1, size, 2), np.uint32),
    )  # fmt: skip
    params = {name: np.asarray(value) for name, value in model.params.items()}

    def run_step() -> None:
        state = init_state(params, trainable, optimizer, False)
        jax.block_until_ready(step(state, shard_blocks(inputs, mesh)))

    return run_step


def _small_backend(preset: str = "small"):
    from medclip import jax_setup

    jax_setup.start()
    from medclip.encode.encoder import jax_backend
    from medclip.training.config import TrainConfig, resolve
    from medclip.training.run import initial_model

    config = resolve(TrainConfig(preset=preset, batch_size=8, context_length=128 if preset == "small" else None), 8)  # type: ignore[arg-type]
    return jax_backend(initial_model(config, ["CT of the chest"] * 8))


def _unit_rows(size: int) -> np.ndarray:
    rows = np.random.default_rng(size).random((size, 512), np.float32) - 0.5
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


CURVES: dict[str, tuple[Curve, str, str, Sequence[int], str]] = {
    "candidates": (candidates, "ranks of both directions, 512 numbers", "candidates", (1024, 2048, 4096, 8192), "2"),
    "index-rows": (index_rows, "exact search, one query, 512 numbers", "rows", (65536, 131072, 262144, 524288), "1"),
    "caption-length": (
        caption_length, "16 captions through the small preset's text tower", "tokens", (16, 32, 64, 128),
        "1, and 2 of attention",
    ),
    "step-captions": (
        step_captions, "a training step of the small preset's text tower, 16 pairs, images cached", "tokens",
        (16, 32, 64, 128), "1, and 2 of attention",
    ),
    "batch": (batch, "a training step of the tiny preset", "pairs", (64, 128, 256, 512), "1, and 2 of the loss"),
}  # fmt: skip


def measure(bounds: Bounds) -> Iterator[Result]:
    for name, (_, work, size, sizes, expected) in CURVES.items():
        sizes = [bounds.size(number) for number in sizes]
        costs = json.loads(run([sys.executable, "-m", "performance.growth", name, bounds.rounds, *sizes]).output)
        yield Growth(work, size, sizes, costs, expected)
    yield _preparation(bounds)
    yield _memory(bounds)


def _preparation(bounds: Bounds) -> Growth:
    sizes, costs = [bounds.size(number) for number in (125, 250, 500, 1000)], []
    files = choose_images(bounds, sizes[-1])
    for number in sizes:
        source = write_pairs(files[:number], bounds.folder / str(number))
        outs = [bounds.folder / f"data{number}-{n}" for n in range(bounds.rounds)]
        seconds = [float(run([sys.executable, "-c", PREPARE, source, out]).output) for out in outs]
        costs.append(float(np.median(seconds)))
    return Growth("preparation in one process, without its start", "images", sizes, costs, "1")


def _memory(bounds: Bounds) -> Growth:
    sizes = [bounds.size(number) for number in (4_000, 16_000, 64_000, 256_000)]
    peaks = [train_peak(bounds.folder / f"pairs{number}", number) for number in sizes]
    return Growth("**memory** of training of its own, tiny preset, 20 steps, one run", "pairs", sizes, peaks, "0")


PREPARE = """
import sys, time
from pathlib import Path
from medclip.data.prepare import prepare
start = time.process_time()
prepare(sys.argv[1], Path(sys.argv[2]), num_workers=1)
print(time.process_time() - start)
"""


def cost(work: Callable[[], object], rounds: int) -> float:
    """Seconds of processor time, the median of so many runs; one before them compiles."""
    work()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return float(np.median(seconds))


if __name__ == "__main__":
    name, rounds, *sizes = sys.argv[1:]
    print(json.dumps([cost(CURVES[name][0](int(size)), int(rounds)) for size in sizes]))

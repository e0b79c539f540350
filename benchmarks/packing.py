"""What packing is worth: steps on the same batches, captions packed and one caption a row, in turn.

    python benchmarks/packing.py --data DATA [--preset small] [--rounds 5] [--steps 10]

Prints the seconds of a round of steps for each, and the ratio (one a row / packed) of each round: median and range.
Both take the same gradient within float32 rounding; `tests/model/test_packing.py` holds them to it.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

import numpy as np

from medclip import jax_setup

jax_setup.start()

import jax  # noqa: E402
from medclip.training.augment import augmented  # noqa: E402
from medclip.training.initial_model import initial_model  # noqa: E402

from medclip.data.dataset import Split  # noqa: E402
from medclip.model.config import TextConfig  # noqa: E402
from medclip.model.packing import PackedText, pack  # noqa: E402
from medclip.training import feed  # noqa: E402
from medclip.training.config import TrainConfig, resolve  # noqa: E402
from medclip.training.data import Pictures, rows_at  # noqa: E402
from medclip.training.distributed import all_devices, by_blocks  # noqa: E402
from medclip.training.losses import contrastive  # noqa: E402
from medclip.training.optim import optimizer  # noqa: E402
from medclip.training.step import init_state, make_step  # noqa: E402


def one_a_row(ids: np.ndarray, valid: np.ndarray, tower: TextConfig) -> PackedText:
    """What padding costs: each caption alone in a row of the context length."""
    _, c, t = ids.shape
    parts = [pack(ids[:, i : i + 1], valid[:, i : i + 1], tower) for i in range(c)]
    at = np.concatenate([np.where(part.caption_index >= 0, i, -1) for i, part in enumerate(parts)], axis=1)
    pooled = np.concatenate([part.pool_index + i * t for i, part in enumerate(parts)], axis=1)
    whole = [np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("ids", "position")]
    return PackedText(whole[0], at, whole[1], pooled)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--data", type=Path, required=True)
    ask.add_argument("--preset", choices=("tiny", "small"), default="small")
    ask.add_argument("--batch-size", type=int, default=128)
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--steps", type=int, default=10)
    asked = ask.parse_args()
    split = Split(asked.data, "train")
    recipe = resolve(TrainConfig(preset=asked.preset, batch_size=asked.batch_size), len(split))
    model = initial_model(recipe, split.iter_column("caption"))
    pairs = feed.read_pairs(split, Pictures(split, model.preprocessor), False)
    rule, learn, mesh = optimizer(recipe, {}), set(model.params), all_devices()
    step = make_step(model, recipe, learn, rule, contrastive, partial(augmented, recipe=recipe), mesh)
    rows = [rows_at(len(split), recipe.batch_size, 0, number) for number in range(asked.steps)]
    made = {}
    for name, how in (("packed", pack), ("one a row", one_a_row)):
        feed.pack = how
        made[name] = [
            by_blocks(feed.batch_of(pairs, part, model, recipe, 1, number), mesh) for number, part in enumerate(rows)
        ]
    lengths = {name: sorted({batch.texts.ids.shape[1] for batch in batches}) for name, batches in made.items()}
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(asked.rounds + 1):
        for name, batches in made.items():
            state, start = init_state(model.params, learn, rule, False), time.monotonic()
            for batch in batches:
                state, told = step(state, batch)
            jax.block_until_ready((state, told))
            seconds[name].append(time.monotonic() - start)
    packed, padded = (np.array(seconds[name][1:]) for name in made)  # the first round compiled
    ratio = padded / packed
    print(json.dumps({"preset": asked.preset, "batch": asked.batch_size, "rows of text": lengths}))
    print(json.dumps({name: [round(s, 2) for s in found[1:]] for name, found in seconds.items()}))
    print(json.dumps({"ratio": {"median": np.median(ratio), "low": ratio.min(), "high": ratio.max()}}))


if __name__ == "__main__":
    main()

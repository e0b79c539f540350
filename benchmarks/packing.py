"""What packing is worth: steps on the same batches, captions packed and one caption a row, in turn.

    python benchmarks/packing.py --data DATA [--preset small] [--rounds 5] [--steps 10]

Prints the seconds of a round of steps for each, and the ratio (one a row / packed) of each round: median and range.
Both take the same gradient within float32 rounding; `tests/model/test_packing.py` holds them to it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from medclip import jax_setup

jax_setup.start()

import jax  # noqa: E402

from medclip.data.dataset import Split  # noqa: E402
from medclip.model.checkpoint import Model  # noqa: E402
from medclip.model.packing import PackedText, pack  # noqa: E402
from medclip.training.config import TrainConfig, resolve  # noqa: E402
from medclip.training.data import Pairs, SplitImages, make_batch, rows_at  # noqa: E402
from medclip.training.distributed import all_devices, shard_blocks  # noqa: E402
from medclip.training.losses import contrastive_loss  # noqa: E402
from medclip.training.optim import make_optimizer  # noqa: E402
from medclip.training.run import initial_model  # noqa: E402
from medclip.training.step import Batch, init_state, make_step  # noqa: E402


def unpack(batch: Batch, captions: list[str], model: Model) -> Batch:
    """The batch with each caption alone in a row of the context length: what padding costs."""
    ids, valid = model.tokenizer.encode(captions)
    rows = [pack(ids[None, i : i + 1], valid[None, i : i + 1], model.config.text) for i in range(len(captions))]
    context_length = ids.shape[1]
    return batch._replace(
        texts=PackedText(
            ids=np.concatenate([row.ids for row in rows], axis=1),
            caption_index=np.concatenate(
                [np.where(row.caption_index >= 0, i, -1) for i, row in enumerate(rows)], axis=1
            ),
            position=np.concatenate([row.position for row in rows], axis=1),
            pool_index=np.concatenate([row.pool_index + i * context_length for i, row in enumerate(rows)], axis=1),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", choices=("tiny", "small"), default="small")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    split = Split(args.data, "train")
    config = resolve(TrainConfig(preset=args.preset, batch_size=args.batch_size), len(split))
    model = initial_model(config, split.iter_column("caption"))
    pairs = Pairs(split, SplitImages(split, model.image_processor))
    optimizer, trainable, mesh = make_optimizer(config, {}), set(model.params), all_devices()
    train_step = make_step(model, config, trainable, optimizer, contrastive_loss, mesh)
    batches: dict[str, list[Batch]] = {"packed": [], "one a row": []}
    for step in range(args.steps):
        rows = rows_at(len(split), config.batch_size, 0, step)
        batch = make_batch(pairs, rows, model, config, 1, step)
        batches["packed"].append(shard_blocks(batch, mesh))
        batches["one a row"].append(shard_blocks(unpack(batch, split.take("caption", rows), model), mesh))
    lengths = {name: sorted({batch.texts.ids.shape[1] for batch in group}) for name, group in batches.items()}
    seconds: dict[str, list[float]] = {name: [] for name in batches}
    for _ in range(args.rounds + 1):
        for name, group in batches.items():
            state, start = init_state(model.params, trainable, optimizer, False), time.monotonic()
            for batch in group:
                state, metrics = train_step(state, batch)
            jax.block_until_ready((state, metrics))
            seconds[name].append(time.monotonic() - start)
    packed, padded = (np.array(seconds[name][1:]) for name in batches)  # the first round compiled
    ratio = padded / packed
    print(json.dumps({"preset": args.preset, "batch_size": args.batch_size, "rows of text": lengths}))
    print(json.dumps({name: [round(s, 2) for s in values[1:]] for name, values in seconds.items()}))
    print(json.dumps({"ratio": {"median": np.median(ratio), "low": ratio.min(), "high": ratio.max()}}))


if __name__ == "__main__":
    main()

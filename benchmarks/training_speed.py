"""Whole training steps, ours and those of the transformers loop, in turn on the same batches.

    python benchmarks/training_speed.py --data DATA --text-tokenizer TOWER [--batch-size 1024] [--precision bfloat16]

The towers have random weights in the sizes of CLIP ViT-B/32 and BERT-base (`--toy`: two layers each). A batch is pixels
u8 and captions as they come; both take it from memory to the updated weights. The peer is a VisionTextDualEncoder with
SDPA, autocast, fused AdamW and TF32, its captions padded to the longest of their batch, and the same with
`torch.compile`, its captions padded to the context length. Prints pairs/s of every round, the ratio of each round and,
for ours, MFU: FLOPs of matrix products on real tokens (forward, twice that backward) over those of one large product in
the same precision on the same device.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from medclip import jax_setup

jax_setup.start()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from medclip.data.dataset import Split  # noqa: E402
from medclip.encode.encoder import jax_backend  # noqa: E402
from medclip.model.checkpoint import Model  # noqa: E402
from medclip.training.config import ResolvedTrainConfig, TrainConfig, resolve  # noqa: E402
from medclip.training.data import Pairs, make_batch, read_pairs, rows_at  # noqa: E402
from medclip.training.distributed import all_devices, shard_blocks  # noqa: E402
from medclip.training.losses import contrastive_loss  # noqa: E402
from medclip.training.optim import initial_params, make_optimizer  # noqa: E402
from medclip.training.run import initial_model  # noqa: E402
from medclip.training.step import init_state, make_step  # noqa: E402

CONTEXT_LENGTH = 128
Step = Callable[[int], float]
"""Trains on batch i and returns its loss: the device has then finished."""


def write_towers(folder: Path, tokenizer: Path, toy: bool) -> tuple[Path, Path]:
    """Folders of a CLIP vision tower and a BERT with random weights, written by transformers."""
    from transformers import AutoTokenizer, BertConfig, BertModel, CLIPVisionConfig, CLIPVisionModel

    sizes = {"hidden_size": 96, "intermediate_size": 384, "num_attention_heads": 4, "num_hidden_layers": 2}
    vision = CLIPVisionConfig(patch_size=32, **(sizes if toy else {}))
    text = BertConfig(**(sizes if toy else {}))
    CLIPVisionModel(vision).save_pretrained(folder / "vision")
    BertModel(text).save_pretrained(folder / "text")
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder / "text")
    return folder / "vision", folder / "text"


def our_step(
    model: Model, config: ResolvedTrainConfig, pairs: Pairs, batch_rows: Sequence[np.ndarray], scales: dict[str, float]
) -> Step:
    """Steps of ours; the last batch's shapes are compiled like the others'."""
    mesh = all_devices()
    trainable = {name for name, scale in scales.items() if scale}
    optimizer = make_optimizer(config, scales)
    params, _ = initial_params(model, config)
    state = init_state(params, trainable, optimizer, ema=False)
    step = make_step(model, config, trainable, optimizer, contrastive_loss, mesh)
    batches = [make_batch(pairs, rows, model, config, 1, i) for i, rows in enumerate(batch_rows)]

    def run(i: int) -> float:
        nonlocal state
        state, metrics = step(state, shard_blocks(batches[i % len(batches)], mesh))
        return float(metrics["loss"])

    return run


def transformers_step(
    vision: Path, text: Path, pairs: Pairs, batch_rows: Sequence[np.ndarray], bfloat16: bool, compiled: bool
) -> Step:
    """Steps of the transformers loop at its best settings."""
    import torch
    from transformers import AutoTokenizer, VisionTextDualEncoderModel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    model: Any = VisionTextDualEncoderModel.from_vision_text_pretrained(str(vision), str(text)).to(device).train()
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.2, fused=True)
    tokenizer = AutoTokenizer.from_pretrained(text)
    padding = "max_length" if compiled else "longest"
    tokens = [
        tokenizer(
            pairs.split.take("caption", rows),
            padding=padding,
            truncation=True,
            max_length=CONTEXT_LENGTH,
            return_tensors="pt",
        )
        for rows in batch_rows
    ]
    images = [torch.from_numpy(np.ascontiguousarray(pairs.images[rows])) for rows in batch_rows]
    mean, std = (torch.full((3, 1, 1), value, device=device) for value in (122.0, 68.0))

    def run(i: int) -> float:
        i %= len(tokens)
        inputs = {name: value.to(device, non_blocking=True) for name, value in tokens[i].items()}
        x = (images[i].to(device, non_blocking=True).permute(0, 3, 1, 2).float() - mean) / std
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            loss = forward(pixel_values=x, **inputs, return_loss=True).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss)

    return run


def step_flops(model: Model, split: Split, rows: np.ndarray) -> float:
    """FLOPs of one step's matrix products: 2 a weight and token forward, 4 backward, and attention's own."""
    _, valid = model.tokenizer.encode(split.take("caption", rows))
    lengths = valid.sum(axis=1)
    patches = (model.image_processor.side // model.config.vision.patch_size) ** 2 + 1
    total = 0.0
    for tower, tokens in ((model.config.vision, np.full(len(rows), patches)), (model.config.text, lengths)):
        weights = sum(
            np.prod(p.shape)
            for n, p in model.params.items()
            if n.startswith(tower.prefix) and p.ndim == 2 and "layer" in n
        )
        attention = 4 * tower.num_hidden_layers * tower.hidden_size * float((tokens.astype(float) ** 2).sum())
        total += 2 * float(weights) * float(tokens.sum()) + attention
    return 3 * total


def peak_flops(dtype: Any, n: int) -> float:
    """FLOP/s of a product of two random n × n matrices: the best of five."""
    a = jax.random.normal(jax.random.key(0), (n, n)).astype(dtype)
    product = jax.jit(lambda x: x @ x)
    product(a).block_until_ready()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        product(a).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--text-tokenizer", type=Path, required=True, help="a BERT tower's folder")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="of each round")
    parser.add_argument("--toy", action="store_true", help="towers of two layers")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    args = parser.parse_args()
    split = Split(args.data, "train")
    with TemporaryDirectory() as folder:
        vision, text = write_towers(Path(folder), args.text_tokenizer, args.toy)
        config = resolve(
            TrainConfig(
                vision_model=str(vision),
                text_model=str(text),
                batch_size=args.batch_size,
                precision=args.precision,
                context_length=CONTEXT_LENGTH,
            ),
            len(split),
        )
        model = initial_model(config, [])
        _, scales = initial_params(model, config)
        batch_rows = [rows_at(len(split), args.batch_size, 0, i) for i in range(min(4, len(split) // args.batch_size))]
        pairs = read_pairs(split, jax_backend(model), config, scales, max_cache_gb=8.0)
        bfloat16 = args.precision == "bfloat16"
        steps = {
            "ours": our_step(model, config, pairs, batch_rows, scales),
            "transformers": transformers_step(vision, text, pairs, batch_rows, bfloat16, compiled=False),
        }
        if args.compile:
            steps["transformers compiled"] = transformers_step(vision, text, pairs, batch_rows, bfloat16, True)
        speeds: dict[str, list[float]] = {name: [] for name in steps}
        for name, step in steps.items():
            start = time.perf_counter()
            losses = [step(i) for i in range(2 * len(batch_rows))]  # compiles every shape
            seconds = time.perf_counter() - start
            print(json.dumps({"warm-up": name, "seconds": round(seconds, 1), "losses": losses[:2]}), flush=True)
        for _ in range(args.rounds):
            for name, step in steps.items():
                start = time.perf_counter()
                for i in range(args.steps):
                    step(i)
                speeds[name].append(args.steps * args.batch_size / (time.perf_counter() - start))
        peers = np.array([speed for name, speed in speeds.items() if name != "ours"]).max(axis=0)
        ratios = np.array(speeds["ours"]) / peers
        flops = step_flops(model, split, batch_rows[0]) / args.batch_size
        peak = peak_flops(jnp.dtype(args.precision), 512 if args.toy else 8192)
        print(
            json.dumps(
                {
                    "device": jax.devices()[0].device_kind,
                    "pairs/s": {name: [round(v, 1) for v in values] for name, values in speeds.items()},
                    "ours over the best peer": {
                        "median": float(np.median(ratios)),
                        "min": ratios.min(),
                        "max": ratios.max(),
                    },
                    "GFLOP a pair": flops / 1e9,
                    "TFLOP/s": flops * float(np.median(speeds["ours"])) / 1e12,
                    "TFLOP/s of one product": peak / 1e12,
                    "MFU": flops * float(np.median(speeds["ours"])) / peak,
                }
            )
        )


if __name__ == "__main__":
    main()

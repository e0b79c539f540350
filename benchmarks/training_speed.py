"""Whole training steps, ours and those of two projects' loops, in turn on the same pairs.

    python benchmarks/training_speed.py --data DATA --text-tokenizer TOWER [--batch-size 512] [--precision bfloat16]

The towers have random weights in the sizes of CLIP ViT-B/32 and BERT-base (`--toy`: two layers each), without dropout.
Ours takes its batches from the loader of training: pixels are read, captions tokenized and packed while the device
works. The peers' batches lie ready in pinned memory. `transformers` is a VisionTextDualEncoder, `open-clip` a
CustomTextCLIP with its own vision tower; both with SDPA, autocast, fused AdamW and TF32, their captions padded to the
longest of their batch; `compiled`, the same with `torch.compile`, padded to the context length. Prints pairs/s of every
round, the ratio of each round and, for ours, the share of time in which the device waits for a batch, the memory of a
step, and MFU: FLOPs of matrix products on real tokens (forward, twice that backward) over those of one large product in
the same precision on the same device.

On a GPU both libraries need room: `XLA_PYTHON_CLIENT_MEM_FRACTION=0.5`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from medclip import jax_setup

jax_setup.start()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from medclip.data.dataset import Split  # noqa: E402
from medclip.encode.encoder import jax_backend  # noqa: E402
from medclip.model.checkpoint import Model  # noqa: E402
from medclip.training.config import ResolvedTrainConfig, TrainConfig, resolve  # noqa: E402
from medclip.training.data import (  # noqa: E402
    Loader,
    Pairs,
    count_blocks,
    make_batch,
    make_loader,
    read_pairs,
    rows_at,
)
from medclip.training.distributed import all_devices, shard_blocks  # noqa: E402
from medclip.training.losses import contrastive_loss  # noqa: E402
from medclip.training.optim import initial_params, make_optimizer  # noqa: E402
from medclip.training.run import initial_model  # noqa: E402
from medclip.training.step import Batch, State, TrainStep, init_state, make_step  # noqa: E402

CONTEXT_LENGTH = 128
TOY = {"hidden_size": 96, "intermediate_size": 384, "num_attention_heads": 4, "num_hidden_layers": 2}
PEERS = ("transformers", "transformers compiled", "open-clip", "open-clip compiled")
Steps = Callable[[int], float]
"""Takes that many steps more and returns the loss of the last, when the device has finished."""


def write_towers(folder: Path, tokenizer: Path, toy: bool) -> tuple[Path, Path]:
    """Folders of a CLIP vision tower and a BERT with random weights, written by transformers."""
    from transformers import AutoTokenizer, BertConfig, BertModel, CLIPVisionConfig, CLIPVisionModel

    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    CLIPVisionModel(CLIPVisionConfig(patch_size=32, **(TOY if toy else {}))).save_pretrained(folder / "vision")
    BertModel(BertConfig(**no_dropout, **(TOY if toy else {}))).save_pretrained(folder / "text")
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder / "text")
    return folder / "vision", folder / "text"


def our_steps(
    model: Model, config: ResolvedTrainConfig, pairs: Pairs, scales: dict[str, float]
) -> tuple[Steps, Loader[tuple[np.ndarray, Batch]]]:
    """Steps of ours, as the training loop takes them: one is under way while the next batch is brought."""
    mesh, (step, state) = all_devices(), our_step(model, config, scales)
    loader = make_loader(pairs, model, config, mesh.size, 0)
    batches = iter(loader)

    def run(count: int) -> float:
        nonlocal state
        loss = None
        for _ in range(count):
            _, batch = next(batches)
            before, (state, metrics) = loss, step(state, shard_blocks(batch, mesh))
            loader.device_output = metrics
            loss = metrics["loss"]
            if before is not None:
                before.block_until_ready()
        return float(loss)

    return run, loader


def our_step(model: Model, config: ResolvedTrainConfig, scales: dict[str, float]) -> tuple[TrainStep, State]:
    """The step of ours and the state before the first."""
    trainable = {name for name, scale in scales.items() if scale}
    optimizer = make_optimizer(config, scales)
    params, _ = initial_params(model, config)
    state = init_state(params, trainable, optimizer, ema=False)
    return make_step(model, config, trainable, optimizer, contrastive_loss, all_devices()), state


def step_bytes(model: Model, config: ResolvedTrainConfig, pairs: Pairs, scales: dict[str, float]) -> int:
    """Memory of a compiled step: what it is given and what it needs meanwhile."""
    step, state = our_step(model, config, scales)
    rows = np.resize(np.arange(len(pairs.split)), config.batch_size)
    batch = make_batch(pairs, rows, model, config, count_blocks(config, jax.device_count()), 0)
    analysis = step.lower(state, shard_blocks(batch, all_devices())).compile().memory_analysis()
    return analysis.argument_size_in_bytes + analysis.temp_size_in_bytes


class PeerBatch(NamedTuple):
    """A batch as the peers take it, in pinned memory where there is a GPU."""

    images: Any
    """u8 (b, 3, s, s), channels last in memory."""
    tokens: dict[str, Any]
    """What the tokenizer gives, (b, t)."""


def peer_batches(pairs: Pairs, batch_rows: Sequence[np.ndarray], text: Path, padding: str) -> list[PeerBatch]:
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(text)
    settings = {"padding": padding, "truncation": True, "max_length": CONTEXT_LENGTH, "return_tensors": "pt"}
    batches = []
    for rows in batch_rows:
        images = torch.from_numpy(np.ascontiguousarray(pairs.images[rows])).permute(0, 3, 1, 2)
        tokens = dict(tokenizer(pairs.split.take("caption", rows), **settings))
        if torch.cuda.is_available():
            images, tokens = images.pin_memory(), {name: value.pin_memory() for name, value in tokens.items()}
        batches.append(PeerBatch(images, tokens))
    return batches


def peer_steps(model: Any, loss_of: Callable[..., Any], batches: Sequence[PeerBatch], bfloat16: bool) -> Steps:
    """Steps of a torch model at its best settings; `loss_of(pixels, tokens)` calls it."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.2, fused=True)
    mean, std = (torch.full((3, 1, 1), value, device=device) for value in (122.0, 68.0))
    upcoming = itertools.cycle(batches)

    def run(count: int) -> float:
        loss = None
        for batch in itertools.islice(upcoming, count):
            tokens = {name: value.to(device, non_blocking=True) for name, value in batch.tokens.items()}
            pixels = (batch.images.to(device, non_blocking=True).float() - mean) / std
            with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
                loss = loss_of(pixels, tokens)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return run


def transformers_steps(vision: Path, text: Path, batches: Sequence[PeerBatch], bfloat16: bool, compiled: bool) -> Steps:
    import torch
    from transformers import VisionTextDualEncoderModel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = VisionTextDualEncoderModel.from_vision_text_pretrained(str(vision), str(text)).to(device).train()
    forward = torch.compile(model) if compiled else model
    return peer_steps(
        model, lambda x, tokens: forward(pixel_values=x, **tokens, return_loss=True).loss, batches, bfloat16
    )


def open_clip_steps(text: Path, batches: Sequence[PeerBatch], bfloat16: bool, compiled: bool, toy: bool) -> Steps:
    import torch
    from open_clip.loss import ClipLoss
    from open_clip.model import CustomTextCLIP

    device = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = {"layers": 2, "width": 96, "head_width": 24} if toy else {"layers": 12, "width": 768}
    names = {"hf_model_name": str(text), "hf_tokenizer_name": str(text), "hf_model_pretrained": False}
    model = CustomTextCLIP(
        512,
        {"image_size": 224, "patch_size": 32, **sizes},
        {**names, "hf_proj_type": "linear", "hf_pooler_type": "cls_pooler", "context_length": CONTEXT_LENGTH},
    )
    model = model.to(device).train()
    forward, clip_loss = torch.compile(model) if compiled else model, ClipLoss()
    return peer_steps(model, lambda x, tokens: clip_loss(*forward(x, tokens["input_ids"])), batches, bfloat16)


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


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--text-tokenizer", type=Path, required=True, help="a BERT tower's folder")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="of each round")
    parser.add_argument("--toy", action="store_true", help="towers of two layers")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
    return parser.parse_args()


def prepare_steps(
    args: argparse.Namespace, folder: Path
) -> tuple[Model, ResolvedTrainConfig, Pairs, dict[str, float], dict[str, Steps]]:
    """Everything but ours to be timed, and what ours is made of."""
    split = Split(args.data, "train")
    vision, text = write_towers(folder, args.text_tokenizer, args.toy)
    settings = {"batch_size": args.batch_size, "precision": args.precision, "context_length": CONTEXT_LENGTH}
    config = TrainConfig(vision_model=str(vision), text_model=str(text), steps=1_000_000, **settings)
    config = resolve(config, len(split))
    model = initial_model(config, [])
    _, scales = initial_params(model, config)
    pairs = read_pairs(split, jax_backend(model), config, scales, max_cache_gb=8.0)
    batch_rows = [rows_at(len(split), args.batch_size, 0, i) for i in range(min(4, len(split) // args.batch_size))]
    bfloat16, peers = args.precision == "bfloat16", {}
    for name in args.peers:
        compiled = name.endswith("compiled")
        batches = peer_batches(pairs, batch_rows, text, "max_length" if compiled else "longest")
        if name.startswith("transformers"):
            peers[name] = transformers_steps(vision, text, batches, bfloat16, compiled)
        else:
            peers[name] = open_clip_steps(text, batches, bfloat16, compiled, args.toy)
    return model, config, pairs, scales, peers


def warm_up(name: str, run: Steps) -> None:
    """Compiles every shape, and prints how long it took."""
    start = time.perf_counter()
    losses = [run(1), run(7)]
    print(json.dumps({"warm-up": name, "seconds": round(time.perf_counter() - start, 1), "losses": losses}), flush=True)


def main() -> None:
    args = parse_args()
    with TemporaryDirectory() as folder:
        model, config, pairs, scales, peers = prepare_steps(args, Path(folder))
        run_ours, loader = our_steps(model, config, pairs, scales)
        steps = {"ours": run_ours} | peers
        for name, run in steps.items():
            warm_up(name, run)
        speeds: dict[str, list[float]] = {name: [] for name in steps}
        waited, seconds = 0.0, 0.0
        for _ in range(args.rounds):
            for name, run in steps.items():
                start, waited_before = time.perf_counter(), loader.wait_seconds
                run(args.steps)
                elapsed = time.perf_counter() - start
                speeds[name].append(args.steps * args.batch_size / elapsed)
                if name == "ours":
                    waited, seconds = waited + loader.wait_seconds - waited_before, seconds + elapsed
            print(json.dumps({name: round(values[-1], 1) for name, values in speeds.items()}), flush=True)
        report = {"device": jax.devices()[0].device_kind, "waiting for data": waited / seconds}
        if peers:
            best = np.array([speeds[name] for name in peers]).max(axis=0)
            ratios = np.array(speeds["ours"]) / best
            report["ours over the best peer"] = dict(median=np.median(ratios), min=ratios.min(), max=ratios.max())
        rows = rows_at(len(pairs.split), args.batch_size, 0, 0)
        flops = step_flops(model, pairs.split, rows) / args.batch_size * float(np.median(speeds["ours"]))
        peak = peak_flops(jnp.dtype(args.precision), 512 if args.toy else 8192)
        report |= {"TFLOP/s": flops / 1e12, "TFLOP/s of one product": peak / 1e12, "MFU": flops / peak}
        print(json.dumps(report, default=float), flush=True)
        micro = dataclasses.replace(config, micro_batch_size=args.batch_size, batch_size=16 * args.batch_size)
        for name, settings in (("one step", config), ("16 times the batch, in micro-batches of it", micro)):
            gigabytes = step_bytes(model, settings, pairs, scales) / 1e9
            print(json.dumps({"memory": name, "batch": settings.batch_size, "GB": gigabytes}), flush=True)


if __name__ == "__main__":
    main()

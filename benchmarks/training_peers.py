"""Trainers of three projects and ours on the same work: equal towers, pairs, seeds and wall-clock, in turn.

    python benchmarks/training_peers.py --data DATA --vision OUT/dinov2-small --text OUT/all-MiniLM-L6-v2 \
        --out OUT --seconds 2400 --seeds 0 1 2

`ours` is recipes/roco-real-towers.sh, `ours-projections` its first part alone, which takes what it takes and leaves the
rest of the time: features for the second part need another five minutes before its first step. `founding-2021` is
benchmarks/founding_recipe.py's training of joined towers at the project's learning rate. `transformers` is its
contrastive-image-text example: its Trainer and settings. `open-clip` is its trainer at its defaults for fine-tuning,
`open-clip-lock-image` the same with a locked vision tower, `open-clip-lock-blocks` with all but its last 4 blocks.
Seconds are of whole commands: decoding, compilation and features count, and so does our validation, which the others do
not do. How many pairs fit is found by two short runs of each trainer, of the peers also under bfloat16 autocast: the
faster of both is theirs. Every model is then measured by `medclip evaluate retrieval`, and ours against each by
`medclip compare`.

Needs the packages of `make parity`, and braceexpand, webdataset and accelerate. A run that is already in OUT is not
repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from open_clip_towers import make_towers, towers_config

from medclip.data.dataset import Split

ROOT = Path(__file__).parents[1]
PROBE_PAIRS = (128, 384)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
UNLOCKED_GROUPS = "5"  # the last 4 blocks and the final norm


class Work(NamedTuple):
    """What all trainers are given."""

    data: Path
    vision: Path
    text: Path
    images: Path
    """Folder of the training images as files, and `pairs.csv`."""


def write_images(data: Path, out: Path) -> None:
    """The training pairs as the peers read them: files, and a table of paths and captions."""
    if (out / "pairs.csv").exists():
        return
    out.mkdir(parents=True)
    split = Split(data, "train")
    with (out / "pairs.csv.part").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("filepath", "title"))
        for row, caption in enumerate(split.iter_column("caption")):
            path = out / f"{row}.img"
            path.write_bytes(split.image(row))
            table.writerow((path, caption))
    (out / "pairs.csv.part").rename(out / "pairs.csv")


def shuffled_table(work: Work, num_pairs: int, seed: int, out: Path) -> Path:
    """A table of exactly `num_pairs` rows: whole epochs in an order of their own, the last one cut."""
    with (work.images / "pairs.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    rng, order = np.random.default_rng(seed), []
    while len(order) < num_pairs:
        order.extend(rng.permutation(len(rows)).tolist())
    with (out / "table.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *(rows[i] for i in order[:num_pairs])])
    return out / "table.csv"


def run_cold(command: Sequence[object], seed: int, out: Path) -> None:
    """A command of ours with nothing cached, and `model` for the model of the run it writes."""
    settings = {"MEDCLIP_SEED": str(seed), "XDG_CACHE_HOME": str(out / "cache")}
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run([str(word) for word in command], check=True, env=os.environ | settings | path)
    shutil.rmtree(out / "cache")
    (out / "model").symlink_to(out / "run" / "model")


def train_ours(work: Work, num_pairs: int, seed: int, out: Path) -> None:
    """The recipe, with as many pairs in its second part. In bfloat16 it is no faster: XLA has no such CPU kernels."""
    epochs = num_pairs / len(Split(work.data, "train"))
    recipe = ROOT / "recipes" / "roco-real-towers.sh"
    run_cold([recipe, work.data, out / "run", work.vision, work.text, "--epochs", epochs], seed, out)


def train_projections(work: Work, num_pairs: int, seed: int, out: Path) -> None:
    """The first command of the recipe."""
    towers = ("--vision-model", work.vision, "--text-model", work.text, "--context-length", 128)
    frozen = ("--freeze", "vision_model.*", "text_model.*")
    steps = ("--batch-size", 512, "--steps", 200, "--num-evals", 4, "--lr", 1e-3, "--seed", seed)
    command = ("medclip", "train", "--data", work.data, "--out", out / "run", *towers, *frozen, *steps)
    run_cold(command, seed, out)


def train_founding(work: Work, num_pairs: int, seed: int, out: Path) -> None:
    """The training of 2021, of 64 pairs a step: its 8 × 16 take 21 GB here."""
    from founding_recipe import train_2021

    from medclip.training.config import TrainConfig

    config = TrainConfig(
        vision_model=str(work.vision), text_model=str(work.text), context_length=128, batch_size=64, lr=5e-5,
        seed=seed, steps=round(num_pairs / 64), weight_decay=0.1, warmup_ratio=0.0, min_crop_scale=1.0,
        color_jitter=0.0, num_evals=1, on_regression="warn",
    )  # fmt: skip
    train_2021(work.data, out / "run", config)
    (out / "model").symlink_to(out / "run" / "model")


def train_transformers(work: Work, num_pairs: int, seed: int, out: Path, *, bfloat16: bool = False) -> None:
    """The settings of its example's README: batch 64, rate 5e-5 falling to 0 at once, decay 0.1, 128 tokens."""
    import torch
    from PIL import Image
    from transformers import (
        AutoImageProcessor,
        AutoTokenizer,
        Trainer,
        TrainingArguments,
        VisionTextDualEncoderModel,
        VisionTextDualEncoderProcessor,
    )

    tokenizer, processor = AutoTokenizer.from_pretrained(work.text), AutoImageProcessor.from_pretrained(work.vision)
    model = VisionTextDualEncoderModel.from_vision_text_pretrained(str(work.vision), str(work.text))
    with shuffled_table(work, num_pairs, seed, out).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    class Pairs(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, i: int) -> dict[str, str]:
            return rows[i]

    def collate(batch: list[dict[str, str]]) -> dict[str, object]:
        images = [Image.open(row["filepath"]).convert("RGB") for row in batch]
        texts = tokenizer(
            [row["title"] for row in batch], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        return {**processor(images, return_tensors="pt"), **texts, "return_loss": True}

    settings = TrainingArguments(
        str(out / "trainer"), per_device_train_batch_size=64, learning_rate=5e-5, weight_decay=0.1, warmup_steps=0,
        num_train_epochs=1, seed=seed, save_strategy="no", report_to=[], remove_unused_columns=False,
        dataloader_drop_last=True, use_cpu=True, bf16=bfloat16,
    )  # fmt: skip
    Trainer(model, settings, data_collator=collate, train_dataset=Pairs()).train()
    model.save_pretrained(out / "model")
    VisionTextDualEncoderProcessor(processor, tokenizer).save_pretrained(out / "model")


def train_open_clip(
    work: Work, num_pairs: int, seed: int, out: Path, lock: tuple[str, ...] = (), *, bfloat16: bool = False
) -> None:
    """Its trainer with the towers in its own model, through a config of its own form."""
    import torch
    from open_clip_train.main import main as train_main
    from safetensors.torch import save_file

    config = towers_config(work.text, "mean_pooler", 384)
    torch.manual_seed(seed)
    model = make_towers(config, work.vision, out)
    torch.save({"state_dict": model.state_dict()}, out / "start.pt")
    steps, precision = num_pairs // 128, "amp_bf16" if bfloat16 else "fp32"
    train_main(
        ["--model", "towers", "--pretrained", str(out / "start.pt"), "--dataset-type", "csv", "--csv-separator", ",",
         "--train-data", str(shuffled_table(work, steps * 128, seed, out)), "--batch-size", "128", "--epochs", "1",
         "--lr", "1e-4", "--wd", "0.1", "--warmup", str(steps // 10), "--workers", "1", "--precision", precision,
         "--image-mean", *map(str, IMAGENET_MEAN), "--image-std", *map(str, IMAGENET_STD), "--seed", str(seed),
         "--logs", str(out / "logs"), "--name", "run", *lock]
    )  # fmt: skip
    state = torch.load(out / "logs" / "run" / "checkpoints" / "epoch_1.pt", weights_only=True)["state_dict"]
    folder = out / "model"
    folder.mkdir()
    preprocess = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "open_clip_model.safetensors")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(work.text / name, folder / name)


LOCK = ("--lock-image",)
TRAINERS: dict[str, Callable[[Work, int, int, Path], None]] = {
    "ours": train_ours,
    "ours-projections": train_projections,
    "founding-2021": train_founding,
    "transformers": train_transformers,
    "open-clip": train_open_clip,
    "open-clip-lock-image": partial(train_open_clip, lock=LOCK),
    "open-clip-lock-blocks": partial(train_open_clip, lock=(*LOCK, "--lock-image-unlocked-groups", UNLOCKED_GROUPS)),
}
NAMES = list(TRAINERS)
BFLOAT16 = "-bfloat16"
"""Ending of the name of a trainer under autocast."""
TRAINERS |= {name + BFLOAT16: partial(TRAINERS[name], bfloat16=True) for name in NAMES[3:]}


def train_once(args: argparse.Namespace, name: str, num_pairs: int, seed: int, out: Path) -> float:
    """Seconds of a trainer in a process of its own; those on record for a run that is there."""
    record = out / "seconds.json"
    if not record.exists():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        towers = ("--data", args.data, "--vision", args.vision, "--text", args.text, "--out", args.out)
        one = ("--trainer", name, "--num-pairs", num_pairs, "--seeds", seed, "--folder", out)
        start = time.monotonic()
        with (out / "log.txt").open("w") as log:
            subprocess.run([sys.executable, __file__, *map(str, towers + one)], check=True, stdout=log, stderr=log)
        record.write_text(json.dumps({"seconds": time.monotonic() - start, "pairs": num_pairs}))
    return json.loads(record.read_text())["seconds"]


def faster(args: argparse.Namespace, name: str) -> tuple[str, int]:
    """A trainer in the precision in which it gets through more pairs in the time, and how many."""
    precisions = [each for each in (name, name + BFLOAT16) if each in TRAINERS]
    return max(((each, pairs_that_fit(args, each)) for each in precisions), key=lambda pair: pair[1])


def pairs_that_fit(args: argparse.Namespace, name: str) -> int:
    """Pairs that a trainer gets through in the time, by a line through two short runs; 0 where the work is fixed."""
    if name == "ours-projections":
        return 0
    few, many = (train_once(args, name, n, 0, args.out / f"probe-{n}" / name) for n in PROBE_PAIRS)
    per_pair = (many - few) / (PROBE_PAIRS[1] - PROBE_PAIRS[0])
    return int((args.seconds - few) / per_pair) + PROBE_PAIRS[0]


def medclip(*words: object) -> str:
    """What a command prints."""
    return subprocess.run(
        [Path(sys.executable).parent / "medclip", *map(str, words)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--vision", "--text", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=2400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--trainers", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--trainer", choices=TRAINERS, help=argparse.SUPPRESS)  # one run, in a process of its own
    parser.add_argument("--num-pairs", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    work = Work(args.data.resolve(), args.vision.resolve(), args.text.resolve(), args.out.resolve() / "images")
    write_images(work.data, work.images)
    if args.trainer:
        TRAINERS[args.trainer](work, args.num_pairs, args.seeds[0], args.folder)
        return
    num_pairs = dict(faster(args, name) for name in args.trainers)
    print(json.dumps({"pairs in the time": num_pairs}), flush=True)
    for seed in args.seeds:
        for name in num_pairs:
            out = args.out / f"seed-{seed}" / name
            seconds = train_once(args, name, num_pairs[name], seed, out)
            if not (out / "evaluation" / "retrieval.json").exists():
                medclip(
                    "evaluate", "retrieval", "--model", out / "model", "--data", args.data, "--out", out / "evaluation"
                )
            print(json.dumps({"trainer": name, "seed": seed, "seconds": round(seconds)}), flush=True)
        ours, *peers = num_pairs
        for name in peers:
            folders = [args.out / f"seed-{seed}" / each / "evaluation" for each in (name, ours)]
            print(medclip("compare", *folders, "--table"), flush=True)


if __name__ == "__main__":
    main()

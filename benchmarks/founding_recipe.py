"""The founding project's recipe against ours: same towers, same data, same wall-clock.

    python benchmarks/founding_recipe.py --data DATA --out OUT --seconds 480

The 2021 recipe as its script had it: 8 devices of 16 pairs, each with its own loss (15 negatives), logit
scale parameter started at 1.0, random horizontal flips of training *and* validation pictures, weight decay
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
import time
from pathlib import Path
from typing import Any

import numpy as np

from medclip import backend

backend.start()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from medclip.data.shards import Split  # noqa: E402
from medclip.encoder import embed_images, embed_texts  # noqa: E402
from medclip.evaluate.metrics import KS, interval, ranks, recall_at  # noqa: E402
from medclip.evaluate.retrieval import evaluate_retrieval  # noqa: E402
from medclip.model.hub import load  # noqa: E402
from medclip.model.towers import Params  # noqa: E402
from medclip.tables import show_retrieval  # noqa: E402
from medclip.train.loop import train  # noqa: E402
from medclip.train.losses import contrastive, hard_targets  # noqa: E402
from medclip.train.recipe import Recipe  # noqa: E402

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
    """Horizontal flips of every second picture, by chance."""
    pixels = pixels.astype(jnp.float32)
    return jnp.where(jax.vmap(jax.random.bernoulli)(keys)[:, None, None, None], pixels[:, :, ::-1], pixels)


def ranks_both_ways(run: Path, rows: Split) -> np.ndarray:
    """Rank of each pair's other half, i64 (n, 2): of captions for pictures, of pictures for captions."""
    model = load(run)
    images = embed_images(model, [rows.image(row) for row in range(len(rows))])
    texts = embed_texts(model, rows.column("caption"))
    return np.stack([ranks(images, texts), ranks(texts, images)], axis=1)


def probe(data: Path, out: Path, recipe: Recipe, changes: dict[str, Any]) -> float:
    """Pairs per second of the recipe over a few steps, compilation apart."""
    train(data, out, dataclasses.replace(recipe, steps=PROBE_STEPS, evaluations=1), **changes)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return max(json.loads(line).get("pairs_per_s", 0) for line in lines)


def paired_difference(out: Path, data: Path) -> dict[str, Any]:
    """Ours less 2021's R@k over both directions, and the ratio of their geometric mean ranks, with 95 % intervals."""
    rows = Split(data, "validation")
    both = np.concatenate([ranks_both_ways(out / name, rows) for name in ("ours", "founding-2021")], axis=1)
    measures = {f"R@{k} difference": lambda r, k=k: recall_at(r[:, :2], k) - recall_at(r[:, 2:], k) for k in KS} | {
        "rank ratio": lambda r: float(np.exp(np.log(r[:, :2]).mean() - np.log(r[:, 2:]).mean()))
    }
    return {name: interval(both, rows.column("article"), measure, 0) for name, measure in measures.items()}


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--data", type=Path, required=True)
    ask.add_argument("--out", type=Path, required=True)
    ask.add_argument("--seconds", type=float, default=480)
    ask.add_argument("--preset", choices=("tiny", "small"), default="small")
    ask.add_argument("--vision", type=Path, help="with --text: join these two towers, in place of a preset")
    ask.add_argument("--text", type=Path)
    ask.add_argument("--lr", type=float, default=1e-3, help="peak learning rate of both")
    ask.add_argument("--only", choices=("ours", "founding-2021"), help="train one of the two, without a comparison")
    ask.add_argument("--batch", type=int, default=128)
    ask.add_argument("--seed", type=int, default=0)
    asked = ask.parse_args()
    joined = {"vision": str(asked.vision), "text": str(asked.text)}
    start = joined if asked.vision else {"preset": asked.preset}
    ours = Recipe(**start, batch=asked.batch, lr=asked.lr, seed=asked.seed, guard="warn")
    founding = dataclasses.replace(ours, weight_decay=0.1, warmup_fraction=0.0)
    told = {}
    both = {"ours": (ours, {}), "founding-2021": (founding, {"loss": founding_loss, "augment": flip})}
    speeds = {name: [] for name in both}
    for turn in range(TURNS):
        for name, (recipe, changes) in both.items():
            speeds[name].append(probe(asked.data, asked.out / f"probe-{turn}-{name}", recipe, changes))
    ratios = [theirs / own for own, theirs in zip(*speeds.values(), strict=True)]
    print(json.dumps({"pairs/s": speeds, "2021's speed over ours": ratios}))
    steps = asked.seconds * max(speeds["ours"]) / asked.batch
    shares = {"ours": 1.0, "founding-2021": float(np.median(ratios))}
    for name, (recipe, changes) in both.items():
        if asked.only not in (None, name):
            continue
        recipe = dataclasses.replace(recipe, steps=max(1, round(steps * shares[name])))
        start = time.monotonic()
        best = train(asked.data, asked.out / name, recipe, **changes)["best"]
        seconds = round(time.monotonic() - start)
        results = evaluate_retrieval(asked.out / name, asked.data, "validation", asked.out / f"{name}-evaluation")
        pairs = len(Split(asked.data, "train"))
        told[name] = {"steps": recipe.steps, "epochs": round(recipe.steps * asked.batch / pairs, 1), "seconds": seconds}
        print(json.dumps({name: told[name], "best": best}))
        show_retrieval(results)
    if not asked.only:
        print(json.dumps(paired_difference(asked.out, asked.data)))


if __name__ == "__main__":
    main()

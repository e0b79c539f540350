"""The founding project's training against ours: same towers, same data, same wall-clock.

    python benchmarks/founding_recipe.py --data DATA --out OUT --seconds 480 --seeds 0 1 2

The 2021 settings as its script had them: 8 devices of 16 pairs, each with its own loss (15 negatives), logit scale
parameter started at 1.0, random horizontal flips of training *and* validation images, weight decay 0.1, no warm-up,
last weights saved. Its learning rate of 5e-5 was meant for pretrained towers; from scratch it gets ours, so that what
is compared is the rest. Their speeds are measured first, in three turns, and the steps follow from them: ours as many
as fit the time at its best speed, those of 2021 by the median ratio of the turns. The founding model is measured
without flips, and its best evaluation is saved, which its script did not do; both can only help it. Ends with the
paired difference, query by query.
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
from medclip.encode.encoder import embed_split  # noqa: E402
from medclip.metrics import CHANGE_OF_SHARE, KS, estimate, ranks, recall_at_k  # noqa: E402
from medclip.model.checkpoint import load  # noqa: E402
from medclip.model.towers import Params  # noqa: E402
from medclip.training.config import TrainConfig, resolve  # noqa: E402
from medclip.training.log import open_run  # noqa: E402
from medclip.training.loop import fit, software_versions, train  # noqa: E402
from medclip.training.losses import contrastive_loss  # noqa: E402
from medclip.training.run import prepare_run  # noqa: E402

DEVICES = 8
NUM_TURNS, PROBE_STEPS = 3, 20
FOUNDING_LOGIT_SCALE = 1.0


def founding_loss(images: jax.Array, texts: jax.Array, params: Params, *_: jax.Array) -> jax.Array:
    """The loss of each device on its own 16 pairs, averaged. Starts at exp(1.0) whatever the folder says."""
    scale = {"logit_scale": params["logit_scale"] - jnp.log(1 / 0.07) + FOUNDING_LOGIT_SCALE}
    per_device = len(images) // DEVICES
    mask = jnp.ones((per_device, per_device), bool)
    images, texts = (x.reshape(DEVICES, per_device, -1) for x in (images, texts))
    return jax.vmap(lambda x, y: contrastive_loss(x, y, scale, mask))(images, texts).mean()


class FlippedImages:
    """Images of which a random half is mirrored left to right whenever they are read."""

    def __init__(self, images: Any):
        self._images = images

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        pixels = np.array(self._images[rows])
        flip = np.random.default_rng(rows.ravel()).random(rows.shape) < 0.5
        pixels[flip] = pixels[flip][:, :, ::-1]
        return pixels


def train_2021(data: Path, out: Path, config: TrainConfig) -> dict[str, Any]:
    """`train` with the loss and the flips of 2021."""
    training = Split(data, "train")
    resolved = resolve(config, len(training))
    open_run(out, resolved.to_json(), software_versions(), resume=False)
    run = prepare_run(resolved, training, Split(data, "validation"), image_cache_gb=8.0, cache=False)
    pairs = dataclasses.replace(run.pairs, images=FlippedImages(run.pairs.images))
    return fit(dataclasses.replace(run, loss=founding_loss, pairs=pairs), out)


TRAIN = {"ours": train, "founding-2021": train_2021}


def validation_ranks(run: Path, split: Split) -> np.ndarray:
    """Rank of each pair's other half, i64 (n, 2): of captions for images, of images for captions."""
    model = load(run)
    return np.stack(ranks(embed_split(model, split, "images"), embed_split(model, split, "captions")), axis=1)


def pairs_per_second(name: str, data: Path, out: Path, config: TrainConfig) -> float:
    """Speed over a few steps, compilation apart."""
    TRAIN[name](data, out, dataclasses.replace(config, steps=PROBE_STEPS, num_evals=1))
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return max(json.loads(line).get("pairs_per_s", 0) for line in lines)


def paired_differences(pairs: list[tuple[Path, Path]], data: Path) -> dict[str, Any]:
    """Ours less 2021's R@k over both directions, and the ratio of their geometric mean ranks, with 95 % intervals.

    `pairs` are (our run, that of 2021), one a seed. Articles are resampled with the ranks of all seeds together.
    """
    split = Split(data, "validation")
    both = np.stack([np.stack([validation_ranks(run, split) for run in pair], axis=1) for pair in pairs], axis=1)
    ours, theirs = (lambda r, side=side: r[:, :, side] for side in (0, 1))  # r: (n, seeds, side, direction)
    measures = {f"R@{k} difference": lambda r, k=k: recall_at_k(ours(r), k) - recall_at_k(theirs(r), k) for k in KS} | {
        "rank ratio": lambda r: float(np.exp(np.log(ours(r)).mean() - np.log(theirs(r)).mean()))
    }
    articles = split.column("article")
    ranges = {name: None if name == "rank ratio" else CHANGE_OF_SHARE for name in measures}
    return {name: dataclasses.asdict(estimate(both, articles, measures[name], 0, ranges[name])) for name in measures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--preset", choices=("tiny", "small"), default="small")
    parser.add_argument("--vision-model", help="with --text-model: join these two towers, in place of a preset")
    parser.add_argument("--text-model")
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate of both")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--num-evals", type=int, default=12, help="of each run; their time is not counted")
    args = parser.parse_args()
    ours = TrainConfig(
        preset=None if args.vision_model else args.preset,
        vision_model=args.vision_model,
        text_model=args.text_model,
        batch_size=args.batch_size,
        lr=args.lr,
        on_regression="warn",
        num_evals=args.num_evals,
    )
    founding = dataclasses.replace(ours, weight_decay=0.1, warmup_ratio=0.0, min_crop_scale=1.0, color_jitter=0.0)
    configs = {"ours": ours, "founding-2021": founding}
    speeds: dict[str, list[float]] = {name: [] for name in configs}
    for turn in range(NUM_TURNS):
        for name, config in configs.items():
            speeds[name].append(pairs_per_second(name, args.data, args.out / f"probe-{turn}-{name}", config))
    ratios = [theirs / own for own, theirs in zip(*speeds.values(), strict=True)]
    print(json.dumps({"pairs/s": speeds, "2021's speed over ours": ratios}), flush=True)
    max_steps = args.seconds * max(speeds["ours"]) / args.batch_size
    steps = {"ours": round(max_steps), "founding-2021": round(max_steps * float(np.median(ratios)))}
    runs = []
    for seed in args.seeds:
        pair = (args.out / f"ours-{seed}", args.out / f"founding-2021-{seed}")
        for run, (name, config) in zip(pair, configs.items(), strict=True):
            best = TRAIN[name](args.data, run, dataclasses.replace(config, steps=steps[name], seed=seed))["best"]
            epochs = steps[name] * args.batch_size / len(Split(args.data, "train"))
            print(json.dumps({run.name: {"steps": steps[name], "epochs": round(epochs, 1)}, "best": best}), flush=True)
        runs.append(pair)
        print(json.dumps({"seed": seed, **paired_differences([pair], args.data)}), flush=True)
    print(json.dumps({"seeds": args.seeds, **paired_differences(runs, args.data)}))


if __name__ == "__main__":
    main()

"""How retrieval grows with the number of training pairs, and what that predicts for more of them.

    python benchmarks/learning_curve.py --data DATA --vision-model DIR --text-model DIR --out OUT
        [--pairs 500 1000 2000 4684] [--seeds 0 1 2] [--recipe frozen|full] [--predict 57780]

Each run trains on that many pairs, drawn by its seed, smaller draws being part of larger ones, and is measured on the
whole validation split, which also chooses its weights. "frozen" trains the projections alone, on features that are
computed once for all runs; "full" both towers. Steps are the same for every number of pairs. A run that is already in
OUT is not repeated. Writes OUT/curve.json and OUT/curve.png.

The mean of R@10 of both directions is fitted over the number n of pairs, at the same pool, by two forms:

    logit R = a + b ln n                  no ceiling
    R = c − d n^−e, with d ≥ 0, c ≤ 1     a ceiling c (Hestness et al. 2017, of errors)

The interval of a prediction resamples validation articles and seeds 1,000 times, fits both forms to each, and covers
both. "backtest" predicts the largest number of pairs from the smaller ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from medclip import jax_setup

jax_setup.start()

from medclip.atomic_io import write_json  # noqa: E402
from medclip.data.dataset import Split  # noqa: E402
from medclip.encode.encoder import embed_split, jax_backend  # noqa: E402
from medclip.errors import UserError  # noqa: E402
from medclip.metrics import SHARE, DistinctPairs, merge_articles, percentile_ci  # noqa: E402
from medclip.model.checkpoint import load  # noqa: E402
from medclip.resamples import resample_counts  # noqa: E402
from medclip.training.config import TrainConfig, resolve  # noqa: E402
from medclip.training.log import open_run  # noqa: E402
from medclip.training.loop import fit, software_versions  # noqa: E402
from medclip.training.run import prepare_run  # noqa: E402
from medclip.versions import source_commit  # noqa: E402

RECIPES: Mapping[str, dict[str, Any]] = {
    "frozen": {"freeze": ("vision_model.*", "text_model.*"), "lr": 1e-3},
    "full": {"lr": 1e-3, "vision_lr": 3e-4, "text_lr": 3e-4, "layerwise_lr_decay": 0.8, "precision": "bfloat16"},
}
K = 10
ASSUMPTIONS = (
    "more pairs are of the same kind, from articles of their own, as those at hand",
    "the recipe stays as it is, with the same number of steps",
    "the pool of candidates stays as large as it is here",
    "between and beyond the sizes measured R follows one of the two forms",
    "the split that measures also chose the weights: R is a little too high at each size alike",
)
EXPONENTS = np.geomspace(0.05, 2, 60)


def draw_pairs(data: Path, size: int, seed: int) -> Split:
    """The training split with `size` pairs, the first of an order that the seed alone decides."""
    training = Split(data, "train")
    if size > len(training):
        raise UserError(f"--pairs {size} is more than the {len(training)} training pairs.")
    training.table = training.table.take(np.random.default_rng(seed).permutation(len(training))[:size])
    return training


def train_once(data: Path, out: Path, size: int, config: TrainConfig) -> np.ndarray:
    """Whether each validation image and caption finds its other half among the first K, f64 (n, 2); NaN: repeated."""
    run, validation = out / f"{size}-{config.seed}", Split(data, "validation")
    if not (run / "hits.npy").exists():
        training, resume = draw_pairs(data, size, config.seed), (run / "train_config.json").exists()
        resolved = resolve(config, size)
        digests = {split.name: split.digest for split in (training, validation)}
        open_run(run, resolved.to_json() | {"max_samples": size, "data": digests}, software_versions(), resume)
        fit(prepare_run(resolved, training, validation, 0.0, True), run, resume=resume)
        backend, ids = jax_backend(load(run), cache=True), validation.duplicate_ids
        images, texts = (embed_split(backend, validation, side) for side in ("images", "captions"))
        ranks = [q.column(len(validation)) for q in DistinctPairs.of_rows(images, texts, *ids).rank().values()]
        columns = np.stack(ranks, axis=1)
        np.save(run / "hits.npy", np.where(np.isnan(columns), np.nan, columns <= K))
    return np.load(run / "hits.npy")


def recalls(hits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """R@K, mean of both directions, of hits (..., n, 2) whose row i counts `counts[i]` times."""
    weights = np.where(np.isnan(hits), 0, counts[:, None])
    return ((weights * np.nan_to_num(hits)).sum(axis=-2) / weights.sum(axis=-2)).mean(axis=-1)


def predict_logit(sizes: np.ndarray, recall: np.ndarray, new_sizes: np.ndarray) -> np.ndarray:
    """R at `new_sizes` (m,), by the form without a ceiling, fitted by least squares of the logits."""
    share = np.clip(recall, 1e-4, 1 - 1e-4)
    slope, offset = np.polyfit(np.log(sizes), np.log(share / (1 - share)), 1)
    return 1 / (1 + np.exp(-(offset + slope * np.log(new_sizes))))


def predict_power(sizes: np.ndarray, recall: np.ndarray, new_sizes: np.ndarray) -> np.ndarray:
    """R at `new_sizes` (m,), by the form with a ceiling, fitted by least squares of R over EXPONENTS."""
    best = (np.inf, 0.0, 0.0, 1.0)
    for exponent in EXPONENTS:
        x = sizes**-exponent
        slope, ceiling = np.polyfit(x, recall, 1)
        if ceiling > 1:
            slope, ceiling = float(x @ (recall - 1) / (x @ x)), 1.0
        if slope > 0:  # more pairs would be worse
            slope, ceiling = 0.0, float(recall.mean())
        error = float(np.square(ceiling + slope * x - recall).sum())
        best = min(best, (error, ceiling, slope, exponent))
    _, ceiling, slope, exponent = best
    return ceiling + slope * new_sizes**-exponent


FORMS = {"without a ceiling": predict_logit, "with a ceiling": predict_power}


def predict(
    hits: np.ndarray, sizes: Sequence[int], articles: Sequence[str], new_sizes: Sequence[int], resamples: int = 1000
) -> dict[str, Any]:
    """R at sizes and at `new_sizes`, from hits (sizes, seeds, n, 2): value by form, and an interval over both."""
    x, new = np.array(sizes, float), np.array(new_sizes, float)
    measured = recalls(hits, np.ones(hits.shape[2]))
    rng, num_seeds = np.random.default_rng(0), hits.shape[1]
    drawn, curves = [], {name: [] for name in FORMS}
    for counts in resample_counts(articles, 0, resamples):
        seeds = rng.integers(0, num_seeds, num_seeds)
        drawn.append(recalls(hits, counts)[:, seeds].mean(axis=1))
        for name, form in FORMS.items():
            curves[name].append(form(x, drawn[-1], new))
    names = [str(size) for size in sizes]
    means, samples = (dict(zip(names, values, strict=True)) for values in (measured.mean(axis=1), np.transpose(drawn)))
    at_sizes = percentile_ci(means, samples, len(set(articles)), dict.fromkeys(names, SHARE))
    ends = np.array([np.percentile(curve, (2.5, 97.5), axis=0) for curve in curves.values()])
    values = {name: form(x, measured.mean(axis=1), new) for name, form in FORMS.items()}
    return {
        "measured": [
            {"pairs": size, "R@10": mean.value, "low": mean.low, "high": mean.high, "by_seed": own.tolist()}
            for size, own, mean in zip(sizes, measured, at_sizes.values(), strict=True)
        ],
        "predicted": [
            {
                "pairs": size,
                **{name: float(values[name][i]) for name in FORMS},
                "low": float(ends[:, 0, i].min()),
                "high": float(ends[:, 1, i].max()),
            }
            for i, size in enumerate(new_sizes)
        ],
    }


def draw_curve(result: Mapping[str, Any], path: Path) -> None:
    """Write what was measured and what is predicted, over the number of pairs, as a PNG."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    points = result["measured"]
    x, value, low, high = (np.array([point[name] for point in points]) for name in ("pairs", "R@10", "low", "high"))
    axes.errorbar(x, value, [value - low, high - value], fmt="o", color="black", label="measured, 95 %")
    grid = np.geomspace(x.min(), max(point["pairs"] for point in result["predicted"]), 100)
    for name, form in FORMS.items():
        axes.plot(grid, form(x.astype(float), value, grid), label=name)
    for point in result["predicted"]:
        axes.vlines(point["pairs"], point["low"], point["high"], color="gray", linewidth=4, alpha=0.5)
    axes.set(xscale="log", xlabel="training pairs", ylabel=f"R@{K}, mean of both directions", ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--data", "--vision-model", "--text-model", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--pairs", type=int, nargs="+", default=[500, 1000, 2000, 4684])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", choices=RECIPES, default="frozen")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--context-length", type=int, default=128)
    parser.add_argument("--predict", type=int, nargs="+", default=[57_780])
    args = parser.parse_args(arguments)
    sizes = sorted(set(args.pairs))
    if len(sizes) < 4:
        raise UserError("give at least four numbers of --pairs: a curve with a ceiling has three unknowns.")
    config = TrainConfig(
        vision_model=str(args.vision_model),
        text_model=str(args.text_model),
        context_length=args.context_length,
        batch_size=args.batch_size,
        steps=args.steps,
        on_regression="warn",
        **RECIPES[args.recipe],
    )
    configs = [dataclasses.replace(config, seed=seed) for seed in args.seeds]
    hits = np.array([[train_once(args.data, args.out, size, own) for own in configs] for size in sizes])
    validation = Split(args.data, "validation")
    articles = merge_articles(validation.column("article"), validation.duplicate_ids[0])
    backtest = predict(hits[:-1], sizes[:-1], articles, sizes[-1:])["predicted"]
    result = {
        "data": validation.dataset["source"],
        "validation_sha256": validation.digest,
        "num_candidates": int(np.isfinite(hits[0, 0]).sum(axis=0).max()),
        "recipe": args.recipe,
        "steps": args.steps,
        "batch_size": args.batch_size,
        "seeds": args.seeds,
        "commit": source_commit(),
        **predict(hits, sizes, articles, args.predict),
        "backtest": backtest,
        "assumes": ASSUMPTIONS,
    }
    write_json(args.out / "curve.json", result)
    draw_curve(result, args.out / "curve.png")
    print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main()

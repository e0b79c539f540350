"""What `--hard-negatives` does on phantoms, in unseen wording: the foils' accuracy and R@10, with and without.

    python benchmarks/hard_negatives.py --out OUT [--seeds 0 1 2] [--pairs 12000] [--steps 1500]
    python benchmarks/hard_negatives.py --out OUT --text-model TOWERS/all-MiniLM-L6-v2 --steps 150

No word of a caption tells whether it is true, and the captions that are measured are in frames of their own: see
balanced_captions.py. Each seed first trains a model without hard negatives, as one that people fine-tune was: on
captions that exclude nothing until it sees the findings (from scratch no tower learns them where "left" and "no" go
with nothing in the images, docs/log.md), then on all. From it both runs go on for equal steps. It is of preset tiny
with a second layer of text, as in one layer a word does not meet its neighbors before they are pooled. "blind" is the
accuracy of the same choice with the mean embedding of all images in place of the image: what the model takes from the
words alone. Grammar tells a word order, so that this test alone may be passed blind. Validation chooses the
weights that are saved, in frames that are neither trained on nor measured: in those of training, weights that have
learned the frames look as good (docs/log.md).

With `--text-model` the start is joined once more: its vision tower, which stays as it is, and a text tower that was
trained on other text before, of which the upper half learns.

A run that is already in OUT is not repeated. OUT/summary.json has the means over the seeds; their 95 % intervals
resample captions, all seeds judged on the same ones. It also has the differences in R@10, as of `medclip compare`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from balanced_captions import STATED_SHARE, pairs

from medclip import jax_setup

jax_setup.start()

from medclip.atomic_io import write_json  # noqa: E402
from medclip.data.dataset import Split  # noqa: E402
from medclip.data.hard_negatives import KINDS  # noqa: E402
from medclip.data.prepare import prepare  # noqa: E402
from medclip.encode.encoder import embed_split, embed_texts  # noqa: E402
from medclip.evaluation.compare import compare  # noqa: E402
from medclip.evaluation.compositionality import evaluate_compositionality, questions  # noqa: E402
from medclip.evaluation.config import EvalConfig  # noqa: E402
from medclip.evaluation.results import Kind, read_results  # noqa: E402
from medclip.evaluation.retrieval import evaluate_retrieval  # noqa: E402
from medclip.metrics import SHARE, estimate  # noqa: E402
from medclip.model.checkpoint import load  # noqa: E402
from medclip.model.config import PRESETS  # noqa: E402
from medclip.named_metrics import metric_name  # noqa: E402
from medclip.training.config import TrainConfig  # noqa: E402
from medclip.training.loop import train  # noqa: E402

TESTS = ("left or right", "finding present", "finding absent", "plane", "modality", "word order")
RECALLS = ("image_to_text/R@10", "text_to_image/R@10")
MAX_REGRESSION = 0.01
MEASURED_SPLIT = "test"
Configure = Callable[..., TrainConfig]
JOINED_STEPS = 300
FROZEN = ("vision_model.*", "text_model.embeddings.*", "text_model.encoder.layer.[0-2].*")  # of 6 layers


def blind_accuracies(model: Path, data: Path) -> dict[str, float]:
    """The share of each test's captions that are nearer to the mean image than their foil is."""
    loaded, split = load(model), Split(data, MEASURED_SPLIT)
    mean = embed_split(loaded, split, "images").mean(axis=0)
    correct: dict[str, list[bool]] = {test: [] for test in TESTS}
    chosen = [q for q in questions(split.column("caption"), [{} for _ in range(len(split))], 0) if q.test in TESTS]
    texts = list(dict.fromkeys(text for q in chosen for text in (q.true, q.false)))
    scores = dict(zip(texts, (embed_texts(loaded, texts) @ mean).tolist(), strict=True))
    for q in chosen:
        correct[q.test].append(scores[q.true] > scores[q.false])
    return {test: round(float(np.mean(values)), 4) for test, values in correct.items()}


def run_once(data: Path, run: Path, config: TrainConfig) -> None:
    """Train and evaluate one run, unless it is there."""
    if (run / "result.json").exists():
        return
    start = time.monotonic()
    summary = train(data, run, config, resume=(run / "train_config.json").exists())
    seconds = time.monotonic() - start
    evaluation = EvalConfig(model=str(run), data=str(data), out=run / "evaluation", split=MEASURED_SPLIT)
    tests, retrieval = evaluate_compositionality(evaluation), evaluate_retrieval(evaluation)
    accuracy = {test: round(tests[f"{metric_name('tests', test)}/accuracy"].value, 4) for test in TESTS}
    recall = {name: round(retrieval[name].value, 4) for name in RECALLS}
    result = {
        "run": run.name, "seconds": round(seconds), "accuracy": accuracy, "blind": blind_accuracies(run, data),
        "R@10": recall, "captions with a foil": summary["hard_negatives"],
    }  # fmt: skip
    write_json(run / "result.json", result)
    print(json.dumps(result), flush=True)


def join_towers(text_model: str, start: Path, data: Path, out: Path, configure: Configure) -> tuple[Path, Configure]:
    """A start of the vision tower of `start` and a pretrained text tower, and the settings of what trains from it."""
    # the images as they are: features of a frozen tower are computed once
    configure = partial(configure, freeze=FROZEN, min_crop_scale=1, color_jitter=0)
    towers = {"vision_model": str(start), "text_model": text_model, "context_length": 48}
    run_once(data, out, configure(**towers, steps=JOINED_STEPS, text_lr=3e-4))
    return out, partial(configure, lr=3e-4, text_lr=1.5e-4)


def summarize(out: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Mean accuracies of the seeds with their intervals, and what `medclip compare` says of R@10."""
    summary: dict[str, Any] = {}
    for name in ("with", "without"):
        items = [read_results(out / f"{name}-{seed}" / "evaluation", Kind.COMPOSITIONALITY)[1] for seed in seeds]
        for test in TESTS:
            column = f"{metric_name('tests', test)}/correct"
            correct = np.mean([table[column].to_numpy(zero_copy_only=False) for table in items], axis=0)
            applies = ~np.isnan(correct)
            groups = np.array(items[0]["article"].to_pylist())[applies].tolist()
            mean = estimate(correct[applies], groups, lambda values: float(values.mean()), 0, SHARE)
            summary.setdefault(test, {})[name] = [_round(x) for x in (mean.value, mean.low, mean.high)]
    for seed in seeds:
        comparison = compare([out / f"{name}-{seed}" / "evaluation" for name in ("without", "with")])
        changes = {row.name: row.contrasts[0].difference for row in comparison.rows if row.name in RECALLS}
        summary[f"seed {seed}"] = {
            name: {key: _round(getattr(change, key)) for key in ("baseline", "value", "low", "high")}
            for name, change in changes.items()
        } | {"regressions": comparison.regressions(MAX_REGRESSION)}
    return summary


def _round(value: float) -> float | None:
    """None for an end that nothing tells, as JSON has no NaN."""
    return None if math.isnan(value) else round(value, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=12_000)
    parser.add_argument("--stated-steps", type=int, default=1200, help="of the first model, on what is stated alone")
    parser.add_argument("--start-steps", type=int, default=4000, help="then, of the model that both runs start from")
    parser.add_argument("--text-model", help="a text tower that was trained before, in the place of the tiny one")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    PRESETS["tiny"] = PRESETS["tiny"]._replace(text_layers=2)
    data, stated = args.out / "data", args.out / "stated"
    for folder, stated_share in ((data, STATED_SHARE), (stated, 1.0)):
        if not (folder / "dataset.json").exists():
            prepare(pairs(args.pairs, stated_share), folder)
    for seed in args.seeds:
        configure = partial(TrainConfig, batch_size=args.batch_size, num_evals=1, seed=seed)
        sees_findings, start = args.out / f"sees-findings-{seed}", args.out / f"start-{seed}"
        run_once(stated, sees_findings, configure(preset="tiny", steps=args.stated_steps, lr=3e-3))
        run_once(data, start, configure(init=str(sees_findings), steps=args.start_steps, lr=1e-3))
        configure = partial(configure, lr=1e-3)
        if args.text_model:
            start, configure = join_towers(args.text_model, start, data, args.out / f"joined-{seed}", configure)
        for kinds in (KINDS, ()):
            config = configure(init=str(start), steps=args.steps, hard_negatives=kinds)
            run_once(data, args.out / f"{'with' if kinds else 'without'}-{seed}", config)
    summary = summarize(args.out, args.seeds)
    write_json(args.out / "summary.json", summary)
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()

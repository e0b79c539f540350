"""What `--hard-negatives` does on phantoms, in unseen wording: the foils' accuracy and R@10, with and without.

    python benchmarks/hard_negatives.py --out OUT [--seeds 0 1 2] [--steps 1000]

Training captions come from seven of the ten templates, validation's from the other three; head, chest and knee in every
modality, plane, finding and side. Each seed trains both from scratch for equal steps (preset tiny); `medclip compare`
decides whether R@10 is worse. "blind" is the accuracy of the same choice with the mean embedding of all images in place
of the image: what the words alone give away. A run that is already in OUT is not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medclip import jax_setup

jax_setup.start()

from medclip.data.dataset import Split  # noqa: E402
from medclip.data.hard_negatives import KINDS  # noqa: E402
from medclip.data.phantoms.cases import CASES, TEMPLATES, Case, phantom, write_caption  # noqa: E402
from medclip.data.prepare import prepare  # noqa: E402
from medclip.data.schema import Pair  # noqa: E402
from medclip.encode.encoder import embed_split, embed_texts  # noqa: E402
from medclip.evaluation.compositionality import MIN_CAPTIONS, evaluate_compositionality, questions  # noqa: E402
from medclip.evaluation.config import EvalConfig  # noqa: E402
from medclip.evaluation.retrieval import evaluate_retrieval  # noqa: E402
from medclip.model.checkpoint import load  # noqa: E402
from medclip.training.config import TrainConfig  # noqa: E402
from medclip.training.loop import train  # noqa: E402

UNSEEN = (TEMPLATES[3], TEMPLATES[5], TEMPLATES[7])
SEEN = tuple(template for template in TEMPLATES if template not in UNSEEN)
ORGANS = ("head", "chest", "knee")


def pairs(count: int) -> Iterator[Pair]:
    """`count` training phantoms of ORGANS and each of their cases once in validation, in templates of their own."""
    for split, templates in (("train", SEEN), ("validation", UNSEEN)):
        indices = itertools.count() if split == "train" else range(len(CASES))
        shown = (pair for pair in (phantom(index, 0, split) for index in indices) if pair.labels["organ"] in ORGANS)
        for number, pair in enumerate(itertools.islice(shown, count if split == "train" else None)):
            rng = np.random.default_rng((number, len(templates)))
            yield dataclasses.replace(pair, caption=write_caption(Case(**pair.labels), rng, templates))


def blind_accuracies(model: Path, data: Path) -> dict[str, float]:
    """The share of each test's captions that are nearer to the mean image than their foil is."""
    loaded, split = load(model), Split(data, "validation")
    mean = embed_split(loaded, split, "images").mean(axis=0)
    correct: dict[str, list[bool]] = {}
    all_questions = list(questions(split.column("caption"), [{} for _ in range(len(split))], 0))
    texts = list(dict.fromkeys(text for q in all_questions for text in (q.true, q.false)))
    scores = dict(zip(texts, (embed_texts(loaded, texts) @ mean).tolist(), strict=True))
    for q in all_questions:
        correct.setdefault(q.test, []).append(scores[q.true] > scores[q.false])
    return {test: float(np.mean(values)) for test, values in correct.items() if len(values) >= MIN_CAPTIONS}


def run_once(data: Path, run: Path, config: TrainConfig) -> None:
    """Train and evaluate one run, unless it is there."""
    if (run / "result.json").exists():
        return
    start = time.monotonic()
    summary = train(data, run, config, resume=(run / "train_config.json").exists())
    seconds = time.monotonic() - start
    evaluation = EvalConfig(model=str(run), data=str(data), out=run / "evaluation")
    tests, retrieval = evaluate_compositionality(evaluation), evaluate_retrieval(evaluation)
    accuracy = {m.name.split("/")[1]: round(m.value, 4) for m in tests.metrics}
    recall = {m.name: round(m.value, 4) for m in retrieval.metrics if m.name.endswith("R@10")}
    result = {
        "run": run.name, "seconds": round(seconds), "accuracy": accuracy, "blind": blind_accuracies(run, data),
        "R@10": recall, "captions with a foil": summary["hard_negatives"],
    }  # fmt: skip
    (run / "result.json").write_text(json.dumps(result))
    print(json.dumps(result), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    data = args.out / "data"
    if not (data / "dataset.json").exists():
        prepare(pairs(args.pairs), data)
    for seed in args.seeds:
        for kinds in (KINDS, ()):
            config = TrainConfig(
                preset="tiny", steps=args.steps, batch_size=args.batch_size, lr=3e-3, hard_negatives=kinds,
                num_evals=1, seed=seed,
            )  # fmt: skip
            run_once(data, args.out / f"{'with' if kinds else 'without'}-{seed}", config)


if __name__ == "__main__":
    main()

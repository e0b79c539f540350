"""Speed of the inference backends: JAX, ONNX Runtime and OpenVINO, on the same weights and the same inputs.

    pip install onnx onnxruntime openvino
    python benchmarks/inference_backends.py MODEL --images 32 --captions 64

Features of preprocessed images and of captions of 32 tokens; first the smallest cosine with JAX's, then the backends
in turn, TURNS times. Rates are per second of processor time (user and system, all threads), which other work on the
machine disturbs least: minimum, median, maximum.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from medclip import jax_setup

jax_setup.start()

from medclip.encode.inference_backends import BACKENDS, make_backend  # noqa: E402
from medclip.model.checkpoint import load  # noqa: E402

TURNS, TOKENS = 5, 32
CAPTION = "Chest x-ray, frontal view: a small pleural effusion on the left side and no pneumothorax."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--captions", type=int, default=64)
    given = parser.parse_args()
    model = load(given.model)
    side = model.image_processor.side
    pixels = np.random.default_rng(0).integers(0, 256, (given.images, side, side, 3), np.uint8)
    tokens = [array[:, :TOKENS] for array in model.tokenizer.encode([CAPTION] * given.captions)]
    backends = {name: make_backend(name, model) for name in BACKENDS}
    compare("images", {name: lambda b=b: b.image_features(pixels) for name, b in backends.items()}, given.images)
    compare("captions", {name: lambda b=b: b.text_features(*tokens) for name, b in backends.items()}, given.captions)


def compare(kind: str, runs: dict[str, Callable[[], np.ndarray]], rows: int) -> None:
    expected = runs["jax"]()
    cosines = {name: float(cosine(run(), expected).min()) for name, run in runs.items()}
    turns = [{name: processor_seconds(run) for name, run in runs.items()} for _ in range(TURNS)]
    for name in runs:
        rates = sorted(round(rows / turn[name], 1) for turn in turns)
        ratios = sorted(round(turn["jax"] / turn[name], 2) for turn in turns)
        spread = {"per CPU second": [rates[i] for i in (0, TURNS // 2, -1)]}
        spread["times jax"] = [ratios[i] for i in (0, TURNS // 2, -1)]
        print(json.dumps({"of": kind, "backend": name, **spread, "smallest cosine": cosines[name]}), flush=True)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def processor_seconds(run: Callable[[], np.ndarray]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    main()

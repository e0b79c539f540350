"""Speed of the inference backends: JAX, ONNX Runtime and OpenVINO, on the same weights and the same images.

    medclip export MODEL --to onnx --out EXPORT && pip install onnxruntime openvino
    python benchmarks/inference_backends.py EXPORT

Batches as the program makes them: 64 preprocessed images, 64 captions, and one of each as a query. The backends run in
turn, TURNS times; ratios of times to JAX's: minimum, median, maximum. OpenVINO runs in float32 and in its own type.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from medclip import jax_setup

jax_setup.start()

import jax  # noqa: E402

from medclip.encode.encoder import embed_pixels, embed_texts, normalize  # noqa: E402
from medclip.model.checkpoint import Model, load  # noqa: E402

TURNS, SECONDS = 5, 4.0
Encode = Callable[[np.ndarray], np.ndarray]


def image_encoders(model: Model, folder: Path) -> dict[str, Encode]:

    def inputs(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(normalize(pixels, model.image_processor)).transpose(0, 3, 1, 2)

    return {"jax": lambda pixels: embed_pixels(model, pixels)} | {
        name: lambda pixels, run=run: run({"pixel_values": inputs(pixels)})
        for name, run in sessions(folder / "image_encoder.onnx").items()
    }


def text_encoders(model: Model, folder: Path) -> dict[str, Encode]:
    def inputs(captions: np.ndarray) -> dict[str, np.ndarray]:
        ids, valid = model.tokenizer.encode(captions.tolist())
        return {"input_ids": ids.astype(np.int64), "attention_mask": valid.astype(np.int64)}

    return {"jax": lambda captions: embed_texts(model, captions.tolist())} | {
        name: lambda captions, run=run: run(inputs(captions))
        for name, run in sessions(folder / "text_encoder.onnx").items()
    }


def sessions(path: Path) -> dict[str, Callable]:
    import onnxruntime
    import openvino

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    runs = {"onnxruntime": lambda batch: session.run(None, batch)[0]}
    for name, config in (("openvino f32", {"INFERENCE_PRECISION_HINT": "f32"}), ("openvino", {})):
        compiled = openvino.Core().compile_model(path, "CPU", config)
        runs[name] = lambda batch, compiled=compiled: compiled(batch)[0]
    return runs


def seconds_per_call(encode: Encode, batch: np.ndarray) -> float:
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS / 4 or calls < 2:
        encode(batch)
        calls += 1
    return (time.perf_counter() - start) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    folder = parser.parse_args().export
    model = load(folder)
    side, rng = model.image_processor.side, np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, side, side, 3), np.uint8)
    captions = np.array([f"chest x-ray of patient {i} with a small pleural effusion" for i in range(64)])
    print(json.dumps({"devices": str(jax.devices()), "dimensions": model.config.projection_dim}))
    for task, encoders, batch in (
        ("images", image_encoders(model, folder), pixels),
        ("captions", text_encoders(model, folder), captions),
    ):
        for size in (64, 1):
            compare(f"{task}, batch {size}", encoders, batch[:size])


def compare(task: str, encoders: dict[str, Encode], batch: np.ndarray) -> None:
    reference = encoders["jax"](batch)
    differences = {name: float(np.abs(encode(batch) - reference).max()) for name, encode in encoders.items()}
    turns = [{name: seconds_per_call(encode, batch) for name, encode in encoders.items()} for _ in range(TURNS)]
    for name in encoders:
        ratios = sorted(turn[name] / turn["jax"] for turn in turns)
        timing = {"time / jax's": [round(ratios[i], 2) for i in (0, TURNS // 2, -1)], "difference": differences[name]}
        best = min(turn[name] for turn in turns) / len(batch)
        print(json.dumps({"task": task, "backend": name, "ms each, best": round(1000 * best, 1), **timing}), flush=True)


if __name__ == "__main__":
    main()

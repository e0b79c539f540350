"""Who makes vectors fastest here: JAX, ONNX Runtime or OpenVINO, on the same weights and the same images.

    medclip export MODEL --to onnx --out EXPORT && pip install onnxruntime openvino
    python benchmarks/engines.py EXPORT

Batches as the program makes them: 64 fitted images, 64 captions, and one of each as a query. In turn, several
turns; ratios of the turns' times to JAX's, least, median and most.
OpenVINO runs in float32 and in the type of its own choice.
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
from medclip.model.image_processor import mean_std  # noqa: E402

TURNS, SECONDS = 5, 4.0
Encode = Callable[[np.ndarray], np.ndarray]


def of_images(model: Model, folder: Path) -> dict[str, Encode]:
    mean, std = mean_std(model.preprocessor)

    def prepared(pixels: np.ndarray) -> np.ndarray:
        return np.asarray(normalize(pixels, mean, std)).transpose(0, 3, 1, 2)

    return {"jax": lambda pixels: embed_pixels(model, pixels)} | {
        name: lambda pixels, run=run: run({"pixel_values": prepared(pixels)})
        for name, run in sessions(folder / "image_encoder.onnx").items()
    }


def of_texts(model: Model, folder: Path) -> dict[str, Encode]:
    def prepared(captions: np.ndarray) -> dict[str, np.ndarray]:
        ids, valid = model.tokenizer.encode(captions.tolist())
        return {"input_ids": ids.astype(np.int64), "attention_mask": valid.astype(np.int64)}

    return {"jax": lambda captions: embed_texts(model, captions.tolist())} | {
        name: lambda captions, run=run: run(prepared(captions))
        for name, run in sessions(folder / "text_encoder.onnx").items()
    }


def sessions(path: Path) -> dict[str, Callable]:
    import onnxruntime
    import openvino

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = {"onnxruntime": lambda given: session.run(None, given)[0]}
    for name, config in (("openvino f32", {"INFERENCE_PRECISION_HINT": "f32"}), ("openvino", {})):
        compiled = openvino.Core().compile_model(path, "CPU", config)
        found[name] = lambda given, compiled=compiled: compiled(given)[0]
    return found


def seconds_a_call(encode: Encode, given: np.ndarray) -> float:
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS / 4 or calls < 2:
        encode(given)
        calls += 1
    return (time.perf_counter() - start) / calls


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("export", type=Path)
    folder = ask.parse_args().export
    model = load(folder)
    side, rng = model.config.vision.image_size, np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, side, side, 3), np.uint8)
    captions = np.array([f"chest x-ray of patient {i} with a small pleural effusion" for i in range(64)])
    print(json.dumps({"devices": str(jax.devices()), "dimensions": model.config.projection_dim}))
    for what, engines, given in (
        ("images", of_images(model, folder), pixels),
        ("captions", of_texts(model, folder), captions),
    ):
        for batch in (64, 1):
            compare(f"{what}, batch {batch}", engines, given[:batch])


def compare(what: str, engines: dict[str, Encode], given: np.ndarray) -> None:
    reference = engines["jax"](given)
    apart = {name: float(np.abs(encode(given) - reference).max()) for name, encode in engines.items()}
    turns = [{name: seconds_a_call(encode, given) for name, encode in engines.items()} for _ in range(TURNS)]
    for name in engines:
        ratios = sorted(turn[name] / turn["jax"] for turn in turns)
        said = {"time / jax's": [round(ratios[i], 2) for i in (0, TURNS // 2, -1)], "apart": apart[name]}
        best = min(turn[name] for turn in turns) / len(given)
        print(json.dumps({"what": what, "engine": name, "ms each, best": round(1000 * best, 1), **said}), flush=True)


if __name__ == "__main__":
    main()

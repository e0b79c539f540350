"""What runs a model's towers: JAX, or the ONNX files that `medclip export` writes, in ONNX Runtime or OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from medclip.data.images import mean_std
from medclip.encode.encoder import embed_pixels, embed_texts, in_batches, normalize
from medclip.errors import UserError
from medclip.model.checkpoint import Model, load, model_folder

BACKENDS = ("jax", "onnxruntime", "openvino")
Run = Callable[[dict[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Backend:
    """A model and what runs it."""

    name: str
    model: Model
    images: Callable[[np.ndarray], np.ndarray]
    """Unit vectors f32 (n, p) of fitted pixels u8 (n, s, s, 3)."""
    texts: Callable[[Sequence[str]], np.ndarray]
    """Unit vectors f32 (n, p) of captions."""


def jax_backend(model: Model) -> Backend:
    """A loaded model, run by JAX."""
    return Backend("jax", model, partial(embed_pixels, model), partial(embed_texts, model))


def open_backend(name: str, of: str | Path) -> Backend:
    """The model `of` a folder, a run or the Hub, run by one of ENGINES; all but JAX run what `medclip export` wrote.

    UserError where its ONNX files are absent or the library is not installed.
    """
    model = load(of)
    if name == "jax":
        return jax_backend(model)
    folder = model_folder(of)
    if not (folder / "export.json").is_file():
        raise UserError(f"{folder} holds no ONNX files: medclip export {of} --to onnx --out DIR, then --model DIR.")
    opened = {"onnxruntime": _onnxruntime, "openvino": _openvino}[name]
    try:
        image, text = (opened(folder / f"{kind}_encoder.onnx") for kind in ("image", "text"))
    except ImportError:
        raise UserError(f"--backend {name} needs it installed: pip install {name}.") from None
    mean, std = mean_std(model.preprocessor)

    def images(pixels: np.ndarray) -> np.ndarray:
        def encode(x: np.ndarray) -> np.ndarray:
            return image({"pixel_values": np.asarray(normalize(x, mean, std)).transpose(0, 3, 1, 2)})

        return in_batches(encode, (pixels,), None)

    def texts(captions: Sequence[str]) -> np.ndarray:
        return in_batches(lambda ids, valid: text(_tokens(model, ids, valid)), model.tokenizer.encode(captions), None)

    return Backend(name, model, images, texts)


def _tokens(model: Model, ids: np.ndarray, valid: np.ndarray) -> dict[str, np.ndarray]:
    mask = {} if model.config.logit_bias else {"attention_mask": valid.astype(np.int64)}  # SigLIP attends to all
    return {"input_ids": ids.astype(np.int64), **mask}


def _onnxruntime(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
    return lambda given: session.run(None, given)[0]


def _openvino(path: Path) -> Run:
    import openvino

    # its own choice of type on a CPU is bfloat16, which moves a vector by 2e-3
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda given: compiled(given)[0]

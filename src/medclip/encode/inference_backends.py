"""Backends that run a model's towers: JAX, or the files of `medclip export --to onnx` in ONNX Runtime or OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medclip.atomic_io import has_checksum, read_optional, sha256
from medclip.encode.caption_lengths import batch_rows
from medclip.encode.encoder import Backend, jax_backend, normalize, run_in_batches
from medclip.errors import UserError
from medclip.model.checkpoint import load, model_folder
from medclip.model.convert import EXPORT_FILE
from medclip.model.export import Inputs, text_encoder_inputs
from medclip.require import require

BACKENDS = ("jax", "onnxruntime", "openvino")
Run = Callable[[Inputs], np.ndarray]


def open_backend(name: str, source: str | Path, cache: bool = False) -> Backend:
    """The model of a folder, a run or the Hub, run by one of BACKENDS; all but JAX run what `medclip export` wrote.

    `cache` is for JAX's features alone. Raises UserError where the ONNX files are absent or the library is not
    installed.
    """
    model = load(source)
    if name == "jax":
        return jax_backend(model, cache)
    folder = model_folder(source)
    record = read_optional(folder / EXPORT_FILE, "an export")
    if record.get("form") != "onnx":
        raise UserError(f"{folder} holds no ONNX files: medclip export {source} --to onnx --out DIR, then --model DIR.")
    open_session = {"onnxruntime": _onnxruntime, "openvino": _openvino}[name]
    files = [_whole_file(folder, record, f"{kind}_encoder.onnx") for kind in ("image", "text")]
    image_encoder, text_encoder = map(open_session, files)

    def image(pixels: np.ndarray) -> np.ndarray:
        def encode(x: np.ndarray) -> np.ndarray:
            inputs = np.asarray(normalize(x, model.image_processor)).transpose(0, 3, 1, 2)
            return image_encoder({"pixel_values": inputs})

        return run_in_batches(encode, (pixels,))

    def text(ids: np.ndarray, valid: np.ndarray) -> np.ndarray:
        def encode(ids: np.ndarray, valid: np.ndarray) -> np.ndarray:
            return text_encoder(text_encoder_inputs(model, ids, valid))

        return run_in_batches(encode, (ids, valid), batch_sizes=(batch_rows(ids.shape[1]),))

    return Backend(name, model, image, text, lambda embeddings, tower: embeddings)


def _whole_file(folder: Path, record: Mapping[str, Any], name: str) -> Path:
    """A file of an export, the hash of which is recorded. UserError where it is absent or another."""
    path = folder / name
    if not (has_checksum(record) and path.is_file() and sha256(path) == record["sha256"].get(name)):
        raise UserError(f"{path} is absent, or not as it was written: medclip export the model again.")
    return path


def _onnxruntime(path: Path) -> Run:
    onnxruntime = require("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
    return lambda inputs: session.run(None, inputs)[0]


def _openvino(path: Path) -> Run:
    # its own choice of type on a CPU is bfloat16, which moves an embedding by 2e-3
    compiled = require("openvino").Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda inputs: compiled(inputs)[0]

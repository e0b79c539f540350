"""Backends that run a model's towers: JAX, or the same computation as an ONNX graph in ONNX Runtime or OpenVINO."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jax.export import symbolic_shape

from medclip.atomic_io import write_text
from medclip.encode.caption_lengths import LENGTHS, batch_rows
from medclip.encode.decode import BATCH_SIZE
from medclip.encode.encoder import Backend, jax_backend, normalize, project_features, run_in_batches, tower_batch_size
from medclip.errors import LockedError, UserError
from medclip.folder_locks import LOCK_WAIT_S, lock_folder
from medclip.model.checkpoint import Model, load, model_hash
from medclip.model.onnx_graph import onnx_bytes
from medclip.model.towers import AnyArray, Params, image_features, text_features
from medclip.progress import console
from medclip.require import require
from medclip.user_folders import cache_folder
from medclip.versions import library_versions, processor_models

LIBRARIES = {"jax": "jax", "onnxruntime": "onnxruntime", "openvino": "openvino", "openvino-bf16": "openvino"}
BACKENDS = tuple(LIBRARIES)
FLOAT32 = ("jax", "onnxruntime", "openvino")
AUTO = "auto"
MAX_DIFFERENCE = 1e-5
"""Of an embedding's component between backends in float32: 50 times what was measured."""
CHOICES_DIR = "backends"
_PROBE_TURNS = 2
_PROBE_CAPTION = "Axial CT of the chest: a small nodule in the left upper lobe, and no pleural effusion."
Run = Callable[[Mapping[str, np.ndarray]], np.ndarray]


def open_backend(name: str, source: str | Path, cache: bool = False) -> Backend:
    """The model of a folder, a run or the Hub, run by one of BACKENDS, or by the fastest in float32 for AUTO.

    `cache` is for features, see `jax_backend`. Raises UserError where a library is not installed, this processor
    computes no bfloat16, or the model has no graph.
    """
    model = load(source)
    if name == AUTO:
        name = fastest_backend(model, model_hash(source))
    return make_backend(name, model, cache)


def make_backend(name: str, model: Model, use_cache: bool = False) -> Backend:
    """A loaded model run by one of BACKENDS; each tower's graph is compiled when it is first needed."""
    if name == "jax":
        return jax_backend(model, use_cache)
    open_session = _onnxruntime if name == "onnxruntime" else partial(_openvino, bf16=name == "openvino-bf16")
    version = _import_library(LIBRARIES[name]).__version__
    image_encoder = cache(lambda: open_session(image_graph(model)))
    text_encoder = cache(lambda: open_session(text_graph(model)))

    def image(pixels: np.ndarray) -> np.ndarray:
        def encode(pixels: np.ndarray) -> np.ndarray:
            return image_encoder()({"pixels": pixels})

        return run_in_batches(encode, (pixels,), (tower_batch_size("images"),))

    def text(ids: np.ndarray, valid: np.ndarray) -> np.ndarray:
        def encode(ids: np.ndarray, valid: np.ndarray) -> np.ndarray:
            return text_encoder()({"input_ids": ids, "attention_mask": valid})

        return run_in_batches(encode, (ids, valid), (batch_rows(ids.shape[1]),))

    return Backend(name, model, image, text, partial(project_features, model), LENGTHS, use_cache, version)


def image_graph(model: Model) -> bytes:
    """ONNX of the vision tower: pixels u8 (b, s, s, 3) to features, b free."""

    def features(params: Params, pixels: AnyArray) -> AnyArray:
        return image_features(params, normalize(pixels, model.image_processor), model.config)

    side = model.image_processor.side
    shape = (*symbolic_shape("b"), side, side, 3)
    return onnx_bytes(features, model.params, {"pixels": jax.ShapeDtypeStruct(shape, np.uint8)}, "features")


def text_graph(model: Model) -> bytes:
    """ONNX of the text tower: token ids i32 (b, t) and where they are real to features, b and t free."""

    def features(params: Params, ids: AnyArray, valid: AnyArray) -> AnyArray:
        return text_features(params, ids, valid, model.config)

    shape = symbolic_shape("b, t", constraints=[f"t <= {model.tokenizer.context_length}"])
    inputs = {"input_ids": jax.ShapeDtypeStruct(shape, np.int32), "attention_mask": jax.ShapeDtypeStruct(shape, bool)}
    return onnx_bytes(features, model.params, inputs, "features")


def fastest_backend(model: Model, model_sha256: str) -> str:
    """The backend in float32 that takes the least time here for a batch of images and one of captions.

    It is measured once, and remembered in this user's cache folder by model, processor, cores and versions. One that
    cannot run the model, or whose embeddings differ from JAX's by more than MAX_DIFFERENCE, is left out with a warning.
    JAX where there is an accelerator, or where no other library is installed.
    """
    candidates = [name for name in FLOAT32 if all(map(importlib.util.find_spec, _packages(name)))]
    if len(candidates) == 1 or jax.default_backend() != "cpu":
        return "jax"
    key = hashlib.sha256(repr((model_sha256, *_machine())).encode()).hexdigest()[:32]
    file = folder / CHOICES_DIR / key if (folder := cache_folder()) else None
    with suppress(OSError, UnicodeDecodeError):
        if file and (name := file.read_text().strip()) in candidates:
            return name
    seconds = _time_backends(model, candidates)
    fastest = min(seconds, key=seconds.__getitem__)
    rates = ", ".join(f"{name} {BATCH_SIZE / value:.1f}" for name, value in seconds.items())
    console.print(f"backend {fastest}, the fastest here in float32 (pairs/s: {rates})", soft_wrap=True)
    with suppress(OSError, LockedError):  # then it is measured again
        if file:
            with lock_folder(file.parent, wait_s=LOCK_WAIT_S):
                write_text(file, f"{fastest}\n")
    return fastest


def _packages(name: str) -> Sequence[str]:
    return ("jax",) if name == "jax" else ("onnx", LIBRARIES[name])


def _machine() -> tuple[object, ...]:
    """What decides, besides the model, which backend is fastest."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (*processor_models(), cores, library_versions("jax", "onnxruntime", "openvino"))


def _time_backends(model: Model, names: Sequence[str]) -> dict[str, float]:
    """Seconds for a batch of images and one of captions by backend, the best of turns; JAX is the first of `names`."""
    side, rng = model.image_processor.side, np.random.default_rng(0)
    pixels = rng.integers(0, 256, (BATCH_SIZE, side, side, 3), np.uint8)
    ids, valid = model.tokenizer.encode([_PROBE_CAPTION] * BATCH_SIZE)
    length = next((n for n in LENGTHS if n >= valid.sum(axis=1).max()), ids.shape[1])
    ids, valid = ids[:, :length], valid[:, :length]
    backends = {name: make_backend(name, model) for name in names}

    def embed(backend: Backend) -> np.ndarray:
        images = backend.project(backend.image_features(pixels), model.config.vision)
        return np.concatenate([images, backend.project(backend.text_features(ids, valid), model.config.text)])

    expected, seconds = embed(backends["jax"]), {}
    for name, backend in backends.items():
        try:
            if (difference := float(np.abs(embed(backend) - expected).max())) > MAX_DIFFERENCE:
                raise UserError(f"it differs from jax by {difference:.1e}.")
            seconds[name] = math.inf
        except UserError as error:
            console.print(f"warning: {name} is left out: {error}", soft_wrap=True)
    for _ in range(_PROBE_TURNS):
        for name in seconds:
            start = time.perf_counter()
            embed(backends[name])
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def _import_library(name: str) -> Any:
    # OpenVINO's own import sends an event to Google Analytics, unless this package is absent
    sys.modules.setdefault("openvino_telemetry", cast(Any, None))
    return require(name, extra=name)


def _onnxruntime(graph: bytes) -> Run:
    onnxruntime = _import_library("onnxruntime")
    session = onnxruntime.InferenceSession(graph, providers=onnxruntime.get_available_providers())
    return lambda inputs: session.run(None, inputs)[0]


def _openvino(graph: bytes, bf16: bool) -> Run:
    """Its own choice of type is bfloat16 where the processor has it; here the user chooses."""
    core = _import_library("openvino").Core()
    precision = "bf16" if bf16 else "f32"
    compiled = core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": precision})
    if bf16 and compiled.get_property("INFERENCE_PRECISION_HINT").to_string() != "bf16":
        raise UserError("OpenVINO computes no bfloat16 on this processor: choose --backend openvino.")
    return lambda inputs: compiled(inputs)[0]

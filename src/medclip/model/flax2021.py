"""The founding project's `flax_model.msgpack`: FlaxHybridCLIP as `transformers` 4.x wrote it. Reading only.

A tree of layers with their weights as `kernel` ((in, out) or (h, w, in, out)), `scale` and `embedding`; CLIP's towers
lie one level deeper than they do today.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from medclip.errors import UserError
from medclip.model.weights import LazyTensor, canonical

WEIGHTS_FILE = "flax_model.msgpack"
_ARRAY = 1  # flax.serialization's extension type of an array: its shape, the name of its dtype, its bytes


def open_tensors(path: Path) -> dict[str, LazyTensor]:
    """Every tensor under its name and in its layout of today. Raises UserError where the file is damaged."""
    try:
        tree = msgpack.unpackb(path.read_bytes(), ext_hook=_unpack_array, raw=False)
        tensors = dict(_today(names, np.asarray(value)) for names, value in _leaves(tree, ()))
    except (ValueError, TypeError, AttributeError, msgpack.UnpackException) as error:
        raise UserError(f"{path} is damaged: {error}.") from None
    return {str(canonical(name)): LazyTensor(value.shape, lambda value=value: value) for name, value in tensors.items()}


def dual_encoder_config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A hybrid-clip `config.json` as that of today's VisionTextDualEncoderModel."""
    dropped = ("transformers_version", "architectures", "seed", "initializer_factor")
    fields = {name: value for name, value in raw.items() if name not in dropped}
    return {**fields, "architectures": ["VisionTextDualEncoderModel"], "model_type": "vision-text-dual-encoder"}


def _unpack_array(kind: int, data: bytes) -> np.ndarray:
    if kind != _ARRAY:
        raise ValueError(f"extension type {kind} is not an array")
    shape, dtype, buffer = msgpack.unpackb(data, raw=True)
    return np.frombuffer(buffer, np.dtype(dtype.decode())).reshape(shape)


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value


def _today(names: tuple[str, ...], value: np.ndarray) -> tuple[str, np.ndarray]:
    *path, leaf = names
    if leaf == "kernel":
        value = value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)
    return ".".join([*path, "weight" if leaf in ("kernel", "scale", "embedding") else leaf]), value

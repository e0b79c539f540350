"""The founding project's `flax_model.msgpack`: FlaxHybridCLIP as `transformers` 4.x wrote it.

A tree of layers with their weights as `kernel` ((in, out) or (h, w, in, out)), `scale` and `embedding`; CLIP's towers
lie one level deeper than they do today.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from medclip.atomic_io import whole_file
from medclip.errors import UserError
from medclip.model.weights import Stored, canonical

WEIGHTS = "flax_model.msgpack"
_ARRAY = 1  # flax.serialization's extension type of an array: its shape, the name of its dtype, its bytes
_DEEPER = ("clip_vision_model", "clip_text_model")


def stored_tensors(path: Path) -> dict[str, Stored]:
    """Every tensor under its name and in its layout of today. UserError where the file is damaged."""
    try:
        tree = msgpack.unpackb(path.read_bytes(), ext_hook=_array, raw=False)
        found = dict(_today(names, np.asarray(value)) for names, value in _leaves(tree, ()))
    except (ValueError, TypeError, AttributeError, msgpack.UnpackException) as error:
        raise UserError(f"{path} is damaged: {error}.") from None
    return {str(canonical(name)): Stored(value.shape, lambda value=value: value) for name, value in found.items()}


def _array(kind: int, data: bytes) -> np.ndarray:
    if kind != _ARRAY:
        raise ValueError(f"extension type {kind} is no array")
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


def dual_encoder(said: Mapping[str, Any]) -> dict[str, Any]:
    """A hybrid-clip `config.json` as that of today's VisionTextDualEncoderModel."""
    dropped = ("transformers_version", "architectures", "seed", "initializer_factor")
    kept = {name: value for name, value in said.items() if name not in dropped}
    return {**kept, "architectures": ["VisionTextDualEncoderModel"], "model_type": "vision-text-dual-encoder"}


def write(params: Mapping[str, np.ndarray], towers: Mapping[str, str], path: Path) -> None:
    """Write tensors in the format of 2021; `towers` gives the model type under each prefix ("vision_model.")."""
    tree: dict[str, Any] = {}
    for name, value in params.items():
        for prefix, kind in towers.items():
            if name.startswith(prefix) and kind in _DEEPER:
                name = prefix + name
        *layer, leaf = name.split(".")
        at = tree
        for step in layer:
            at = at.setdefault(step, {})
        leaf, value = _of_2021(layer, leaf, np.asarray(value))
        at[leaf] = msgpack.ExtType(_ARRAY, msgpack.packb((value.shape, value.dtype.name, value.tobytes())))
    with whole_file(path) as partial:
        partial.write_bytes(msgpack.packb(tree))


def _of_2021(layer: list[str], leaf: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    if leaf != "weight":
        return leaf, value
    if value.ndim == 1:
        return "scale", value
    if "embedding" in layer[-1] and value.ndim == 2:
        return "embedding", value
    return "kernel", np.ascontiguousarray(value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0))

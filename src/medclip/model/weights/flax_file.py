"""Flax's msgpack trees, as `transformers` 4.x wrote them (FlaxHybridCLIP of 2021, FlaxCLIPModel, FlaxBertModel).

A tree of layers with their weights as `kernel` ((in, out) or (h, w, in, out)), `scale` and `embedding`. Arrays of more
than 1 GiB are in chunks, and the trees of large models in shards, flat, with "/" in their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  makes NumPy know bfloat16 by name
import msgpack
import numpy as np

from medclip.errors import UserError
from medclip.model.weights.lazy_tensor import LazyTensor

# flax.serialization's extension types of arrays and of scalars: the shape, the name of the dtype, the bytes.
_ARRAYS = (1, 3)
_CHUNKED = "__msgpack_chunked_array__"
_DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "int32", "int64", "uint8", "bool")


def open_tensors(path: Path) -> dict[str, LazyTensor]:
    """Every tensor under its name and in its layout of today. Raises UserError where the file is damaged."""
    try:
        tree = msgpack.unpackb(np.memmap(path, mode="r"), ext_hook=_unpack_array, raw=False)
        stored = [_today(name, value) for name, value in _leaves(tree, ())]
    except (ValueError, TypeError, AttributeError, KeyError, OSError, RecursionError, msgpack.UnpackException) as error:
        raise UserError(f"{path} is damaged: {error}.") from None
    tensors = {name: LazyTensor(value.shape, value.dtype.name, lambda value=value: value) for name, value in stored}
    if len(tensors) != len(stored):
        raise UserError(f"{path} is damaged: it holds tensors twice.")
    return tensors


def _unpack_array(kind: int, data: bytes) -> np.ndarray:
    if kind not in _ARRAYS:
        raise ValueError(f"extension type {kind} is not an array")
    shape, dtype, buffer = msgpack.unpackb(data, raw=True)
    if (name := dtype.decode()) not in _DTYPES:
        raise ValueError(f"it holds an array of {name[:40]!r}")
    return np.frombuffer(buffer, np.dtype(name)).reshape(shape)


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and array of every leaf, steps of the name parted by dots."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and _CHUNKED in value:
            shape, chunks = value["shape"], value["chunks"]
            parts = [chunks[str(i)] for i in range(len(chunks))]
            yield ".".join((*path, name)), np.concatenate(parts).reshape([shape[str(i)] for i in range(len(shape))])
        elif isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        elif isinstance(value, (np.ndarray, float, int)):
            yield ".".join((*path, name)), np.asarray(value)
        else:
            raise ValueError(f"{name[:40]} is not an array")


def _today(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    *path, leaf = name.replace("/", ".").split(".")
    if leaf == "kernel":
        value = value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)
    return ".".join([*path, "weight" if leaf in ("kernel", "scale", "embedding") else leaf]), value

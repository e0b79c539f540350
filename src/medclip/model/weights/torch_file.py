"""torch's checkpoints (.bin, .pt, .pth, .ckpt) without torch and without running anything that they hold.

Both forms are read: the zip archive of torch >= 1.6, and the stream of pickles before it, in which many repositories of
2019 and 2020 still are. Shapes come from the pickle alone; a tensor's bytes are read when it is.
"""

from __future__ import annotations

import io
import itertools
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import ml_dtypes  # noqa: F401  makes NumPy know bfloat16 and float8 by name
import numpy as np

from medclip.errors import UserError
from medclip.model.weights.lazy_tensor import LazyTensor
from medclip.model.weights.pickle_reader import OPAQUE, ForeignObject, read_pickle

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_MAX_DIMENSIONS, _MAX_SIZE, _MAX_PICKLE = 16, 2**48, 2**28
_MAX_NESTING = 3
# Under these a training run's checkpoint holds the weights.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class _Storage(NamedTuple):
    """A run of numbers that tensors are views of."""

    key: str
    dtype: np.dtype
    size: int
    first: int = 0
    """Where it begins in its root storage, in elements (legacy form)."""


class _Tensor(NamedTuple):
    """A view of a storage; numbers in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Place(NamedTuple):
    """Where bytes lie in the file. A checksum of 0 was not written."""

    start: int
    size: int
    checksum: int = 0
    big_endian: bool = False


def open_tensors(path: Path) -> dict[str, LazyTensor]:
    """Every tensor of a checkpoint under its stored name, unread; a training run's is unwrapped.

    Raises UserError where the file is damaged, where it holds more than tensors, or is a TorchScript archive.
    """
    try:
        with path.open("rb") as file:
            content, places = (_open_zip if file.read(2) == b"PK" else _open_legacy)(file)
        tensors = _state_dict(content)
        return {name: _lazy(path, name, tensor, places) for name, tensor in tensors.items()}
    except ForeignObject as error:
        raise UserError(
            f"{path} holds {str(error)[:100]!r}, not tensors alone; only running code could open it, and medclip runs "
            "none. Where you trust it, save its state_dict() with torch or safetensors."
        ) from None
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is damaged: {error}.") from None
    except (ValueError, TypeError, OSError, EOFError, struct.error, NotImplementedError, OverflowError) as error:
        raise UserError(f"{path} is not a checkpoint of tensors, or is damaged: {error}.") from None


def _open_zip(file: io.BufferedReader) -> tuple[Any, dict[str, _Place]]:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise ValueError("its archive has two entries of one name")
    root = next(iter(entries), "").partition("/")[0]
    if f"{root}/constants.pkl" in entries or any(name.startswith(f"{root}/code/") for name in entries):
        raise ValueError("it is a TorchScript archive, a program; save the module's state_dict() instead")
    if f"{root}/data.pkl" not in entries:
        raise ValueError("its archive has no data.pkl")
    places = {name.removeprefix(f"{root}/"): _locate(file, entry) for name, entry in entries.items()}
    ordered = sorted(places.values())
    if any(place.start + place.size > after.start for place, after in itertools.pairwise(ordered)):
        raise ValueError("entries of its archive overlap")
    big_endian = "byteorder" in places and _read_bytes(file, places["byteorder"]).tobytes() == b"big"
    storages = {
        name.removeprefix("data/"): place._replace(big_endian=big_endian)
        for name, place in places.items()
        if name.startswith("data/")
    }
    if places["data.pkl"].size > _MAX_PICKLE:
        raise ValueError(f"its data.pkl has {places['data.pkl'].size:,} bytes")
    pickle = io.BytesIO(_read_bytes(file, places["data.pkl"]).tobytes())
    return read_pickle(pickle, _GLOBALS, _load_storage), storages


def _locate(file: io.BufferedReader, entry: zipfile.ZipInfo) -> _Place:
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise ValueError("its archive is compressed, which torch never does")
    file.seek(entry.header_offset)
    signature, name_size, extra_size = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    if signature != b"PK\3\4" or file.read(name_size) != entry.orig_filename.encode():
        raise ValueError("its archive contradicts itself")
    return _Place(file.tell() + extra_size, entry.file_size, entry.CRC)


def _open_legacy(file: io.BufferedReader) -> tuple[Any, dict[str, _Place]]:
    file.seek(0)
    if read_pickle(file, {}) != _MAGIC or read_pickle(file, {}) != _PROTOCOL:
        raise ValueError("it does not begin as torch's files do")
    system = read_pickle(file, {})
    roots: dict[str, _Storage] = {}

    def load_storage(identity: Any) -> _Storage:
        storage = _load_storage(identity)
        roots[storage.key] = storage
        view = identity[5] if len(identity) > 5 else None
        if view is None:
            return storage
        if not isinstance(view, tuple) or len(view) != 3 or not _are_sizes(view[1:]) or sum(view[1:]) > storage.size:
            raise ValueError("a view of a storage is malformed")
        return storage._replace(first=view[1], size=view[2])

    content, keys = read_pickle(file, _GLOBALS, load_storage), read_pickle(file, {})
    if not isinstance(system, dict) or not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("its header is malformed")
    places: dict[str, _Place] = {}
    for key in keys:
        (size,) = struct.unpack("<q" if system.get("little_endian", True) else ">q", file.read(8))
        if key not in roots or roots[key].size != size:
            raise ValueError(f"storage {key[:40]} is not as long as its tensors say")
        size *= roots[key].dtype.itemsize
        places[key] = _Place(file.tell(), size, big_endian=not system.get("little_endian", True))
        file.seek(size, io.SEEK_CUR)
    return content, places


def _load_storage(identity: Any) -> _Storage:
    """The storage of a persistent id: ("storage", type, key, device, number of elements), and a view if legacy."""
    match identity:
        case ("storage", np.dtype() as dtype, str(key), _, size, *_) if _are_sizes((size,)):
            return _Storage(key, dtype, size)
    raise ValueError("the id of a storage is malformed")


def _are_sizes(values: Any) -> TypeGuard[tuple[int, ...]]:
    return isinstance(values, tuple) and all(type(value) is int and 0 <= value < _MAX_SIZE for value in values)


def _rebuild_tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any = None, hooks: Any = None, metadata: Any = None
) -> _Tensor:
    """torch._utils._rebuild_tensor and _v2, for views that lie in their storage and repeat none of it."""
    if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise ValueError("a tensor is malformed")
    if len(shape) != len(strides) or len(shape) > _MAX_DIMENSIONS or not _are_sizes((offset, *shape, *strides)):
        raise ValueError("a tensor is malformed")
    if metadata or prod(n for n in shape if n) > _MAX_SIZE:  # conjugate or negative views; absurd but empty shapes
        raise ValueError("a tensor is malformed")
    tensor = _Tensor(storage, offset, shape, strides)
    if max(prod(shape), _end(tensor)) > storage.size:
        raise ValueError(f"a tensor of shape {shape} reaches beyond its storage of {storage.size} elements")
    return tensor


def _rebuild_tensor_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, metadata: Any = None
) -> _Tensor:
    """Types without a storage class of their own, such as float8, over bytes."""
    if not isinstance(storage, _Storage) or not isinstance(dtype, np.dtype):
        raise ValueError("a tensor is malformed")
    size = storage.size * storage.dtype.itemsize // dtype.itemsize
    return _rebuild_tensor(storage._replace(dtype=dtype, size=size), offset, shape, strides, metadata=metadata)


def _rebuild_parameter(tensor: Any, *_: Any) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise ValueError("a parameter is not a tensor")
    return tensor


def _rebuild_from_type(function: Any, kind: Any, arguments: Any, state: Any) -> _Tensor:
    if function not in (_rebuild_tensor, _rebuild_tensor_v3, _rebuild_parameter) or not isinstance(arguments, tuple):
        raise ValueError("a tensor is malformed")
    return function(*arguments)


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise ValueError("an ordered dictionary is malformed")
    return dict(pairs)


_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
    "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "Untyped": "uint8",
}  # fmt: skip
_FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
_DTYPES = (*dict.fromkeys(_STORAGES.values()), "uint16", "uint32", "uint64", *_FLOAT8)
_HARMLESS = (
    "torch Size", "torch device", "torch Tensor", "torch._tensor Tensor", "torch.nn.parameter Parameter",
    "argparse Namespace", "collections defaultdict", "__builtin__ set", "builtins set", "_codecs encode",
    "numpy dtype", "numpy.core.multiarray scalar", "numpy._core.multiarray scalar",
)  # fmt: skip
_GLOBALS: Mapping[str, Any] = {
    **dict.fromkeys(_HARMLESS, OPAQUE),
    **{f"torch {name}": np.dtype(name) for name in _DTYPES},
    **{
        f"{module} {kind}Storage": np.dtype(name)
        for kind, name in _STORAGES.items()
        for module in ("torch", "torch.cuda", "torch.storage")
    },
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor": _rebuild_tensor,
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils _rebuild_parameter": _rebuild_parameter,
    "torch._utils _rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor _rebuild_from_type_v2": _rebuild_from_type,
}


def _state_dict(content: Any) -> dict[str, _Tensor]:
    """The tensors of a checkpoint, out of the dictionaries that training runs put around them."""
    for _ in range(_MAX_NESTING):
        inner = [
            content[name] for name in _WRAPPERS if isinstance(content, dict) and isinstance(content.get(name), dict)
        ]
        content = inner[0] if inner else content
    tensors = (
        {name: value for name, value in content.items() if isinstance(value, _Tensor)}
        if isinstance(content, dict)
        else {}
    )
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise ValueError("it holds no dictionary of tensors by name")
    return tensors


def _end(tensor: _Tensor) -> int:
    """The first element of the storage behind the tensor's last."""
    if not prod(tensor.shape):
        return tensor.offset
    return tensor.offset + 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))


def _lazy(path: Path, name: str, tensor: _Tensor, places: Mapping[str, _Place]) -> LazyTensor:
    place, storage = places.get(tensor.storage.key), tensor.storage
    if place is None or (storage.first + storage.size) * storage.dtype.itemsize > place.size:
        raise ValueError(f"the numbers of {name[:100]} are not in it")
    return LazyTensor(tensor.shape, storage.dtype.name, partial(_read, path, tensor, place))


def _read(path: Path, tensor: _Tensor, place: _Place) -> np.ndarray:
    (storage, offset, shape, strides), end, width = tensor, _end(tensor), tensor.storage.dtype.itemsize
    if storage.size * width != place.size or (offset, end) != (0, storage.size):
        # part of a storage, which others may share: its own bytes alone, and so without a checksum
        place = place._replace(
            start=place.start + (storage.first + offset) * width, size=(end - offset) * width, checksum=0
        )
    with path.open("rb") as file:
        try:
            data = _read_bytes(file, place)
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}.") from None
    if place.big_endian:
        data = data.reshape(-1, width)[:, ::-1].ravel()
    view = np.lib.stride_tricks.as_strided(data.view(storage.dtype), shape, [stride * width for stride in strides])
    return np.asarray(view, order="C")


def _read_bytes(file: io.BufferedReader, place: _Place) -> np.ndarray:
    if place.start + place.size > os.fstat(file.fileno()).st_size:  # before memory for them is taken
        raise ValueError("it ends too early")
    file.seek(place.start)
    data = np.fromfile(file, np.uint8, place.size)
    if place.checksum and zlib.crc32(data.data) != place.checksum:
        raise ValueError("its bytes are not those of its checksum")
    return data

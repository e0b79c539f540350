"""Checkpoints that torch itself wrote, stored with their values, and files in torch's form made by hand.

Run by hand where torch is (after `make parity`), it writes the stored ones:
    .venv-parity/bin/python tests/support/torch_files.py
"""

from __future__ import annotations

import argparse
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

STORED = Path(__file__).parent / "torch-files"


def write_stored() -> None:
    import torch

    torch.manual_seed(0)
    base = torch.randn(6, 4)
    tensors = {
        "plain": torch.randn(3, 4),
        "transposed": torch.randn(3, 4).T,
        "every_other": base[::2, 1:3],
        "shared": base,
        "last_row": base[5],
        "parameter": torch.nn.Parameter(torch.randn(2, 3)),
        "double": torch.randn(2).double(),
        "half": torch.randn(5).half(),
        "bfloat16": torch.randn(5).bfloat16(),
        "long": torch.tensor([[1, -(2**40)]]),
        "int": torch.tensor([7, -7], dtype=torch.int32),
        "short": torch.tensor([300], dtype=torch.int16),
        "byte": torch.tensor([0, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(2.6592),
        "empty": torch.zeros(0, 3),
    }
    STORED.mkdir(exist_ok=True)
    values = {name: value.detach().to(torch.float64).numpy() for name, value in tensors.items()}
    np.savez_compressed(STORED / "values.npz", **values)
    torch.save(tensors, STORED / "zip.bin")
    torch.save(tensors, STORED / "protocol4.bin", pickle_protocol=4)
    torch.save(tensors, STORED / "legacy.bin", _use_new_zipfile_serialization=False)
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    run = {
        "epoch": 3,
        "loss": np.float64(0.5),
        "args": argparse.Namespace(lr=1e-3),
        "size": torch.Size([2]),
        "device": torch.device("cpu"),
        "optimizer": optimizer.state_dict(),
        "state_dict": {f"module.{name}": value for name, value in tensors.items()},
    }
    torch.save(run, STORED / "run.pt")
    torch.save(module, STORED / "module.pt")
    torch.jit.script(module).save(STORED / "script.pt")
    torch.save({"a": torch.ones(2).to(torch.float8_e4m3fn), "b": torch.ones(2).to(torch.uint16)}, STORED / "float8.bin")


class Storage:
    """A storage by its persistent id, for `dump`."""

    def __init__(self, kind: str, key: Any, size: Any, *view: Any):
        self.identity = ("storage", Global("torch", f"{kind}Storage"), key, "cpu", size, *view)


class Global:
    """A name that the pickle refers to."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class Call:
    """A call that unpickling would make."""

    def __init__(self, function: Global, *arguments: Any, state: Any = None):
        self.function, self.arguments, self.state = function, arguments, state


def tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Call:
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), storage, offset, shape, strides, False, {})


def dump(value: Any) -> bytes:
    """A pickle of plain containers, numbers and text, with storages, globals and calls."""
    return b"\x80\x02" + _dump(value) + b"."


def _dump(value: Any) -> bytes:
    match value:
        case Storage():
            return _dump(value.identity) + b"Q"
        case Global():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            state = b"" if value.state is None else _dump(value.state) + b"b"
            return _dump(value.function) + _dump(value.arguments) + b"R" + state
        case tuple():
            return b"(" + b"".join(map(_dump, value)) + b"t"
        case list():
            return b"](" + b"".join(map(_dump, value)) + b"e"
        case dict():
            return b"}(" + b"".join(_dump(key) + _dump(item) for key, item in value.items()) + b"u"
    return pickle.dumps(value, 2)[2:-1]


def write_zip(path: Path, content: bytes, storages: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip archive in torch's form around a pickle."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", b"little")
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", b"3\n")
    return path


def write_state_dict(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Float32 arrays as torch would save them."""
    content = {}
    for key, (name, array) in enumerate(arrays.items()):
        strides = tuple(stride // 4 for stride in np.zeros(array.shape, np.float32).strides)
        content[name] = tensor(Storage("Float", str(key), array.size), 0, array.shape, strides)
    data = {str(key): array.astype("<f4").tobytes() for key, array in enumerate(arrays.values())}
    return write_zip(path, dump(content), data)


if __name__ == "__main__":
    write_stored()

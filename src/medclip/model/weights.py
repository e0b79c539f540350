"""Tensors in files, checked against the shapes of a config before any is read: safetensors only, never pickles."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from medclip.atomic_io import read_json
from medclip.errors import UserError
from medclip.model.shapes_init import Shapes

PICKLE_PATTERNS = ("*.bin", "*.pth", "*.pt", "*.ckpt")
_MAX_FAULTS = 12


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that has not been read yet."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def open_tensors(folder: Path, file: str = "model.safetensors") -> dict[str, LazyTensor]:
    """Every tensor of a folder under its canonical name: of one file, or of the shards its index lists.

    Raises UserError for absent, damaged or foreign files.
    """
    tensors: dict[str, LazyTensor] = {}
    for path in weight_files(folder, file):
        for stored_name, tensor in _open_file(path).items():
            if (name := canonical(stored_name)) is None:
                continue
            if name in tensors:
                raise UserError(f"{path} holds {name} a second time, as {stored_name}.")
            tensors[name] = tensor
    return tensors


def weight_files(folder: Path, name: str = "model.safetensors") -> list[Path]:
    """The file of that name, or the shards that its index lists. Raises UserError as `path_inside` does."""
    index = folder / f"{name}.index.json"
    if (folder / name).exists() or not index.exists():
        return [path_inside(folder, name)]
    shards = read_json(index, "a model folder").get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise UserError(f"{index} is damaged: it has no weight_map.")
    return [path_inside(folder, shard) for shard in sorted(set(shards.values()))]


def canonical(name: str) -> str | None:
    """Today's name of a tensor; None for buffers that are not weights.

    Older files call a norm's weight and bias gamma and beta, and repeat the name of a tower.
    """
    if name.endswith(("position_ids", "attn_mask")):
        return None
    name = re.sub(r"(?<=LayerNorm\.)(gamma|beta)$", lambda m: {"gamma": "weight", "beta": "bias"}[m[0]], name)
    return re.sub(r"^(vision_model|text_model)\.\1\.", r"\1.", name)


def path_inside(folder: Path, name: str) -> Path:
    """The path of a folder's file. Raises UserError where it is absent, a pickle, or leads out of the folder.

    A link may lead to the blobs of the Hub's cache, where a snapshot's files are.
    """
    path, target = folder / name, folder.resolve()
    if not path.exists():
        if pickles := sorted(file.name for kind in PICKLE_PATTERNS for file in folder.glob(kind)):
            raise UserError(
                f"{folder} has its weights in {pickles[0]}, a pickle, which can run code when it is opened. Convert it "
                "where you trust it: safetensors.torch.save_file(torch.load(FILE, weights_only=True), "
                f'"{name}") in Python.'
            )
        raise UserError(f"{folder} has no {name}.")
    roots = [target, target.parents[1] / "blobs"] if target.parent.name == "snapshots" else [target]
    if Path(name).name != name or not any(path.resolve().is_relative_to(root) for root in roots):
        raise UserError(f"{path} leads out of its folder.")
    return path


def _open_file(path: Path) -> dict[str, LazyTensor]:
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}.") from None
    return {name: LazyTensor(shape, partial(_read_tensor, path, name)) for name, shape in shapes.items()}


def _read_tensor(path: Path, name: str) -> np.ndarray:
    # Opened for each: one file held open keeps every page that was read in memory, beside the arrays.
    with safe_open(path, framework="numpy") as file:
        return file.get_tensor(name)


def read_tensors(tensors: Mapping[str, LazyTensor], shapes: Shapes, source: Path | str) -> dict[str, np.ndarray]:
    """Exactly the tensors of `shapes` in float32.

    Raises one UserError that names all that are missing, unexpected, misshapen or not finite.
    """
    faults = [f"missing {name}" for name in sorted(shapes.keys() - tensors.keys())]
    faults += [f"unexpected {name}" for name in sorted(tensors.keys() - shapes.keys())]
    faults += [
        f"{name} has shape {tensors[name].shape}, its config asks for {shapes[name]}"
        for name in sorted(tensors.keys() & shapes.keys())
        if tensors[name].shape != shapes[name]
    ]
    arrays = {} if faults else {name: np.asarray(tensors[name].read(), np.float32) for name in shapes}
    faults += [f"{name} is not finite" for name, value in arrays.items() if not np.isfinite(value).all()]
    if faults:
        listed = "; ".join(faults[:_MAX_FAULTS])
        more = f"; and {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
        raise UserError(f"{source} does not fit its config: {listed}{more}.")
    return arrays

"""Tensors in files, checked against what a config asks for before any is read: safetensors only, never pickles."""

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

PICKLES = ("*.bin", "*.pth", "*.pt", "*.ckpt")
_SHOWN = 12


@dataclass(frozen=True)
class Stored:
    """A tensor that has not been read yet."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def stored_tensors(folder: Path, name: str = "model.safetensors") -> dict[str, Stored]:
    """Every tensor of a folder under its canonical name: of one file, or of the shards its index lists.

    Raises UserError for absent, damaged or foreign files.
    """
    found: dict[str, Stored] = {}
    for path in weight_files(folder, name):
        for stored, tensor in _of_file(path).items():
            if (as_now := canonical(stored)) is None:
                continue
            if as_now in found:
                raise UserError(f"{path} holds {as_now} a second time, as {stored}.")
            found[as_now] = tensor
    return found


def weight_files(folder: Path, name: str = "model.safetensors") -> list[Path]:
    """The file of that name, or the shards that its index lists. UserError as of `inside`."""
    index = folder / f"{name}.index.json"
    if (folder / name).exists() or not index.exists():
        return [inside(folder, name)]
    places = read_json(index, "a model folder").get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise UserError(f"{index} is damaged: it has no weight_map.")
    return [inside(folder, shard) for shard in sorted(set(places.values()))]


def canonical(name: str) -> str | None:
    """Today's name of a tensor; None for buffers that are no weights.

    Files of other years say gamma and beta for a norm's weight and bias, and repeat the name of a tower.
    """
    if name.endswith(("position_ids", "attn_mask")):
        return None
    name = re.sub(r"(?<=LayerNorm\.)(gamma|beta)$", lambda m: {"gamma": "weight", "beta": "bias"}[m[0]], name)
    return re.sub(r"^(vision_model|text_model)\.\1\.", r"\1.", name)


def inside(folder: Path, name: str) -> Path:
    """A file of the folder; UserError where it is absent, a pickle's, or leads out of the folder.

    A link may lead to the blobs of the Hub's cache, where a snapshot's files are.
    """
    path, real = folder / name, folder.resolve()
    if not path.exists():
        if pickles := sorted(file.name for kind in PICKLES for file in folder.glob(kind)):
            raise UserError(
                f"{folder} has its weights in {pickles[0]}, a pickle, which can run code when it is opened. Convert it "
                "where you trust it: safetensors.torch.save_file(torch.load(FILE, weights_only=True), "
                f'"{name}") in Python.'
            )
        raise UserError(f"{folder} has no {name}.")
    homes = [real, real.parents[1] / "blobs"] if real.parent.name == "snapshots" else [real]
    if Path(name).name != name or not any(path.resolve().is_relative_to(home) for home in homes):
        raise UserError(f"{path} leads out of its folder.")
    return path


def _of_file(path: Path) -> dict[str, Stored]:
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}.") from None
    return {name: Stored(shape, partial(_tensor, path, name)) for name, shape in shapes.items()}


def _tensor(path: Path, name: str) -> np.ndarray:
    # Opened for each: one file held open keeps every page that was read in memory, beside the arrays.
    with safe_open(path, framework="numpy") as file:
        return file.get_tensor(name)


def read(stored: Mapping[str, Stored], wanted: Shapes, origin: Path | str) -> dict[str, np.ndarray]:
    """Exactly the wanted tensors in float32; one UserError names all that are missing, unexpected, misshapen or
    not finite."""
    faults = [f"missing {name}" for name in sorted(wanted.keys() - stored.keys())]
    faults += [f"unexpected {name}" for name in sorted(stored.keys() - wanted.keys())]
    faults += [
        f"{name} has shape {stored[name].shape}, its config asks for {wanted[name]}"
        for name in sorted(stored.keys() & wanted.keys())
        if stored[name].shape != wanted[name]
    ]
    tensors = {} if faults else {name: np.asarray(stored[name].read(), np.float32) for name in wanted}
    faults += [f"{name} is not finite" for name, value in tensors.items() if not np.isfinite(value).all()]
    if faults:
        shown = "; ".join(faults[:_SHOWN]) + (f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else "")
        raise UserError(f"{origin} does not fit its config: {shown}.")
    return tensors

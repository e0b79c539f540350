"""The checkpoint is the model: a Hugging Face folder read and written without a converter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from medclip.errors import UserError
from medclip.files import read_json, sha256, whole_file, write_json
from medclip.model.config import ModelConfig, config_json, parse_config
from medclip.model.init import shapes
from medclip.model.tokens import Tokens, load_tokens, save_tokens


@dataclass(frozen=True)
class Model:
    """A dual encoder and all it needs to meet raw input: what a model folder holds.

    `params` is a nested dict whose paths are the tensor names; `preprocessor` is `preprocessor_config.json`.
    """

    params: dict[str, Any]
    config: ModelConfig
    tokens: Tokens
    preprocessor: dict[str, Any]


def load(folder: str | Path) -> Model:
    """Read a model folder, or the run folder around it. UserError names every tensor that is not as it should be."""
    folder = model_folder(Path(folder))
    config = parse_config(read_json(folder / "config.json", "a model folder"))
    preprocessor = read_json(folder / "preprocessor_config.json", "a whole model folder")
    params = unflatten(_read_tensors(folder / "model.safetensors", config))
    return Model(params, config, load_tokens(folder, config.text_config), preprocessor)


def save(model: Model, folder: Path) -> None:
    """Write the folder that `transformers` opens unchanged; the weights arrive last, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config_json(model.config))
    write_json(folder / "preprocessor_config.json", model.preprocessor)
    save_tokens(model.tokens, folder)
    # ascontiguousarray would turn the 0-d logit_scale into shape (1,), which transformers refuses
    tensors = {name: np.asarray(value, order="C") for name, value in flatten(model.params).items()}
    with whole_file(folder / "model.safetensors") as partial:
        save_file(tensors, partial, metadata={"format": "pt"})


def model_folder(path: Path) -> Path:
    """`path` itself, or its `model/` where `path` is a run."""
    if (path / "model" / "config.json").is_file():
        return path / "model"
    if not (path / "config.json").is_file():
        raise UserError(f"{path} is no model folder: looked for config.json there and in {path / 'model'}.")
    return path


def model_hash(path: str | Path) -> str:
    """SHA-256 of the weights file: what an index and a report remember a model by."""
    return sha256(model_folder(Path(path)) / "model.safetensors")


def preprocessor_config(side: int) -> dict[str, Any]:
    """How a model trained from scratch sees a picture: all of it, squeezed to a square, in [-1, 1]."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": 3,
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }


def _read_tensors(path: Path, config: ModelConfig) -> dict[str, np.ndarray]:
    wanted = shapes(config)
    try:
        with safe_open(path, framework="numpy") as file:
            there = set(file.keys()) - {"vision_model.embeddings.position_ids", "text_model.embeddings.position_ids"}
            faults = [f"missing {name}" for name in sorted(wanted.keys() - there)]
            faults += [f"unexpected {name}" for name in sorted(there - wanted.keys())]
            for name in sorted(there & wanted.keys()):
                if (shape := tuple(file.get_slice(name).get_shape())) != wanted[name]:
                    faults.append(f"{name} has shape {shape}, config.json asks for {wanted[name]}")
            tensors = {} if faults else {name: np.asarray(file.get_tensor(name), np.float32) for name in wanted}
    except FileNotFoundError:
        raise UserError(f"{path.parent} has no {path.name}; weights in other formats are not read.") from None
    except SafetensorError as error:
        raise UserError(f"{path} is damaged: {error}.") from None
    faults += [f"{name} is not finite" for name, value in tensors.items() if not np.isfinite(value).all()]
    if faults:
        shown = "; ".join(faults[:12]) + (f"; and {len(faults) - 12} more" if len(faults) > 12 else "")
        raise UserError(f"{path} does not fit its config.json: {shown}.")
    return tensors


def unflatten(tensors: dict[str, Any]) -> dict[str, Any]:
    """Dotted names to a nested dict."""
    tree: dict[str, Any] = {}
    for name, value in tensors.items():
        *path, leaf = name.split(".")
        at = tree
        for part in path:
            at = at.setdefault(part, {})
        at[leaf] = value
    return tree


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict to dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat

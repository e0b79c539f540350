"""The checkpoint is the model: Hugging Face folders, from the disk or from the Hub, read and written as they are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from medclip.atomic_io import read_json, sha256, whole_file, write_json
from medclip.errors import UserError, WorkError
from medclip.model import flax2021, open_clip
from medclip.model.config import ModelConfig, parse_config, subconfig
from medclip.model.image_processor import ImageProcessor, read_image_processor
from medclip.model.shapes_init import tensor_shapes
from medclip.model.tokenizer import TextTokenizer, load_tokenizer, save_tokenizer
from medclip.model.weights import LazyTensor, open_tensors, path_inside, read_tensors, weight_files

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILES = ("config.json", open_clip.CONFIG_FILE)


@dataclass(frozen=True)
class Model:
    """A dual encoder with its tokenizer and image processor: what a model folder holds."""

    params: dict[str, Any]
    """Arrays by tensor name, as in the file."""
    config: ModelConfig
    tokenizer: TextTokenizer
    image_processor: ImageProcessor
    raw_config: dict[str, Any]
    """The config file, as it is."""


def load(name: str | Path, revision: str | None = None) -> Model:
    """A dual encoder from a model folder, a run around one, or the Hub ("owner/name").

    Reads the folders of `transformers` (CLIPModel, SiglipModel, VisionTextDualEncoderModel), of open_clip and of
    FlaxHybridCLIP (2021). Weights become float32. Raises UserError that names every tensor that is wrong or missing.
    """
    folder = model_folder(name, revision)
    if _is_open_clip(folder):
        raw = read_json(folder / open_clip.CONFIG_FILE, "a model folder")
        tensors = open_tensors(folder, open_clip.WEIGHTS_FILE)
        config, processor = open_clip.parse(raw, {name: tensor.shape for name, tensor in tensors.items()})
    else:
        raw, tensors = open_folder(folder)
        config, processor = parse_config(raw), read_image_processor(folder)
    arrays = read_tensors(tensors, tensor_shapes(config), folder)
    # one by one, so that no second copy of all of them is in memory at once
    params = {name: jnp.asarray(arrays.pop(name)) for name in list(arrays)}
    return Model(params, config, load_tokenizer(folder, config.text), processor, raw)


def save(model: Model, folder: Path) -> None:
    """Write the folder that `transformers` (or open_clip, for its own) opens; the weights arrive last and complete."""
    folder.mkdir(parents=True, exist_ok=True)
    for_open_clip = "model_cfg" in model.raw_config
    write_json(folder / (open_clip.CONFIG_FILE if for_open_clip else "config.json"), model.raw_config)
    if not for_open_clip:
        write_json(folder / "preprocessor_config.json", model.image_processor.raw_config)
    save_tokenizer(model.tokenizer, folder)
    # ascontiguousarray would turn the 0-d logit_scale into shape (1,), which transformers refuses
    tensors = {name: np.asarray(value, order="C") for name, value in jax.device_get(model.params).items()}
    with whole_file(folder / (open_clip.WEIGHTS_FILE if for_open_clip else WEIGHTS_FILE)) as partial:
        try:
            save_file(tensors, partial, metadata={"format": "pt"})
        except SafetensorError as error:  # which hides a full disk
            raise WorkError(f"{folder} could not be written ({error}); its earlier weights are untouched.") from None


def open_folder(folder: Path) -> tuple[dict[str, Any], dict[str, LazyTensor]]:
    """`config.json` as today's transformers would write it, and the tensors beside it, unread."""
    raw = read_json(folder / "config.json", "a model folder")
    if not isinstance(raw, dict):
        raise UserError(f"{folder}/config.json is not an object.")
    towers = {name: subconfig(raw, name) for name in ("vision_config", "text_config") if name in raw}
    obsolete = ("torch_dtype", "vision_config_dict", "text_config_dict")
    raw = {name: value for name, value in raw.items() if name not in obsolete} | towers | {"dtype": "float32"}
    if raw.get("model_type") == "hybrid-clip":
        weights = path_inside(folder, flax2021.WEIGHTS_FILE)
        return flax2021.dual_encoder_config(raw), flax2021.open_tensors(weights)
    return raw, open_tensors(folder)


def model_folder(name: str | Path, revision: str | None = None) -> Path:
    """The folder itself, the `model/` of a run, or a snapshot of a Hub repository (OWNER/NAME, hf-hub:OWNER/NAME)."""
    name = str(name).removeprefix("hf-hub:")
    path = Path(name)
    for folder in (path / "model", path):
        if any((folder / config).is_file() for config in CONFIG_FILES):
            return folder
    if path.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise UserError(
            f"{name} is not a model folder: looked for {' and '.join(CONFIG_FILES)} in it and in {path / 'model'}. "
            "A model of the Hub is named OWNER/NAME."
        )
    return _hub_snapshot(name, revision)


def model_hash(path: str | Path) -> str:
    """SHA-256 of the weights, or of the hashes of their files if there are several: the identity of a model."""
    folder = model_folder(path)
    file = open_clip.WEIGHTS_FILE if _is_open_clip(folder) else WEIGHTS_FILE
    if not any(folder.glob("*.safetensors*")):
        file = flax2021.WEIGHTS_FILE
    hashes = [sha256(path) for path in weight_files(folder, file)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _is_open_clip(folder: Path) -> bool:
    """Whether a folder holds open_clip's layout alone; where it holds both, transformers' is read."""
    return (folder / open_clip.CONFIG_FILE).is_file() and not any(folder.glob("model*.safetensors*"))


def _hub_snapshot(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.msgpack", "*.txt", "README.md"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{name} is neither a folder here nor a model that the Hub gives: {str(error).splitlines()[0]} "
            "A private or gated one needs HF_TOKEN; HF_HUB_OFFLINE=1 reads the cache alone."
        ) from None

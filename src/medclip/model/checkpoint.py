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
from medclip.model.config import ModelConfig, parse_config, part_of
from medclip.model.image_processor import read_preprocessor
from medclip.model.shapes_init import tensor_shapes
from medclip.model.tokenizer import TextTokenizer, load_tokenizer, save_tokenizer
from medclip.model.weights import Stored, inside, read, stored_tensors, weight_files

CONFIGS = ("config.json", open_clip.CONFIG)


@dataclass(frozen=True)
class Model:
    """A dual encoder and all it needs to meet raw input: what a model folder holds."""

    params: dict[str, Any]
    """Arrays by tensor name, as in the file."""
    config: ModelConfig
    tokenizer: TextTokenizer
    preprocessor: dict[str, Any]
    """`preprocessor_config.json`."""
    raw_config: dict[str, Any]
    """The config file, as it is."""


def load(name: str | Path, revision: str | None = None) -> Model:
    """A dual encoder from a model folder, a run around one, or the Hub ("owner/name").

    Reads the folders of `transformers` (CLIPModel, SiglipModel, VisionTextDualEncoderModel), of open_clip and of
    FlaxHybridCLIP (2021). Weights become float32. Raises UserError that names every tensor that is not as it should be.
    """
    folder = model_folder(name, revision)
    if _is_open_clips(folder):
        said = read_json(folder / open_clip.CONFIG, "a model folder")
        stored = stored_tensors(folder, open_clip.WEIGHTS)
        config, preprocessor = open_clip.parse(said, {at: tensor.shape for at, tensor in stored.items()})
    else:
        said, stored = open_folder(folder)
        config, preprocessor = parse_config(said), read_preprocessor(folder)
    arrays = read(stored, tensor_shapes(config), folder)
    # one by one, so that no second copy of all of them is in memory at once
    params = {name: jnp.asarray(arrays.pop(name)) for name in list(arrays)}
    return Model(params, config, load_tokenizer(folder, config.text), preprocessor, said)


def save(model: Model, folder: Path) -> None:
    """Write the folder that `transformers` (or open_clip, for its own) opens; the weights arrive last, whole or not."""
    folder.mkdir(parents=True, exist_ok=True)
    own = "model_cfg" in model.raw_config
    write_json(folder / (open_clip.CONFIG if own else "config.json"), model.raw_config)
    if not own:
        write_json(folder / "preprocessor_config.json", model.preprocessor)
    save_tokenizer(model.tokenizer, folder)
    # ascontiguousarray would turn the 0-d logit_scale into shape (1,), which transformers refuses
    tensors = {name: np.asarray(value, order="C") for name, value in jax.device_get(model.params).items()}
    with whole_file(folder / (open_clip.WEIGHTS if own else "model.safetensors")) as partial:
        try:
            save_file(tensors, partial, metadata={"format": "pt"})
        except SafetensorError as error:  # which hides a full disk
            raise WorkError(f"{folder} could not be written ({error}); what was there before is whole.") from None


def open_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Stored]]:
    """`config.json` as today's transformers would write it, and the tensors beside it, unread."""
    said = read_json(folder / "config.json", "a model folder")
    if not isinstance(said, dict):
        raise UserError(f"{folder}/config.json is no object.")
    parts = {name: part_of(said, name) for name in ("vision_config", "text_config") if name in said}
    old = ("torch_dtype", "vision_config_dict", "text_config_dict")
    said = {name: value for name, value in said.items() if name not in old} | parts | {"dtype": "float32"}
    if said.get("model_type") == "hybrid-clip":
        return flax2021.dual_encoder(said), flax2021.stored_tensors(inside(folder, flax2021.WEIGHTS))
    return said, stored_tensors(folder)


def _is_open_clips(folder: Path) -> bool:
    """Whether a folder holds open_clip's layout alone; where it holds both, transformers' is read."""
    return (folder / open_clip.CONFIG).is_file() and not any(folder.glob("model*.safetensors*"))


def model_folder(name: str | Path, revision: str | None = None) -> Path:
    """The folder itself, the `model/` of a run, or a snapshot of a repository on the Hub."""
    path = Path(name)
    for at in (path / "model", path):
        if any((at / config).is_file() for config in CONFIGS):
            return at
    if path.exists() or str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        raise UserError(
            f"{name} is no model folder: looked for {' and '.join(CONFIGS)} there and in {path / 'model'}. "
            "A model of the Hub is named OWNER/NAME."
        )
    return _snapshot(str(name), revision)


def _snapshot(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    kept = ["*.json", "*.safetensors", "*.msgpack", "*.txt", "README.md"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=kept, ignore_patterns=["*/*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"{name} is neither a folder here nor a model that the Hub gives: {str(error).splitlines()[0]} "
            "A private or gated one needs HF_TOKEN; HF_HUB_OFFLINE=1 reads the cache alone."
        ) from None


def model_hash(path: str | Path) -> str:
    """SHA-256 of the weights (of the hashes of their files, where there are several): what an index remembers."""
    folder = model_folder(path)
    name = open_clip.WEIGHTS if _is_open_clips(folder) else "model.safetensors"
    if not any(folder.glob("*.safetensors*")):
        name = flax2021.WEIGHTS
    hashes = [sha256(file) for file in weight_files(folder, name)]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()

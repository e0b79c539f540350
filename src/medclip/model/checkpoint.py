"""The checkpoint is the model: Hugging Face folders, from the disk or from the Hub, read and written as they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from medclip.atomic_io import (
    canonical_json,
    check_as_written,
    read_json,
    read_object,
    read_optional,
    recorded_hashes,
    sha256,
    whole_file,
    write_json,
)
from medclip.errors import UserError, WorkError
from medclip.folder_kinds import what_instead
from medclip.model.config import DUAL_ENCODERS, ModelConfig, parse_config, subconfig, tower_config, tower_side
from medclip.model.folder_files import check_inside, check_small_files
from medclip.model.hub_download import CONFIG_FILES, fetch_model, fetch_tokenizer, module_folders
from medclip.model.image_processor import NESTED_FILE, PROCESSOR_FILE, ImageProcessor, read_image_processor
from medclip.model.open_clip import open_clip_config
from medclip.model.sentence_modules import MODULES_FILE, model_or_modules, read_modules, write_modules
from medclip.model.shapes_init import tensor_shapes
from medclip.model.tokenizer.open_clip_tokenizer import load_open_clip_tokenizer
from medclip.model.tokenizer.text_tokenizer import TextTokenizer, load_tokenizer, save_tokenizer
from medclip.model.tokenizer.vocab_files import TOKENIZER_FILES, has_tokenizer
from medclip.model.unsupported import (
    describe_inner_models,
    describe_other_files,
    refuse_adapter,
    refuse_timm,
    warn_unread,
)
from medclip.model.weights.lazy_tensor import LazyTensor
from medclip.model.weights.weight_files import (
    OPEN_CLIP_FILES,
    OPEN_CLIP_WEIGHTS_FILE,
    TRANSFORMERS_FILES,
    WEIGHTS_FILE,
    choose_weights,
    find_weights,
    open_tensors,
    read_tensors,
)
from medclip.recorded_files import EXPORT_FILE, read_checksums

IDENTITY_FILES = (
    *CONFIG_FILES,
    *(PROCESSOR_FILE, NESTED_FILE),
    *(*TOKENIZER_FILES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
"""What decides, beside the weights, how a model embeds an image or a text; those that a folder has."""


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


@dataclass(frozen=True)
class Towers:
    """A dual encoder without a tokenizer, for callers that have token ids; fields as those of a Model."""

    params: dict[str, Any]
    config: ModelConfig
    image_processor: ImageProcessor
    raw_config: dict[str, Any]


def load(name: str | Path, tokenizer: str | Path | None = None) -> Model:
    """A dual encoder from a model folder, a run around one, or the Hub ("owner/name").

    `tokenizer` is another folder or Hub model whose tokenizer is used in place of its own. Reads the folders of
    `transformers` (CLIPModel, SiglipModel, VisionTextDualEncoderModel), of open_clip and of FlaxHybridCLIP (2021).
    Weights become float32. Raises UserError that names every tensor that is wrong or missing.
    """
    folder = model_folder(name, dual=True)
    towers = load_towers(folder)
    text, raw = towers.config.text, towers.raw_config
    source = tokenizer_folder(tokenizer) if tokenizer else folder
    tokens = load_open_clip_tokenizer(source, text, raw) if "model_cfg" in raw else load_tokenizer(source, text)
    return Model(towers.params, towers.config, tokens, towers.image_processor, raw)


def load_towers(folder: Path) -> Towers:
    """A dual encoder as `load` gives it, of a `model_folder` that may have no tokenizer."""
    if _is_open_clip(folder):
        raw = open_clip_config.check(read_json(folder / open_clip_config.CONFIG_FILE, "a model folder"))
        tensors = open_tensors(folder, weight_names(folder))
        config, processor = open_clip_config.parse(
            raw, {name: tensor.shape for name, tensor in tensors.items()}, folder
        )
    else:
        raw, tensors = open_folder(folder)
        config = parse_config(raw)
        processor = read_image_processor(folder, config.vision)
        warn_unread(raw, folder)
    arrays = read_tensors(tensors, tensor_shapes(config), folder)
    # one by one, so that no second copy of all of them is in memory at once
    params = {name: jax.device_put(arrays.pop(name)) for name in list(arrays)}
    return Towers(params, config, processor, raw)


def save(model: Model | Towers, folder: Path) -> None:
    """Write the folder that `transformers` (or open_clip, for its own) opens; the weights arrive last and complete."""
    folder.mkdir(parents=True, exist_ok=True)
    for_open_clip = "model_cfg" in model.raw_config
    write_json(folder / (open_clip_config.CONFIG_FILE if for_open_clip else "config.json"), model.raw_config)
    if not for_open_clip:
        write_json(folder / PROCESSOR_FILE, model.image_processor.raw_config)
    if not for_open_clip and model.config.text.opens_in_transformers:
        write_modules(folder, pads_to_length=model.config.text.family.attends == "all")
    if isinstance(model, Model):
        save_tokenizer(model.tokenizer, folder)
    # ascontiguousarray would turn the 0-d logit_scale into shape (1,), which transformers refuses
    tensors = {name: np.asarray(value, order="C") for name, value in jax.device_get(model.params).items()}
    write_tensors(tensors, folder / (OPEN_CLIP_WEIGHTS_FILE if for_open_clip else WEIGHTS_FILE))


def write_tensors(tensors: dict[str, np.ndarray], path: Path) -> None:
    """Write a safetensors file, atomically. WorkError where it cannot be written: an earlier one is untouched."""
    temporary = {"prefix": f".{path.name}.", "suffix": f".{os.getpid()}.partial", "dir": path.parent}
    with whole_file(path) as partial, TemporaryDirectory(**temporary) as folder:
        inside = Path(folder) / path.name  # the library has temporary files of its own beside what it writes
        try:
            save_file(tensors, inside, metadata={"format": "pt"})
        except SafetensorError as error:  # which hides a full disk
            raise WorkError(f"{path} could not be written ({error}); what was there is untouched.") from None
        inside.replace(partial)


def open_folder(folder: Path) -> tuple[dict[str, Any], dict[str, LazyTensor]]:
    """`config.json` as today's transformers would write it, and the tensors beside it, unread."""
    return _read_config(folder), open_tensors(folder)


def inspect_folder(folder: Path, files: Collection[str], dual: bool = False) -> tuple[str, ...]:
    """The names that the weights of a folder may have, best first, after a look at all that is beside them.

    Raises UserError for a model that would not open: its towers, its image processor, its tokenizer if it has one; with
    `dual`, for a single tower. `files` are the names of all files that the folder will hold.
    """
    if not {*CONFIG_FILES, MODULES_FILE} & set(files):
        others = describe_other_files(files)
        raise UserError(f"{folder} is not a model folder: it has no {', '.join(CONFIG_FILES)}.{others}")
    names = weight_names(folder, files)
    if names[0] == OPEN_CLIP_WEIGHTS_FILE:
        open_clip_config.check(read_json(folder / open_clip_config.CONFIG_FILE, "a model folder"))
        return names
    if MODULES_FILE in files and "config.json" not in files:
        folder = read_modules(folder).folder
        files = [path.name for path in folder.iterdir()]
    raw = _read_config(folder)
    if dual or raw.get("model_type") in DUAL_ENCODERS:
        config = parse_config(raw)
        read_image_processor(folder, config.vision)
        if has_tokenizer(folder):
            load_tokenizer(folder, config.text)
    else:
        tower_config(raw, side := tower_side(raw))
        if side == "text" and MODULES_FILE in files:
            read_modules(folder)
    return names


def _read_config(folder: Path) -> dict[str, Any]:
    refuse_adapter(folder)
    raw = read_object(folder / "config.json", "a model folder")
    refuse_timm(raw, folder)
    if quantization := raw.get("quantization_config"):
        method = quantization.get("quant_method", "") if isinstance(quantization, dict) else ""
        raise UserError(
            f"{folder} holds quantized weights ({method or 'quantization_config'}), which medclip does not compute "
            "with; give the model that they were made from."
        )
    towers = {name: subconfig(raw, name) for name in ("vision_config", "text_config") if name in raw}
    obsolete = ("torch_dtype", "vision_config_dict", "text_config_dict")
    raw = {name: value for name, value in raw.items() if name not in obsolete} | towers | {"dtype": "float32"}
    return _today_config(raw)


def _today_config(raw: dict[str, Any]) -> dict[str, Any]:
    """The config of a FlaxHybridCLIP (2021) as that of today's VisionTextDualEncoderModel; others as they are."""
    if raw.get("model_type") != "hybrid-clip":
        return raw
    dropped = ("transformers_version", "architectures", "seed", "initializer_factor")
    fields = {name: value for name, value in raw.items() if name not in dropped}
    return {**fields, "architectures": ["VisionTextDualEncoderModel"], "model_type": "vision-text-dual-encoder"}


def model_folder(name: str | Path, revision: str | None = None, dual: bool = False) -> Path:
    """The folder itself, the `model/` of a run, or a snapshot of a Hub repository (OWNER/NAME, hf-hub:OWNER/NAME).

    With `dual`, a repository that holds a single tower is refused before its weights are fetched.
    """
    name = str(name).removeprefix("hf-hub:")
    path = Path(name)
    for folder in (path / "model", path):
        if any((folder / file).is_file() for file in (*CONFIG_FILES, MODULES_FILE)):
            return _inner_folder(folder)
    if is_local(name):
        if not path.exists():
            raise UserError(f"{name} does not exist. A model is a folder, a run, or OWNER/NAME of the Hub.")
        if path.is_file():
            raise UserError(
                f"{name} is a file, and a model is a folder. Give the folder of its config.json; put open_clip's own "
                f"checkpoint into one, beside its {open_clip_config.CONFIG_FILE}."
            )
        others = what_instead(path, "train_config.json") or describe_inner_models(path)
        others = others or describe_other_files(file.name for file in path.glob("*"))
        raise UserError(
            f"{name} is not a model folder: looked for {', '.join(CONFIG_FILES)} in it and in {path / 'model'}."
            f"{others or ' A model of the Hub is named OWNER/NAME.'}"
        )
    return _inner_folder(fetch_model(name, revision, partial(inspect_folder, dual=dual)))


def _inner_folder(folder: Path) -> Path:
    """The folder, or the one inside that holds the model of an old sentence-transformers folder; its files checked."""
    check_small_files(folder)
    for module in filter(Path.is_dir, (folder / name for name in module_folders(folder))):
        check_inside(folder, module)
        check_small_files(module)
    return folder if any((folder / config).is_file() for config in CONFIG_FILES) else model_or_modules(folder)


def is_local(name: str) -> bool:
    """Whether a name is a path here, rather than the OWNER/NAME of the Hub."""
    return Path(name).exists() or name.count("/") != 1 or name.startswith((".", "/", "~"))


def tokenizer_folder(name: str | Path) -> Path:
    """The folder of a tokenizer: a model's, a run's, one with a tokenizer alone, or a snapshot of a Hub repository."""
    name = str(name).removeprefix("hf-hub:")
    for folder in (Path(name) / "model", Path(name)):
        if has_tokenizer(folder):
            check_small_files(folder)
            return folder
    return Path(name) if is_local(name) else fetch_tokenizer(name)


def model_hash(path: str | Path) -> str:
    """The identity of a model: SHA-256 over its weights, config, image processor and tokenizer files.

    Files count by their content, not their layout: JSON by its values, where 1.0 is 1, text by its lines. UserError for
    a file that cannot be read, or is not as the run or the export wrote it that made the folder.
    """
    folder = model_folder(path)
    digest, (recorded, whole) = hashlib.sha256(), _recorded_hashes(folder)
    for weights in find_weights(folder, weight_names(folder)).paths:
        digest.update(f"weights {_checked_hash(weights, recorded, whole)}\n".encode())
    for name in IDENTITY_FILES:
        if (file := folder / name).is_file() or name in recorded:
            _checked_hash(file, recorded, whole)
            digest.update(f"{name} {hashlib.sha256(_meaning(file)).hexdigest()}\n".encode())
    return digest.hexdigest()


def check_model(path: str | Path) -> None:
    """UserError for a model that is not as the run or the export wrote it that made its folder; see `model_hash`."""
    folder = model_folder(path)
    if _recorded_hashes(folder)[0]:  # others' folders say nothing of their files, which need not be read twice
        model_hash(folder)


def _meaning(file: Path) -> bytes:
    """The content of a file without what another writer of the same would do in another way."""
    if file.suffix == ".json":
        return canonical_json(_whole_numbers(read_json(file, "a model folder")))
    content = file.read_bytes()
    return content.replace(b"\r\n", b"\n").removesuffix(b"\n") if file.suffix == ".txt" else content


def _whole_numbers(value: Any) -> Any:
    """JSON whose numbers are integers where they are whole."""
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return list(map(_whole_numbers, value))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _recorded_hashes(folder: Path) -> tuple[dict[str, str], Path]:
    """What the run or the export that wrote a folder recorded of its files, by name, and the folder to verify."""
    if folder.name == "model" and (recorded := read_checksums(folder.parent)):
        return {name.removeprefix("model/"): digest for name, digest in recorded.items()}, folder.parent
    check_as_written(folder / EXPORT_FILE, content := read_optional(folder / EXPORT_FILE, "an export"))
    return recorded_hashes(content), folder


def _checked_hash(file: Path, recorded: Mapping[str, str], whole: Path) -> str:
    digest = sha256(file) if file.exists() else None
    if digest is None or recorded.get(file.name, digest) != digest:
        problem = "is absent, though it was written" if digest is None else "is damaged: it is not as it was written"
        raise UserError(f"{file} {problem}. medclip verify {whole} names all that is damaged.")
    return digest


def weight_names(folder: Path, files: Collection[str] | None = None) -> tuple[str, ...]:
    """The names that the weights of a folder may have, best first; `files` are those that it will hold."""
    files = {path.name for path in folder.iterdir()} if files is None else files
    return (*OPEN_CLIP_FILES, *TRANSFORMERS_FILES) if _is_open_clip(folder, files) else TRANSFORMERS_FILES


def _is_open_clip(folder: Path, files: Collection[str] | None = None) -> bool:
    """Whether open_clip's layout is read: of a folder with both, where it alone has safetensors.

    The config.json that open_clip's folders may have beside their own is timm's, which has no model_type, or that of
    the text tower (`hf_text`).
    """
    files = {path.name for path in folder.iterdir()} if files is None else files
    if open_clip_config.CONFIG_FILE not in files:
        return False
    raw = read_json(folder / "config.json", "a model folder") if "config.json" in files else {}
    if not isinstance(raw, dict) or raw.get("model_type") not in DUAL_ENCODERS:
        return True
    ours, theirs = choose_weights(files), choose_weights(files, OPEN_CLIP_FILES)
    return theirs is not None and (ours is None or (ours != WEIGHTS_FILE and theirs in OPEN_CLIP_FILES[:2]))

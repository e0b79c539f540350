"""A model's folder as safetensors, whatever form its weights have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medclip.atomic_io import read_json, whole_file, write_with_checksum
from medclip.errors import UserError
from medclip.folder_locks import claim, folder_hashes
from medclip.model.checkpoint import load, load_towers, model_folder, model_hash, save, weight_names, write_tensors
from medclip.model.config import DUAL_ENCODERS
from medclip.model.folder_files import SMALL_FILES
from medclip.model.hub_download import module_folders
from medclip.model.tokenizer.vocab_files import has_tokenizer
from medclip.model.weights.weight_files import (
    OPEN_CLIP_WEIGHTS_FILE,
    TRANSFORMERS_FILES,
    WEIGHTS_FILE,
    choose_weights,
    open_tensors,
)
from medclip.recorded_files import EXPORT_FILE


def export_safetensors(name: str | Path, out: Path, tokenizer: str | Path | None = None) -> None:
    """Write a model (folder, run or OWNER/NAME) as the folder that it would be with safetensors.

    A dual encoder is written as `save` does, with its card, and with the `tokenizer` of another folder or Hub model if
    given. Of a single tower every tensor has its name, type and shape, and every other file is the same. Raises
    UserError where the model does not open, or `out` is finished.
    """
    folder = model_folder(name)
    names = weight_names(folder)
    for_open_clip = names != TRANSFORMERS_FILES
    is_dual = for_open_clip or _model_type(folder) in DUAL_ENCODERS
    if tokenizer and not is_dual:
        raise UserError(f"--tokenizer {tokenizer} goes with a dual encoder; {name} is a single tower.")
    with claim(out, OPEN_CLIP_WEIGHTS_FILE if for_open_clip else WEIGHTS_FILE, "*"):
        if is_dual:
            with_tokenizer = tokenizer or has_tokenizer(folder)
            model = load(folder, tokenizer=tokenizer) if with_tokenizer else load_towers(folder)
            model_hash(folder)  # or it is damaged
            save(model, out)
            if (folder / "README.md").is_file():
                _copy_file(folder / "README.md", out)
        else:
            _copy_tower(folder, out)
            for module in module_folders(folder):
                if (folder / module).is_dir():
                    _copy_tower(folder / module, out / module)
        record_export(out, form="safetensors")


def record_export(out: Path, **facts: Any) -> None:
    """Write `export.json` into a model's new folder: facts, and the hash of each other file; see `medclip verify`."""
    (out / EXPORT_FILE).unlink(missing_ok=True)  # of a run that was killed after it
    write_with_checksum(out / EXPORT_FILE, facts | {"sha256": folder_hashes(out)})


def _model_type(folder: Path) -> str | None:
    config = folder / "config.json"
    raw = read_json(config, "a model folder") if config.is_file() else {}
    return raw.get("model_type") if isinstance(raw, dict) else None


def _copy_tower(folder: Path, out: Path) -> None:
    """A folder's small files, and its weights if it has any (the pooling of sentence-transformers has none)."""
    out.mkdir(exist_ok=True)
    for path in folder.iterdir():
        # the index of shards would be of other files
        if SMALL_FILES.fullmatch(path.name) and not path.name.endswith(".index.json"):
            _copy_file(path, out)
    if _model_type(folder) or choose_weights([path.name for path in folder.iterdir()]):
        # the writer takes the bytes of a transposed view as they lie
        tensors = {name: np.asarray(tensor.read(), order="C") for name, tensor in open_tensors(folder).items()}
        write_tensors(tensors, out / WEIGHTS_FILE)


def _copy_file(file: Path, out: Path) -> None:
    with whole_file(out / file.name) as partial:
        partial.write_bytes(file.read_bytes())

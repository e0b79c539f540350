"""sentence-transformers' layout: what its folders add to a text tower, and what makes our folders open there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from medclip.atomic_io import file_name, read_json, read_object, read_optional, write_json
from medclip.errors import UserError
from medclip.model.config import DUAL_ENCODERS
from medclip.model.tokenizer.text_tokenizer import TextTokenizer

LOG = logging.getLogger("medclip.model")
MODULES_FILE = "modules.json"
_FOLDER = "a model folder"
# A projection without bias, then unit length, follow: so a common factor of the features changes nothing.
_POOLING = {"mean": "mean", "mean_sqrt_len_tokens": "mean", "cls": "cls"}
_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_NO_EFFECT = ("Normalize", "Dropout")


class SentenceTower(NamedTuple):
    """What a `modules.json` makes of the tower in one of its folders."""

    folder: Path
    pooling: str
    """"mean" or "cls"; "": as the tower itself pools."""
    max_length: int | None
    lowercase: bool


def read_modules(folder: Path) -> SentenceTower:
    """The tower of a sentence-transformers folder and how it is used.

    Raises UserError for a module or a pooling that is not computed, or for a damaged `modules.json`.
    """
    modules = read_json(folder / MODULES_FILE, "a model folder")
    if not isinstance(modules, list) or not modules or not all(_is_module(module) for module in modules):
        raise UserError(f"{folder / MODULES_FILE} is damaged: it is not a list of modules with a type and a path.")
    paths = [module["path"] and file_name(module["path"], f"{folder / MODULES_FILE}: path") for module in modules]
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    pooling = ""
    for number, (kind, path) in enumerate(zip(kinds, paths, strict=True)):
        if kind == "Pooling" and not pooling:
            pooling = _pooling(read_object(folder / path / "config.json", _FOLDER), folder)
        elif kind not in _NO_EFFECT and not (number == 0 and kind in ("Transformer", "CLIPModel")):
            raise UserError(
                f"{folder}: its module {kind} is not supported; take a sentence-transformers model that is a "
                "Transformer with Pooling and Normalize alone."
            )
    tower = folder / paths[0]
    config = next((read_object(path, _FOLDER) for path in sorted(tower.glob("sentence_*_config.json"))), {})
    max_length = config.get("max_seq_length")
    if max_length is not None and (type(max_length) is not int or max_length < 3):
        raise UserError(f"{tower}: max_seq_length is {max_length!r}, which is no number of tokens.")
    _warn_of_settings(folder)
    return SentenceTower(tower, pooling, max_length, bool(config.get("do_lower_case")))


def model_or_modules(folder: Path) -> Path:
    """The folder inside that holds a dual encoder, if that is a folder's only module; else the folder itself."""
    tower, config = read_modules(folder), {}
    if not tower.pooling:
        config = read_optional(tower.folder / "config.json", _FOLDER)
    return tower.folder if config.get("model_type") in DUAL_ENCODERS else folder


def check_case(tower: SentenceTower, tokenizer: TextTokenizer) -> None:
    """Raise UserError where captions are to be lowercased and the tokenizer would not do it."""
    if tower.lowercase and not (tokenizer.encode(["A"])[0] == tokenizer.encode(["a"])[0]).all():
        raise UserError(f"{tower.folder}: do_lower_case is not supported; set it in its tokenizer_config.json.")


def write_modules(folder: Path, pads_to_length: bool) -> None:
    """Let sentence-transformers 6 open a folder of transformers' that has both towers, and give unit vectors.

    `pads_to_length`: the text tower attends to padding, so captions are padded as in training (SigLIP).
    """
    kinds = ("transformer.Transformer", "normalize.Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.base.modules.{kind}"}
        for i, (path, kind) in enumerate(zip(("", "1_Normalize"), kinds, strict=True))
    ]
    method = {"method_output_name": "pooler_output"}
    config = {
        "transformer_task": "feature-extraction",
        "modality_config": {kind: {"method": f"get_{kind}_features", **method} for kind in ("text", "image")},
        "module_output_name": "sentence_embedding",
        **({"processing_kwargs": {"text": {"padding": "max_length"}}} if pads_to_length else {}),
    }
    write_json(folder / "sentence_bert_config.json", config)
    write_json(folder / MODULES_FILE, modules)


def _is_module(module: Any) -> bool:
    return isinstance(module, Mapping) and all(isinstance(module.get(field), str) for field in ("type", "path"))


def _pooling(config: Mapping[str, Any], folder: Path) -> str:
    modes = config.get("pooling_mode") or [mode for key, mode in _LEGACY_POOLING.items() if config.get(key)] or ["mean"]
    modes = modes if isinstance(modes, list) else [modes]
    if len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in _POOLING:
        raise UserError(
            f"{folder}: its pooling {' and '.join(map(str, modes))} is not supported; take a sentence-transformers "
            f"model with one of {', '.join(_POOLING)}."
        )
    return _POOLING[modes[0]]


def _warn_of_settings(folder: Path) -> None:
    """Name a prompt that sentence-transformers would put before every caption, and features that it would leave out."""
    config = read_optional(folder / "config_sentence_transformers.json", _FOLDER)
    prompts, name = config.get("prompts"), config.get("default_prompt_name")
    if isinstance(prompts, Mapping) and isinstance(name, str) and prompts.get(name):
        LOG.warning("%s: its default prompt %r is not put before captions.", folder, prompts[name])
    if (width := config.get("truncate_dim")) is not None:
        LOG.warning("%s: all features are read, not the first %s of its truncate_dim.", folder, width)

"""transformers' CLIP folder as open_clip's: the same tensors under its names, the same numbers in its config."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medclip.errors import UserError
from medclip.folder_locks import claim
from medclip.model.checkpoint import Model, load, model_hash, save
from medclip.model.config import TextConfig, VisionConfig
from medclip.model.convert import record_export
from medclip.model.families import TEXT, VISION, TextFamily, VisionFamily
from medclip.model.image_processor import Exact, ImageProcessor, ShortestEdge
from medclip.model.open_clip import open_clip_config
from medclip.model.shapes_init import in_tower

LOG = logging.getLogger("medclip.model")
_GELUS = {"quick_gelu": None, "gelu": "none", "gelu_pytorch_tanh": "tanh", "gelu_new": "tanh"}
_PARTS = ("class_token", "patch", "position", "token", "pre_norm", "post_norm", "final_norm")


def export_open_clip(name: str | Path, out: Path) -> None:
    """Write a CLIPModel's folder in open_clip's layout to the new folder `out`; one of open_clip's own as it is.

    Raises UserError for a model of which open_clip has no equal.
    """
    model = load(name)
    model_hash(name)  # or it is damaged
    if "model_cfg" not in model.raw_config:
        model = to_open_clip(model, Path(name).name if Path(name).exists() else str(name))
    with claim(out, open_clip_config.CONFIG_FILE):
        save(model, out)
        record_export(out, form="open_clip")


def to_open_clip(model: Model, tokenizer_name: str) -> Model:
    """A CLIPModel in open_clip's layout. `tokenizer_name` is the Hub id under which open_clip looks for its tokenizer;
    in a local folder it takes the tokenizer beside the weights."""
    kind = model.raw_config.get("model_type")
    if kind == "siglip":
        raise UserError(
            "this SigLIP cannot be written in open_clip's layout: timm's towers compute the exact GELU at most of its "
            "sizes, this model its tanh form; transformers opens the folder as it is."
        )
    if kind != "clip":
        raise UserError(
            f"a {kind} cannot be written in open_clip's layout, whose towers of transformers are text towers by a name "
            "of the Hub: only a CLIPModel can; transformers opens the folder as it is."
        )
    config, length = model.config, model.tokenizer.context_length
    params: dict[str, Any] = {"logit_scale": model.params["logit_scale"]}
    params |= dict(_rename(model.params, config.vision, VISION["open_clip_vit"], "visual."))
    params |= dict(_rename(model.params, config.text, TEXT["open_clip_text"], ""))
    # open_clip pads each caption to as many tokens as there are positions
    params["positional_embedding"] = params["positional_embedding"][:length]
    for ours, theirs in ((config.vision.projection, "visual.proj"), (config.text.projection, "text_projection")):
        params[theirs] = np.asarray(model.params[ours[0]]).T
    raw = {
        "model_cfg": {
            "embed_dim": config.projection_dim,
            "quick_gelu": _is_quick_gelu(config.vision, config.text),
            "vision_cfg": {**_vision_cfg(config.vision), **_shared_cfg(config.vision)},
            "text_cfg": {
                **_text_cfg(config.text),
                **_shared_cfg(config.text),
                "context_length": length,
                "hf_tokenizer_name": tokenizer_name,
            },
        },
        "preprocess_cfg": _preprocess_cfg(model.image_processor),
    }
    shapes = {name: np.shape(value) for name, value in params.items()}
    config, processor = open_clip_config.parse(open_clip_config.check(raw), shapes, Path())
    return Model(params, config, model.tokenizer, processor, raw)


def _rename(
    params: dict[str, Any], tower: VisionConfig | TextConfig, family: VisionFamily | TextFamily, prefix: str
) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of a tower under the names of another family, query, key and value in one."""
    ours, theirs, source = tower.family.block, family.block, tower.family
    parts = {getattr(source, part): getattr(family, part) for part in _PARTS if getattr(source, part, "")}
    parts |= {getattr(ours, part): getattr(theirs, part) for part in ("out", "norm1", "norm2", "up", "down")}
    layer = re.compile(re.escape(f"{tower.prefix}{ours.stack}.") + r"(\d+)\.(.*)\.(weight|bias)")
    for name, value in params.items():
        if not in_tower(name, tower):
            continue
        if match := layer.fullmatch(name):
            number, part, kind = match.groups()
            stem = f"{prefix}{theirs.stack}.{number}."
            if part == ours.qkv[0]:
                stacked = [params[f"{tower.prefix}{ours.stack}.{number}.{part}.{kind}"] for part in ours.qkv]
                yield f"{stem}{theirs.qkv[0]}_{kind}", np.concatenate([np.asarray(part) for part in stacked])
            elif part not in ours.qkv:
                yield f"{stem}{parts[part]}.{kind}", value
        else:
            bare = name.removeprefix(tower.prefix)
            stem, _, kind = bare.rpartition(".")
            yield prefix + (parts[bare] if bare in parts else f"{parts[stem]}.{kind}"), value


def _is_quick_gelu(vision: VisionConfig, text: TextConfig) -> bool:
    activations = {vision.hidden_act, text.hidden_act}
    if not activations <= _GELUS.keys() or ("quick_gelu" in activations and len(activations) > 1):
        raise UserError(f"open_clip has no model with these activations: {', '.join(sorted(activations))}.")
    return "quick_gelu" in activations


def _shared_cfg(tower: VisionConfig | TextConfig) -> dict[str, Any]:
    width, mlp_width = tower.hidden_size, tower.intermediate_size
    ratio = mlp_width / width
    cfg: dict[str, Any] = {
        "width": width,
        "layers": tower.num_hidden_layers,
        # open_clip rounds the product down
        "mlp_ratio": ratio if int(width * ratio) == mlp_width else (mlp_width + 0.5) / width,
    }
    if _GELUS[tower.hidden_act] == "tanh":
        cfg["act_kwargs"] = {"approximate": "tanh"}
    if tower.layer_norm_eps != 1e-5:
        cfg["norm_kwargs"] = {"eps": tower.layer_norm_eps}
    return cfg


def _vision_cfg(tower: VisionConfig) -> dict[str, Any]:
    head_width = tower.hidden_size // tower.num_attention_heads
    return {"image_size": tower.image_size, "patch_size": tower.patch_size, "head_width": head_width}


def _text_cfg(tower: TextConfig) -> dict[str, Any]:
    pool = {"pool_type": "argmax"}
    if tower.family.pool == "end":
        pool = {"pool_type": "eos", "eos_id": tower.eos_token_id}
    return {"vocab_size": tower.vocab_size, "heads": tower.num_attention_heads, **pool}


def _preprocess_cfg(processor: ImageProcessor) -> dict[str, Any]:
    interpolation = {2: "bilinear", 3: "bicubic"}.get(processor.resample)
    match processor.resize, processor.crop:
        case Exact(), None:
            mode = "squash"
        case ShortestEdge(edge, None), side if edge == side:
            mode = "shortest"
            LOG.warning("open_clip rounds the corner of the center crop its own way: by up to a pixel elsewhere.")
        case _:
            mode = ""
    if not mode or not interpolation:
        raise UserError(
            f"open_clip prepares no images as this model's processor does: {processor.resize}, resample "
            f"{processor.resample}, crop {processor.crop}."
        )
    return {"mean": [*processor.mean], "std": [*processor.std], "interpolation": interpolation, "resize_mode": mode}

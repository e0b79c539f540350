"""open_clip's layout on the Hub: its config as ours. Sizes that it leaves to other libraries are read off the tensors.

Supported: CLIP with open_clip's own ViT, and towers of timm (ViT) and Hugging Face (BERT, RoBERTa), as BiomedCLIP's.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from medclip.errors import UserError
from medclip.model.config import ModelConfig, TextConfig, VisionConfig, parse_text, parse_vision
from medclip.model.image_processor import Exact, ImageProcessor, LongestEdge, ShortestEdge, parse_image_processor
from medclip.model.shapes_init import Shapes

CONFIG_FILE = "open_clip_config.json"
_RESAMPLING = {"bilinear": 2, "bicubic": 3, "random": 3}  # "random" is for training alone
_POOLS = {
    "cls_last_hidden_state_pooler": {"pool": "first", "head": ""},
    "mean_pooler": {"pool": "mean", "head": ""},
    "cls_pooler": {},
}


def parse(raw: Mapping[str, Any], shapes: Shapes) -> tuple[ModelConfig, ImageProcessor]:
    """The model of an `open_clip_config.json` and its image processor; `shapes` are those of its tensors.

    Raises UserError for a tower or an option that is not supported.
    """
    model = raw.get("model_cfg")
    if not isinstance(model, Mapping) or not all(
        isinstance(model.get(f"{t}_cfg"), Mapping) for t in ("vision", "text")
    ):
        raise UserError(f"{CONFIG_FILE} is damaged: model_cfg has no vision_cfg and text_cfg.")
    try:
        vision, text = _vision(model, model["vision_cfg"], shapes), _text(model, model["text_cfg"], shapes)
        config = ModelConfig(vision, text, model["embed_dim"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{CONFIG_FILE} asks for a model that its tensors are not: {error!r}.") from None
    return config, _image_processor(raw.get("preprocess_cfg") or {}, vision.image_size)


def _vision(model: Mapping[str, Any], raw: Mapping[str, Any], shapes: Shapes) -> VisionConfig:
    if "timm_model_name" in raw:
        name = raw["timm_model_name"]
        if not name.startswith("vit_") or raw.get("timm_proj", "linear") != "linear" or raw.get("timm_pool"):
            raise UserError(f"{CONFIG_FILE}: the vision tower {name} with this pool and projection is not supported.")
        width, _, patch, _ = shapes["visual.trunk.patch_embed.proj.weight"]
        sizes = {
            "hidden_size": width,
            "intermediate_size": shapes["visual.trunk.blocks.0.mlp.fc1.weight"][0],
            "num_hidden_layers": _depth(shapes, r"visual\.trunk\.blocks\.(\d+)\."),
            "num_attention_heads": width // 64,  # all of timm's plain ViTs
            "patch_size": patch,
            "image_size": raw.get("image_size", 224),
        }
        tower = parse_vision({"model_type": "timm_vit", **sizes})
        return dataclasses.replace(tower, prefix="visual.trunk.", projection=("visual.head.proj.weight",))
    if not isinstance(raw.get("layers"), int):
        raise UserError(f"{CONFIG_FILE}: a ResNet as vision tower is not supported.")
    width = raw["width"]
    sizes = {
        "hidden_size": width,
        "intermediate_size": int(width * raw.get("mlp_ratio", 4.0)),
        "num_hidden_layers": raw["layers"],
        "num_attention_heads": width // raw.get("head_width", 64),
        "patch_size": raw["patch_size"],
        "image_size": raw.get("image_size", 224),
        "hidden_act": "quick_gelu" if model.get("quick_gelu") else "gelu",
    }
    tower = parse_vision({"model_type": "open_clip_vit", **sizes})
    return dataclasses.replace(tower, prefix="visual.", projection=("visual.proj",))


def _text(model: Mapping[str, Any], raw: Mapping[str, Any], shapes: Shapes) -> TextConfig:
    if "hf_model_name" in raw:
        return _hf_text(raw, shapes)
    prefix = "text." if "text.token_embedding.weight" in shapes else ""
    sizes = {
        "hidden_size": raw["width"],
        "intermediate_size": int(raw["width"] * raw.get("mlp_ratio", 4.0)),
        "num_hidden_layers": raw["layers"],
        "num_attention_heads": raw["heads"],
        "vocab_size": raw.get("vocab_size", 49408),
        "max_position_embeddings": raw.get("context_length", 77),
        "hidden_act": "quick_gelu" if model.get("quick_gelu") else "gelu",
    }
    tower = parse_text({"model_type": "open_clip_text", **sizes})
    return dataclasses.replace(tower, prefix=prefix, projection=(f"{prefix}text_projection",))


def _hf_text(raw: Mapping[str, Any], shapes: Shapes) -> TextConfig:
    prefix = "text.transformer."
    pooler = raw.get("hf_pooler_type") or "mean_pooler"
    projection = {"linear": ("text.proj.weight",), "mlp": ("text.proj.0.weight", "text.proj.2.weight")}
    if pooler not in _POOLS or raw.get("hf_proj_type", "mlp") not in projection:
        raise UserError(f"{CONFIG_FILE}: text pooler {pooler} with this projection is not supported.")
    vocabulary, width = shapes[f"{prefix}embeddings.word_embeddings.weight"]
    sizes = {
        "hidden_size": width,
        "intermediate_size": shapes[f"{prefix}encoder.layer.0.intermediate.dense.weight"][0],
        "num_hidden_layers": _depth(shapes, r"text\.transformer\.encoder\.layer\.(\d+)\."),
        "num_attention_heads": width // 64,  # BERT's and RoBERTa's base and large
        "vocab_size": vocabulary,
        "max_position_embeddings": shapes[f"{prefix}embeddings.position_embeddings.weight"][0],
        "type_vocab_size": shapes[f"{prefix}embeddings.token_type_embeddings.weight"][0],
    }
    roberta = "roberta" in raw["hf_model_name"].lower()
    tower = parse_text({"model_type": "roberta" if roberta else "bert", **sizes})
    kind = raw.get("hf_proj_type", "mlp")
    family = dataclasses.replace(tower.family, **_POOLS[pooler])
    return dataclasses.replace(tower, prefix=prefix, projection=projection[kind], family=family)


def _depth(shapes: Shapes, layer: str) -> int:
    return 1 + max(int(match[1]) for name in shapes if (match := re.match(layer, name)))


def _image_processor(raw: Mapping[str, Any], side: int) -> ImageProcessor:
    raw = {name: value for name, value in raw.items() if value is not None}
    mode, interpolation = raw.get("resize_mode", "shortest"), raw.get("interpolation", "bicubic")
    fill = raw.get("fill_color", 0)
    resizes = {"shortest": ShortestEdge(side), "longest": LongestEdge(side), "squash": Exact(side, side)}
    if mode not in resizes or interpolation not in _RESAMPLING:
        raise UserError(f"{CONFIG_FILE}: resize_mode {mode!r} with interpolation {interpolation!r} is not supported.")
    if raw.get("mode", "RGB") != "RGB":
        raise UserError(f"{CONFIG_FILE}: mode is {raw['mode']!r}; images are RGB.")
    if type(fill) is not int or not 0 <= fill <= 255:
        raise UserError(f"{CONFIG_FILE}: fill_color is {fill!r}; a gray level from 0 to 255 was expected.")
    normalization = {f"image_{name}": raw[name] for name in ("mean", "std") if raw.get(name)}
    return dataclasses.replace(
        parse_image_processor(normalization, "CLIPImageProcessor", CONFIG_FILE),
        resize=resizes[mode],
        resample=_RESAMPLING[interpolation],
        crop=None if mode == "squash" else side,
        crop_rule="torchvision",
        fill=fill,
        raw_config=raw,
    )

"""open_clip's layout on the Hub: `open_clip_config.json` as ours, read whole or refused.

Towers are open_clip's own ViT, ResNet and text transformer, timm's ViTs (`timm_vit`) and text models of Hugging Face.
The facts are those of open_clip 3.3's dataclasses and factory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from medclip.errors import UserError
from medclip.model.config import MAX_POSITIONS, ModelConfig, TextConfig, VisionConfig, parse_text, parse_vision
from medclip.model.image_processor import (
    Exact,
    ImageProcessor,
    LongestEdge,
    ShortestEdge,
    check_input,
    parse_image_processor,
)
from medclip.model.open_clip.hf_text import check_name, hf_text_config
from medclip.model.open_clip.timm_vit import TimmHead, parse_name, parse_timm_vit
from medclip.model.shapes_init import Shapes

CONFIG_FILE = "open_clip_config.json"
_MAX_INT, _MAX_FLOAT = 2**31, 1e9


class _Option(NamedTuple):
    """A key that is used: what holds without it, and what it may be."""

    default: Any
    allowed: type | tuple[Any, ...]
    """int and float: above 0; bool; dict and str, or null; list: a side or two equal ones; object: anything.

    A tuple: one of these.
    """


_MODEL = {
    "embed_dim": _Option(None, int),
    "vision_cfg": _Option(None, dict),
    "text_cfg": _Option(None, dict),
    "quick_gelu": _Option(False, bool),
    "init_logit_bias": _Option(None, object),
}
# Initial values, and what the names and shapes of the tensors show.
_MODEL_IGNORED = ("custom_text", "init_logit_scale", "nonscalar_logit_scale", "output_dict", "multimodal_cfg")
_SAME_BLOCKS = {
    "block_type": _Option(None, (None, "default")),
    **{name: _Option(False, (False,)) for name in ("qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner")},
    **{name: _Option(False, (False,)) for name in ("scale_attn", "scale_fc", "output_tokens")},
}
_VIT = {
    **_SAME_BLOCKS,
    "layers": _Option(12, int),
    "width": _Option(768, int),
    "head_width": _Option(64, int),
    "mlp_ratio": _Option(4.0, float),
    "patch_size": _Option(16, list),
    "image_size": _Option(224, list),
    "ls_init_value": _Option(None, object),
    "attentional_pool": _Option(False, (False,)),
    "no_ln_pre": _Option(False, bool),
    "pos_embed_type": _Option("learnable", ("learnable", "sin_cos_2d")),  # either is stored
    "final_ln_after_pool": _Option(False, bool),
    "pool_type": _Option("tok", ("tok", "avg")),
    "global_average_pool": _Option(False, (False,)),  # before pool_type
    "act_kwargs": _Option(None, dict),
    "norm_kwargs": _Option(None, dict),
}
_RESNET = {
    "layers": _Option(None, object),
    "width": _Option(64, int),
    "head_width": _Option(64, int),
    "image_size": _Option(224, list),
}
_TIMM = {
    "image_size": _Option(224, list),
    "timm_model_name": _Option(None, str),
    "timm_pool": _Option("avg", ("", "token", "avg", "map", None)),
    "timm_proj": _Option("linear", ("linear", "mlp", "none", "", None)),
    "timm_proj_bias": _Option(False, bool),
}
_TRAINING = ("patch_dropout", "timm_drop", "timm_drop_path", "timm_model_pretrained", "hf_model_pretrained")
_TOKENIZER = {
    "context_length": _Option(77, int),
    "hf_tokenizer_name": _Option(None, str),
    "tokenizer_mode": _Option(None, (None, "")),
    "tokenizer_kwargs": _Option(None, dict),
}
_TEXT = {
    **_SAME_BLOCKS,
    **_TOKENIZER,
    "vocab_size": _Option(49408, int),
    "width": _Option(512, int),
    "heads": _Option(8, int),
    "layers": _Option(12, int),
    "mlp_ratio": _Option(4.0, float),
    "ls_init_value": _Option(None, object),
    "embed_cls": _Option(False, (False,)),
    "eos_id": _Option(2, int),
    "no_causal_mask": _Option(False, bool),
    "pool_type": _Option("argmax", ("argmax", "eos", "first", "last")),
    "proj_type": _Option("linear", ("linear", "none")),
    "proj_bias": _Option(False, bool),
    "act_kwargs": _Option(None, dict),
    "norm_kwargs": _Option(None, dict),
}
_HF_TEXT = {
    **_TOKENIZER,
    "output_tokens": _Option(False, (False,)),
    "hf_model_name": _Option(None, str),
    "hf_pooler_type": _Option("mean_pooler", ("mean_pooler", "cls_pooler", "cls_last_hidden_state_pooler", None)),
    "hf_proj_type": _Option("mlp", ("linear", "mlp", None)),
}
# open_clip 3.3 reads neither: the text tower's padding is not masked, its last norm always precedes the pool.
_TEXT_UNUSED = ("pad_id", "final_ln_after_pool")
_RESAMPLING = {"bilinear": 2, "bicubic": 3, "random": 3}  # "random" is for training alone


def check(raw: Any) -> dict[str, Any]:
    """The config as open_clip 3 writes it. Raises UserError for what is not supported, before any tensor is there."""
    if not isinstance(raw, Mapping) or not isinstance(model := raw.get("model_cfg"), Mapping):
        raise UserError(f"{CONFIG_FILE} is damaged: it has no model_cfg.")
    if not all(isinstance(model.get(f"{tower}_cfg"), Mapping) for tower in ("vision", "text")):
        raise UserError(f"{CONFIG_FILE} is damaged: model_cfg has no vision_cfg and text_cfg.")
    text = dict(model["text_cfg"])
    if text.get("hf_model_name"):  # names before version 2.20
        for old in ("proj", "pooler_type"):
            if old in text:
                text.setdefault(f"hf_{old}_type".replace("type_type", "type"), text.pop(old))
    if model.get("multimodal_cfg"):
        raise UserError(f"{CONFIG_FILE}: CoCa, which has a decoder of captions (multimodal_cfg), is not supported.")
    raw = {**raw, "model_cfg": {**model, "text_cfg": text}}
    _read_options(f"{CONFIG_FILE}: model_cfg", model, _MODEL, _MODEL_IGNORED)
    vision, text = _vision_options(model["vision_cfg"]), _text_options(text)
    if name := vision.get("timm_model_name"):
        parse_name(name)
    if name := text.get("hf_model_name"):
        check_name(name)
    for section, options in (("vision_cfg", vision), ("text_cfg", text)):
        _activation(section, options, model.get("quick_gelu", False))
        _eps(section, options)
    _image_processor(raw.get("preprocess_cfg") or {}, vision["image_size"])
    return raw


def parse(raw: Mapping[str, Any], shapes: Shapes, folder: Path) -> tuple[ModelConfig, ImageProcessor]:
    """The model of a checked config and its image processor; `shapes` are those of the folder's tensors.

    Raises UserError for a tower or an option that is not supported.
    """
    model = _read_options(f"{CONFIG_FILE}: model_cfg", raw["model_cfg"], _MODEL, _MODEL_IGNORED)
    try:
        vision, text = _vision(model, shapes), _text(model, shapes, folder)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f"{CONFIG_FILE} asks for a model that its tensors are not: {error!r}.") from None
    for tower in (vision, text):
        if not tower.projection and tower.hidden_size != model["embed_dim"]:
            raise UserError(f"{CONFIG_FILE}: without a projection, embed_dim must be the tower's {tower.hidden_size}.")
    scalar_shape = (1,) if shapes.get("logit_scale") == (1,) else ()
    has_bias = model["init_logit_bias"] is not None
    config = ModelConfig(vision, text, model["embed_dim"], logit_bias=has_bias, scalar_shape=scalar_shape)
    if text.max_position_embeddings > MAX_POSITIONS:
        raise UserError(f"{CONFIG_FILE}: context_length is over {MAX_POSITIONS}, which no model has.")
    processor = _image_processor(raw.get("preprocess_cfg") or {}, vision.image_size)
    check_input(processor, vision, CONFIG_FILE)
    return config, processor


def _vision_options(raw: Mapping[str, Any]) -> dict[str, Any]:
    timm, native = {*_TIMM, *_TRAINING}, {*_VIT, *_TRAINING, "attn_pooler_queries", "attn_pooler_heads"}
    section = f"{CONFIG_FILE}: vision_cfg"
    if raw.get("timm_model_name"):
        return _read_options(section, raw, _TIMM, native)
    if isinstance(layers := raw.get("layers"), list):
        if len(layers) != 4 or not all(type(depth) is int and 0 < depth < 1000 for depth in layers):
            raise UserError(f"{section}.layers is {layers!r}; a ResNet has four numbers of layers.")
        return _read_options(section, raw, _RESNET, native | timm)
    return _read_options(section, raw, _VIT, native | timm)


def _text_options(raw: Mapping[str, Any]) -> dict[str, Any]:
    ignored = {*_TEXT, *_HF_TEXT, *_TRAINING, *_TEXT_UNUSED}
    return _read_options(f"{CONFIG_FILE}: text_cfg", raw, _HF_TEXT if raw.get("hf_model_name") else _TEXT, ignored)


def _vision(model: Mapping[str, Any], shapes: Shapes) -> VisionConfig:
    raw = _vision_options(model["vision_cfg"])
    if name := raw.get("timm_model_name"):
        head = TimmHead(raw["timm_pool"], raw["timm_proj"], raw["timm_proj_bias"])
        return parse_timm_vit(parse_name(name), head, shapes, raw["image_size"], model["embed_dim"])
    if isinstance(raw["layers"], list):
        return _resnet(raw)
    sizes = {
        "hidden_size": raw["width"],
        "intermediate_size": int(raw["width"] * raw["mlp_ratio"]),
        "num_hidden_layers": raw["layers"],
        "num_attention_heads": raw["width"] // raw["head_width"],
        "patch_size": raw["patch_size"],
        "image_size": raw["image_size"],
        "hidden_act": _activation("vision_cfg", raw, model["quick_gelu"]),
        "layer_norm_eps": _eps("vision_cfg", raw),
    }
    tower = parse_vision({"model_type": "open_clip_vit", **sizes})
    family = dataclasses.replace(
        tower.family,
        block=dataclasses.replace(tower.family.block, scales=_scales(raw)),
        pre_norm="" if raw["no_ln_pre"] else tower.family.pre_norm,
        pool="mean" if raw["pool_type"] == "avg" else "first",
        norm_after_pool=raw["final_ln_after_pool"],
    )
    return dataclasses.replace(tower, family=family, prefix="visual.", projection=("visual.proj",))


def _resnet(raw: Mapping[str, Any]) -> VisionConfig:
    width = 32 * raw["width"]
    sizes = {
        "hidden_size": width,
        "num_hidden_layers": sum(raw["layers"]),
        "num_attention_heads": width // raw["head_width"],
        "image_size": raw["image_size"],
    }
    tower = parse_vision({"model_type": "open_clip_resnet", **sizes})
    projection = ("visual.attnpool.c_proj.weight", "visual.attnpool.c_proj.bias")
    return dataclasses.replace(tower, stages=tuple(raw["layers"]), prefix="visual.", projection=projection)


def _text(model: Mapping[str, Any], shapes: Shapes, folder: Path) -> TextConfig:
    raw = _text_options(model["text_cfg"])
    if raw.get("hf_model_name"):
        return _hf_text(raw, shapes, folder)
    prefix = "text." if "text.token_embedding.weight" in shapes else ""
    sizes = {
        "hidden_size": raw["width"],
        "intermediate_size": int(raw["width"] * raw["mlp_ratio"]),
        "num_hidden_layers": raw["layers"],
        "num_attention_heads": raw["heads"],
        "vocab_size": raw["vocab_size"],
        "max_position_embeddings": raw["context_length"],
        "eos_token_id": raw["eos_id"],
        "hidden_act": _activation("text_cfg", raw, model["quick_gelu"]),
        "layer_norm_eps": _eps("text_cfg", raw),
    }
    tower = parse_text({"model_type": "open_clip_text", **sizes})
    # open_clip masks no padding; before the pooled token there is none, unless that is the last
    attends = "before" if raw["pool_type"] == "last" else "causal"
    attends = "all" if raw["no_causal_mask"] else attends
    family = dataclasses.replace(
        tower.family,
        block=dataclasses.replace(tower.family.block, scales=_scales(raw)),
        attends=attends,
        pool="end" if raw["pool_type"] == "eos" else raw["pool_type"],
    )
    projection = (f"{prefix}text_projection",)
    if raw["proj_bias"]:
        projection = (f"{prefix}text_projection.weight", f"{prefix}text_projection.bias")
    if raw["proj_type"] == "none":
        projection = ()
    return dataclasses.replace(tower, family=family, prefix=prefix, projection=projection)


def _hf_text(raw: Mapping[str, Any], shapes: Shapes, folder: Path) -> TextConfig:
    prefix = "text.transformer."
    tensors = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
    tower = parse_text(hf_text_config(raw["hf_model_name"], tensors, folder))
    pooler = raw["hf_pooler_type"]
    if pooler is None:  # the family's own, without a pooler's layer
        pooler = "cls_last_hidden_state_pooler" if tower.model_type == "bert" else "mean_pooler"
    if pooler != "cls_pooler":
        family = dataclasses.replace(tower.family, pool="mean" if pooler == "mean_pooler" else "first", head="")
        tower = dataclasses.replace(tower, family=family)
    names = {"linear": ("text.proj.weight",), "mlp": ("text.proj.0.weight", "text.proj.2.weight"), None: ()}
    return dataclasses.replace(tower, prefix=prefix, projection=names[raw["hf_proj_type"]])


def _scales(raw: Mapping[str, Any]) -> tuple[str, ...]:
    return () if raw["ls_init_value"] is None else ("ls_1.gamma", "ls_2.gamma")


def _activation(section: str, raw: Mapping[str, Any], quick_gelu: bool) -> str:
    options = {"approximate": _Option("none", ("none",) if quick_gelu else ("none", "tanh"))}
    given = raw.get("act_kwargs") or {}
    approximate = _read_options(f"{CONFIG_FILE}: {section}.act_kwargs", given, options)["approximate"]
    if quick_gelu:
        return "quick_gelu"
    return "gelu_pytorch_tanh" if approximate == "tanh" else "gelu"


def _eps(section: str, raw: Mapping[str, Any]) -> float:
    given = raw.get("norm_kwargs") or {}
    return _read_options(f"{CONFIG_FILE}: {section}.norm_kwargs", given, {"eps": _Option(1e-5, float)})["eps"]


def _image_processor(raw: Any, side: int) -> ImageProcessor:
    if not isinstance(raw, Mapping):
        raise UserError(f"{CONFIG_FILE} is damaged: preprocess_cfg is not an object.")
    raw = {name: value for name, value in raw.items() if value is not None}
    mode, interpolation = raw.get("resize_mode", "shortest"), raw.get("interpolation", "bicubic")
    fill = raw.get("fill_color", 0)
    resizes = {"shortest": ShortestEdge(side), "longest": LongestEdge(side), "squash": Exact(side, side)}
    if str(mode) not in resizes or str(interpolation) not in _RESAMPLING:
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


def _read_options(
    section: str, raw: Mapping[str, Any], options: Mapping[str, _Option], ignored: Iterable[str] = ()
) -> dict[str, Any]:
    """The value of every option. Raises UserError for a key that is not known or a value that is not supported."""
    if unknown := sorted(raw.keys() - options.keys() - set(ignored)):
        raise UserError(
            f"{section}.{unknown[0]} is not known here, nor what it changes; remove it if the model does not need it."
        )
    values = {name: raw.get(name, option.default) for name, option in options.items()}
    return {name: _check_option(f"{section}.{name}", value, options[name]) for name, value in values.items()}


def _check_option(name: str, value: Any, option: _Option) -> Any:
    kind = option.allowed
    if isinstance(kind, tuple):
        if not any(value is allowed or (type(value) is type(allowed) and value == allowed) for allowed in kind):
            choices = ", ".join(map(str, kind))
            raise UserError(f"{name} = {value!r} is not supported; supported: {choices}.")
        return value
    if kind is list:  # [n, n] is n
        value = value[0] if isinstance(value, list) and len(value) == 2 and value[0] == value[1] else value
        kind = int
    numeric = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
    holds = {
        int: numeric and 0 < value <= _MAX_INT,
        float: numeric and 0 < value <= _MAX_FLOAT,
        bool: isinstance(value, bool),
        dict: value is None or isinstance(value, Mapping),
        str: value is None or isinstance(value, str),
        object: True,
    }
    if not holds[kind]:
        raise UserError(f"{name} is {value!r}, which no model has.")
    return value

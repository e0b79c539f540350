"""What a model folder's `config.json` says, as hashable values under Hugging Face's own field names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medclip.errors import UserError
from medclip.model.families import TEXT, VISION

LOGIT_SCALE = 2.6592  # ln(1/0.07), Radford et al. 2021
ACTIVATIONS = ("quick_gelu", "gelu", "gelu_pytorch_tanh", "gelu_new", "relu")
DUAL = ("clip", "siglip", "vision-text-dual-encoder", "hybrid-clip")
_MOST = {"num_hidden_layers": 1000, "image_size": 10_000}  # more is a mistake or an attack
_UNSUPPORTED = {"use_swiglu_ffn": True, "vision_use_head": False, "qkv_bias": False, "is_decoder": True}


@dataclass(frozen=True)
class VisionConfig:
    """A vision tower: its family (`model_type`), its sizes and where its tensors are."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str
    layer_norm_eps: float
    image_size: int
    patch_size: int
    prefix: str = "vision_model."
    """What precedes the tower's tensor names."""
    projection: tuple[str, ...] = ("visual_projection.weight",)
    """Linear layers, GELU between them, from the pool to the space of both towers; NAME.weight is (out, in)."""


@dataclass(frozen=True)
class TextConfig:
    """A text tower: its family (`model_type`), its sizes and where its tensors are."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str
    layer_norm_eps: float
    vocab_size: int
    max_position_embeddings: int
    pad_token_id: int
    bos_token_id: int = -1
    eos_token_id: int = -1
    type_vocab_size: int = 0
    projection_size: int = 0
    """Width of the head, where the family has one; 0: `hidden_size`."""
    pool: str = ""
    """"first" or "mean" in place of the family's own pool and head (open_clip)."""
    prefix: str = "text_model."
    projection: tuple[str, ...] = ("text_projection.weight",)

    @property
    def max_length(self) -> int:
        """The most tokens that have positions."""
        spent = self.pad_token_id + 1 if TEXT[self.model_type].after_padding else 0
        return self.max_position_embeddings - spent


@dataclass(frozen=True)
class ModelConfig:
    """Both towers and the space they meet in."""

    vision: VisionConfig
    text: TextConfig
    projection_dim: int = 512
    logit_scale_init_value: float = LOGIT_SCALE
    logit_bias: bool = False
    """SigLIP: scaled cosines are shifted by a bias; it and the logit scale have shape (1,), not ()."""


def parse_config(said: Mapping[str, Any]) -> ModelConfig:
    """A dual encoder's `config.json` as a value; UserError for a model type or a field that is not understood."""
    kind = said.get("model_type")
    if kind not in DUAL:
        raise UserError(
            f"config.json says model_type {kind!r}; a dual encoder was expected: {', '.join(DUAL)}. "
            "A single tower is joined to another with --vision-model and --text-model."
        )
    vision, text = parse_vision(part_of(said, "vision_config"), kind), parse_text(part_of(said, "text_config"), kind)
    if kind == "siglip":
        if (width := text.projection_size or text.hidden_size) != vision.hidden_size:
            raise UserError(f"config.json: the text head is {width} wide, the vision tower {vision.hidden_size}.")
        vision, text = dataclasses.replace(vision, projection=()), dataclasses.replace(text, projection=())
        return ModelConfig(vision, text, vision.hidden_size, logit_bias=True)
    width, scale = said.get("projection_dim", 512), said.get("logit_scale_init_value", LOGIT_SCALE)
    if not (_number(width, int) and 0 < width <= 2**31 and _number(scale, (int, float))):
        raise UserError(f"config.json: projection_dim {width!r} or logit_scale_init_value {scale!r} is no size.")
    return ModelConfig(vision, text, width, scale)


def parse_vision(said: Mapping[str, Any], kind: str = "") -> VisionConfig:
    """A vision tower's own `config.json`, or the `vision_config` of a dual encoder of that `kind`."""
    if said.get("num_channels", 3) != 3:
        raise UserError(f"config.json: num_channels is {said['num_channels']}; images have 3.")
    if all(_number(said.get(name), (int, float)) for name in ("mlp_ratio", "hidden_size")):
        said = {**said, "intermediate_size": int(said["hidden_size"] * said["mlp_ratio"])}
    return _tower(VisionConfig, VISION, said, f"{kind}_vision_model")


def parse_text(said: Mapping[str, Any], kind: str = "") -> TextConfig:
    """A text tower's own `config.json`, or the `text_config` of a dual encoder of that `kind`."""
    if said.get("position_embedding_type") not in (None, "absolute"):
        raise UserError(f"config.json: position_embedding_type {said['position_embedding_type']!r} is not supported.")
    return _tower(TextConfig, TEXT, said, f"{kind}_text_model")


def part_of(said: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`vision_config` or `text_config`; configs of 2021 and 2022 state changes in NAME_dict, which wins."""
    parts = [said.get(at) or {} for at in (name, f"{name}_dict")]
    if not all(isinstance(part, Mapping) for part in parts):
        raise UserError(f"config.json: {name} is no object.")
    return {**parts[0], **parts[1]}


def _tower(kind: type, families: Mapping[str, Any], said: Mapping[str, Any], default: str) -> Any:
    family = said.get("model_type") or default
    if family not in families:
        raise UserError(f"config.json: a tower of type {family!r} is not among {', '.join(families)}.")
    if refused := [name for name, value in _UNSUPPORTED.items() if said.get(name) is value]:
        raise UserError(f"config.json: {refused[0]} = {said[refused[0]]} is not supported.")
    numbers = {f.name: int if f.type == "int" else (int, float) for f in dataclasses.fields(kind) if f.type != "str"}
    wanted = numbers.keys() - {"projection"} | {"hidden_act"}
    given = {name: value for name, value in said.items() if name in wanted and value is not None}
    given = {**families[family].defaults, **given, "model_type": family}
    for name in given.keys() & numbers.keys():
        least = -1 if name.endswith("_id") else 0 if name in ("layer_norm_eps", "projection_size") else 1
        if not (_number(given[name], numbers[name]) and least <= given[name] <= _MOST.get(name, 2**31)):
            raise UserError(f"config.json: {name} is {given[name]!r}, which no model has.")
    tower = kind(**given)
    if tower.hidden_act not in ACTIVATIONS:
        raise UserError(f"config.json: hidden_act {tower.hidden_act!r} is not among {', '.join(ACTIVATIONS)}.")
    if tower.hidden_size % tower.num_attention_heads:
        raise UserError("config.json: hidden_size is no multiple of num_attention_heads.")
    return tower


def _number(value: Any, of: Any) -> bool:
    return isinstance(value, of) and not isinstance(value, bool)

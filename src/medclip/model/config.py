"""A model folder's `config.json` as hashable values under Hugging Face's own field names, and the presets' configs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from medclip.errors import UserError
from medclip.model.families import TEXT, VISION, Block, TextFamily, VisionFamily
from medclip.model.unsupported import check_fields, dual_encoder_error, tower_error

LOGIT_SCALE = 2.6592  # ln(1/0.07), Radford et al. 2021
ACTIVATIONS = ("quick_gelu", "gelu", "gelu_pytorch_tanh", "gelu_new", "relu", "silu")
DUAL_ENCODERS = ("clip", "siglip", "metaclip_2", "vision-text-dual-encoder", "hybrid-clip")
_SAME_TOWERS = {"cxr-bert": "bert"}  # by other names, from repositories with code of their own
Side = Literal["vision", "text"]
MAX_IMAGE_SIDE, MAX_POSITIONS = 10_000, 8200  # the memory of attention grows with the square


@dataclass(frozen=True)
class VisionConfig:
    """A vision tower: its family, its sizes and the names of its tensors."""

    model_type: str
    family: VisionFamily
    """`VISION[model_type]`, or a variant of it that a single model asks for."""
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str
    layer_norm_eps: float
    image_size: int
    patch_size: int
    """Pixels between two places of the last grid, in each direction."""
    stages: tuple[int, ...] = ()
    """How many bottlenecks each stage of a ResNet has; (): a ViT."""
    num_register_tokens: int = 0
    rope_theta: float = 0.0
    """Base period of the rotation, where the family has one."""
    prefix: str = "vision_model."
    """What precedes the tower's tensor names."""
    projection: tuple[str, ...] = ("visual_projection.weight",)
    """Linear layers, GELU between them, from the features to the common space.

    NAME.weight is (out, in), NAME.bias the bias of the weight before it, any other name (in, out).
    """
    projection_hidden_size: int = 0
    """Width between two linear layers; 0: the mean of both ends, as in open_clip."""


@dataclass(frozen=True)
class TextConfig:
    """A text tower: its family, its sizes and the names of its tensors."""

    model_type: str
    family: TextFamily
    """`TEXT[model_type]`, or a variant of it that a single model asks for."""
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str
    layer_norm_eps: float
    vocab_size: int
    max_position_embeddings: int
    pad_token_id: int
    eos_token_id: int = -1
    type_vocab_size: int = 0
    projection_size: int = 0
    """Width of the head, where the family has one; 0: `hidden_size`."""
    prefix: str = "text_model."
    projection: tuple[str, ...] = ("text_projection.weight",)
    projection_hidden_size: int = 0

    @property
    def max_length(self) -> int:
        """The most tokens that have positions."""
        reserved = self.pad_token_id + 1 if self.family.after_padding else 0
        return self.max_position_embeddings - reserved

    @property
    def opens_in_transformers(self) -> bool:
        """False where sentence-transformers' pool takes the place of the tower's own: transformers refuses the type."""
        return not self.model_type.endswith("-pooled")


@dataclass(frozen=True)
class ModelConfig:
    """Both towers and their common space."""

    vision: VisionConfig
    text: TextConfig
    projection_dim: int = 512
    logit_scale_init_value: float = LOGIT_SCALE
    logit_bias: bool = False
    """SigLIP: scaled cosines are shifted by a bias."""
    scalar_shape: tuple[int, ...] = ()
    """Of the logit scale and bias; transformers' SigLIP has (1,)."""


class _Number(NamedTuple):
    """The range of a config's number; a value outside is a mistake or an attack."""

    low: int = 1
    high: int = 2**31
    types: type | tuple[type, ...] = int

    def holds(self, value: Any) -> bool:
        return isinstance(value, self.types) and not isinstance(value, bool) and self.low <= value <= self.high


_TOWER_NUMBERS = {
    "hidden_size": _Number(),
    "intermediate_size": _Number(),
    "num_hidden_layers": _Number(high=1000),
    "num_attention_heads": _Number(),
    "layer_norm_eps": _Number(low=0, types=(int, float)),
}
_VISION_NUMBERS = {
    **_TOWER_NUMBERS,
    "image_size": _Number(high=MAX_IMAGE_SIDE),
    "patch_size": _Number(),
    "num_register_tokens": _Number(low=0, high=1000),
    "rope_theta": _Number(types=(int, float)),
}
_TEXT_NUMBERS = {
    **_TOWER_NUMBERS,
    "vocab_size": _Number(),
    "max_position_embeddings": _Number(high=MAX_POSITIONS),
    "pad_token_id": _Number(low=-1),
    "eos_token_id": _Number(low=-1),
    "type_vocab_size": _Number(),
    "projection_size": _Number(low=0),
}
_LOGIT_SCALES = _Number(-(2**31), types=(int, float))


def parse_config(raw: Mapping[str, Any]) -> ModelConfig:
    """A dual encoder's `config.json` as a value. Raises UserError for a model type or a field that is not supported."""
    kind = raw.get("model_type")
    if kind not in DUAL_ENCODERS:
        raise dual_encoder_error(kind, tower_side(raw))
    vision, text = parse_vision(subconfig(raw, "vision_config"), kind), parse_text(subconfig(raw, "text_config"), kind)
    if kind == "siglip":
        if (width := text.projection_size or text.hidden_size) != vision.hidden_size:
            raise UserError(f"config.json: the text head is {width} wide, the vision tower {vision.hidden_size}.")
        vision, text = dataclasses.replace(vision, projection=()), dataclasses.replace(text, projection=())
        return ModelConfig(vision, text, vision.hidden_size, logit_bias=True, scalar_shape=(1,))
    width, scale = raw.get("projection_dim", 512), raw.get("logit_scale_init_value", LOGIT_SCALE)
    if not (_Number().holds(width) and _LOGIT_SCALES.holds(scale)):
        raise UserError(f"config.json: projection_dim {width!r} or logit_scale_init_value {scale!r} is not a size.")
    return ModelConfig(vision, text, width, scale)


def parse_vision(raw: Mapping[str, Any], kind: str = "") -> VisionConfig:
    """A vision tower's own `config.json`, or the `vision_config` of a dual encoder of that `kind`."""
    raw = {"model_type": f"{kind}_vision_model", **{name: value for name, value in raw.items() if value is not None}}
    for name in ("image_size", "patch_size"):
        if isinstance(raw.get(name), list):
            raw[name] = _square(name, raw[name])
    if raw["model_type"] in ("dinov2", "dinov2_with_registers"):
        raw |= _dinov2_mlp(raw)
    tower = _parse_tower(VisionConfig, _VISION_NUMBERS, VISION, raw)
    if tower.family.rotary and tower.hidden_size // tower.num_attention_heads % 4:
        raise UserError("config.json: hidden_size / num_attention_heads is not a multiple of 4, as rotation needs.")
    unused = tower.family.unused if raw.get("use_mask_token", True) else ""
    family = dataclasses.replace(tower.family, block=_block_variant(tower.family.block, raw), unused=unused)
    return dataclasses.replace(tower, family=family)


def parse_text(raw: Mapping[str, Any], kind: str = "") -> TextConfig:
    """A text tower's own `config.json`, or the `text_config` of a dual encoder of that `kind`."""
    raw = {"model_type": f"{kind}_text_model", **{name: value for name, value in raw.items() if value is not None}}
    tower = _parse_tower(TextConfig, _TEXT_NUMBERS, TEXT, raw)
    if tower.model_type == "mpnet" and tower.pad_token_id != 1:
        raise UserError(f"config.json: pad_token_id is {tower.pad_token_id}; MPNet counts positions from 1 always.")
    is_clip = tower.model_type in ("clip_text_model", "open_clip_text")
    if is_clip and tower.family.pool == "end" and tower.eos_token_id == 2:  # configs of 2021, by mistake
        tower = dataclasses.replace(tower, family=dataclasses.replace(tower.family, pool="argmax"))
    return tower


def tower_side(raw: Mapping[str, Any]) -> Side:
    """Which tower a `config.json` is of that is no dual encoder's. Raises UserError for a type of neither."""
    kind = raw.get("model_type")
    if isinstance(kind, str) and (kind in TEXT or kind in _SAME_TOWERS):
        return "text"
    if isinstance(kind, str) and kind in VISION:
        return "vision"
    raise dual_encoder_error(kind)


def tower_config(raw: Mapping[str, Any], side: Side, pooling: str = "") -> dict[str, Any]:
    """The config of one tower as a join holds it, from its own `config.json` or a dual encoder's.

    `pooling` is "mean" or "cls" in place of the tower's own pool and head (sentence-transformers). Such a tower has a
    type of its own, which transformers refuses rather than pool it otherwise. Raises UserError for a tower that is not
    supported.
    """
    kind = raw.get("model_type")
    if kind in DUAL_ENCODERS:
        raw = {"model_type": f"{kind}_{side}_model", **subconfig(raw, f"{side}_config")}
    elif isinstance(kind, str) and kind in _SAME_TOWERS:
        raw = {**raw, "model_type": _SAME_TOWERS[kind]}
    if raw.get("model_type") is None:
        raise tower_error(None, TEXT if side == "text" else VISION)
    if raw.get("model_type") == "siglip_text_model":
        raise UserError(
            "config.json: a text tower of type 'siglip_text_model' is not joined, since no other library opens the "
            "join; start from the whole model with --init, or take a BERT-like text tower."
        )
    fields = {name: value for name, value in raw.items() if name not in ("auto_map", "architectures")}
    if pooling and f"{raw.get('model_type')}-{pooling}-pooled" in TEXT:
        fields["model_type"] = f"{raw['model_type']}-{pooling}-pooled"
    elif pooling:
        raise tower_error(raw.get("model_type"), TEXT)
    parse_vision(fields) if side == "vision" else parse_text(fields)
    return fields


def subconfig(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`vision_config` or `text_config`; configs of 2021 and 2022 state changes in NAME_dict, which wins."""
    parts = [raw.get(key) or {} for key in (name, f"{name}_dict")]
    if not all(isinstance(part, Mapping) for part in parts):
        raise UserError(f"config.json: {name} is not an object.")
    return {**parts[0], **parts[1]}


TowerConfig = TypeVar("TowerConfig", VisionConfig, TextConfig)


def _parse_tower(
    kind: type[TowerConfig], numbers: Mapping[str, _Number], families: Mapping[str, Any], raw: Mapping[str, Any]
) -> TowerConfig:
    family = raw["model_type"]
    if not isinstance(family, str) or family not in families:
        raise tower_error(family, families)
    defaults = families[family].defaults
    fields = {name: raw.get(name, default) for name, default in defaults.items()}
    for name, value in fields.items():
        if name in numbers and not numbers[name].holds(value):
            raise UserError(f"config.json: {name} is {value!r}, which no model has.")
    if fields["hidden_act"] not in ACTIVATIONS:
        raise UserError(f"config.json: hidden_act {fields['hidden_act']!r} is not among {', '.join(ACTIVATIONS)}.")
    fields["layer_norm_eps"] = float(fields["layer_norm_eps"])
    tower = kind(model_type=family, family=families[family], **fields)
    check_fields(raw, tower.hidden_size)
    if tower.hidden_size % tower.num_attention_heads:
        raise UserError("config.json: hidden_size is not a multiple of num_attention_heads.")
    return tower


def _square(name: str, value: list[Any]) -> Any:
    if len(set(map(str, value))) != 1:
        raise UserError(f"config.json: {name} is {value}; only squares are supported.")
    return value[0]


def _dinov2_mlp(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Width and activation of DINOv2's MLP, of which its config states the ratio and the kind."""
    width, ratio = raw.get("hidden_size", 768), raw.get("mlp_ratio", 4)
    if not (_Number().holds(width) and _Number(types=(int, float)).holds(ratio)):
        raise UserError(f"config.json: hidden_size {width!r} with mlp_ratio {ratio!r} is not a size.")
    mlp_width = int(width * ratio)
    if not raw.get("use_swiglu_ffn"):
        return {"intermediate_size": mlp_width}
    # Each factor has two thirds of it, rounded up to a multiple of 8.
    return {"intermediate_size": (int(mlp_width * 2 / 3) + 7) // 8 * 8, "hidden_act": "silu"}


def _block_variant(block: Block, raw: Mapping[str, Any]) -> Block:
    """The layer that a config's flags make of its family's."""
    kind, fused = raw["model_type"], "mlp.weights_in"
    if raw.get("use_swiglu_ffn") and kind != "dinov3_vit":
        return dataclasses.replace(block, up=fused, gate=fused, down="mlp.weights_out", no_bias=_no_bias(block, raw))
    if raw.get("use_gated_mlp") and kind == "dinov3_vit":
        block = dataclasses.replace(block, gate="mlp.gate_proj")
    return dataclasses.replace(block, no_bias=_no_bias(block, raw))


def _no_bias(block: Block, raw: Mapping[str, Any]) -> tuple[str, ...]:
    """The linear layers of which a config's flags switch off the bias."""
    flags = {"qkv_bias": block.qkv}
    if raw["model_type"] == "dinov3_vit":
        raw = {"key_bias": False, **raw}
        flags = {
            **{f"{name}_bias": (linear,) for name, linear in zip(("query", "key", "value"), block.qkv, strict=True)},
            "proj_bias": (block.out,),
            "mlp_bias": (block.up, block.down, block.gate),
        }
    return tuple(name for flag, names in flags.items() if raw.get(flag) is False for name in names if name)


class Preset(NamedTuple):
    """The sizes of a CLIP to train from scratch."""

    width: int
    mlp_width: int
    vision_layers: int
    text_layers: int
    image_size: int
    patch_size: int
    context_length: int


PRESETS = {"tiny": Preset(96, 192, 3, 1, 64, 16, 32), "small": Preset(192, 768, 6, 3, 96, 16, 48)}


def preset_config(preset: Preset, vocab_size: int, special_tokens: Mapping[str, int]) -> dict[str, Any]:
    """The `config.json` of a preset; `special_tokens` as `train_tokenizer` returns them."""
    tower = {
        "hidden_size": preset.width,
        "intermediate_size": preset.mlp_width,
        "num_attention_heads": preset.width // 32,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": preset.width,
    }
    vision = {
        "num_hidden_layers": preset.vision_layers,
        "image_size": preset.image_size,
        "patch_size": preset.patch_size,
    }
    text = {
        "num_hidden_layers": preset.text_layers,
        "vocab_size": vocab_size,
        "max_position_embeddings": preset.context_length,
        **special_tokens,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "dtype": "float32",
        "projection_dim": preset.width,
        "logit_scale_init_value": LOGIT_SCALE,
        "vision_config": {"model_type": "clip_vision_model", **tower, **vision},
        "text_config": {"model_type": "clip_text_model", **tower, **text},
    }

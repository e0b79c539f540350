"""What a model folder's `config.json` says, as hashable values under Hugging Face's own field names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medclip.errors import UserError


@dataclass(frozen=True)
class VisionConfig:
    """A CLIP ViT tower; defaults are `transformers.CLIPVisionConfig`'s."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5


@dataclass(frozen=True)
class TextConfig:
    """A CLIP text tower; defaults are `transformers.CLIPTextConfig`'s."""

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    pad_token_id: int = 1
    bos_token_id: int = 49406
    eos_token_id: int = 49407


@dataclass(frozen=True)
class ModelConfig:
    """Both towers and the space they meet in."""

    vision_config: VisionConfig
    text_config: TextConfig
    projection_dim: int = 512
    logit_scale_init_value: float = 2.6592  # ln(1/0.07), Radford et al. 2021


def parse_config(config: Mapping[str, Any]) -> ModelConfig:
    """A `config.json` of `transformers.CLIPModel` as a value; UserError for another model type or a bad field."""
    kind = config.get("model_type")
    if kind != "clip":
        raise UserError(f"config.json says model_type {kind!r}; this version of medclip reads 'clip'.")
    model = ModelConfig(
        vision_config=_known(VisionConfig, config.get("vision_config") or {}),
        text_config=_known(TextConfig, config.get("text_config") or {}),
        projection_dim=config.get("projection_dim", 512),
        logit_scale_init_value=config.get("logit_scale_init_value", 2.6592),
    )
    for name, tower in (("vision_config", model.vision_config), ("text_config", model.text_config)):
        if tower.hidden_act not in ACTIVATIONS:
            raise UserError(f"config.json: {name}.hidden_act {tower.hidden_act!r} is not among {ACTIVATIONS}.")
        if tower.num_attention_heads < 1 or tower.hidden_size % tower.num_attention_heads:
            raise UserError(f"config.json: {name}.hidden_size is no multiple of num_attention_heads.")
    return model


ACTIVATIONS = ("quick_gelu", "gelu")


def config_json(config: ModelConfig) -> dict[str, Any]:
    """The `config.json` that `transformers.CLIPModel.from_pretrained` reads."""
    said = dataclasses.asdict(config)
    said["vision_config"] |= {"model_type": "clip_vision_model", "projection_dim": config.projection_dim}
    said["text_config"] |= {"model_type": "clip_text_model", "projection_dim": config.projection_dim}
    return {"architectures": ["CLIPModel"], "model_type": "clip", "dtype": "float32", **said}


def _known(kind: type, fields: Mapping[str, Any]) -> Any:
    """The fields that shape the tower; the rest of a Hub config (dropout, generation) does not reach inference."""
    wanted = {f.name: f.type for f in dataclasses.fields(kind)}
    given = {name: fields[name] for name in wanted if fields.get(name) is not None}
    for name, value in given.items():
        numeric = wanted[name] in ("int", "float")
        if numeric and (isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0):
            raise UserError(f"config.json: {name} is {value!r}; a number of at least 0 was expected.")
    return kind(**given)


def preset(name: str, vocab_size: int, special: Mapping[str, int]) -> ModelConfig:
    """A model to train from scratch: "tiny" (64 px, minutes on a laptop) or "small" (96 px).

    `special` gives the ids of the tokenizer's pad, bos and eos.
    """
    width, mlp, vision_layers, text_layers, side, patch, tokens = PRESETS[name]
    tower = {"hidden_size": width, "intermediate_size": mlp, "num_attention_heads": width // 32}
    return ModelConfig(
        VisionConfig(num_hidden_layers=vision_layers, image_size=side, patch_size=patch, **tower),
        TextConfig(
            num_hidden_layers=text_layers,
            vocab_size=vocab_size,
            max_position_embeddings=tokens,
            pad_token_id=special["pad"],
            bos_token_id=special["bos"],
            eos_token_id=special["eos"],
            **tower,
        ),
        projection_dim=width,
    )


# width, MLP width, vision layers, text layers, image side, patch side, tokens
PRESETS = {"tiny": (96, 192, 3, 1, 64, 16, 32), "small": (192, 768, 6, 3, 96, 16, 48)}

"""Models to train from scratch: the `config.json` and `preprocessor_config.json` of their folders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medclip.model.config import LOGIT_SCALE

# width, MLP width, vision layers, text layers, image side, patch side, tokens
PRESETS = {"tiny": (96, 192, 3, 1, 64, 16, 32), "small": (192, 768, 6, 3, 96, 16, 48)}


def preset_config(name: str, vocab_size: int, special: Mapping[str, int]) -> dict[str, Any]:
    """The `config.json` of "tiny" (64 px, minutes on a laptop) or "small" (96 px); `special` as of `train_tokens`."""
    width, mlp, vision_layers, text_layers, side, patch, tokens = PRESETS[name]
    tower = {
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_attention_heads": width // 32,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": width,
    }
    vision = {"num_hidden_layers": vision_layers, "image_size": side, "patch_size": patch}
    text = {"num_hidden_layers": text_layers, "vocab_size": vocab_size, "max_position_embeddings": tokens, **special}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "dtype": "float32",
        "projection_dim": width,
        "logit_scale_init_value": LOGIT_SCALE,
        "vision_config": {"model_type": "clip_vision_model", **tower, **vision},
        "text_config": {"model_type": "clip_text_model", **tower, **text},
    }

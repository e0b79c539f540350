"""Every tensor of a model by name and shape, and fresh values for them."""

from __future__ import annotations

import re

import numpy as np

from medclip.model.config import ModelConfig, TextConfig, VisionConfig


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in `model.safetensors`, as `transformers.CLIPModel` names them."""
    vision, text = config.vision_config, config.text_config
    p, w, t = config.projection_dim, vision.hidden_size, text.hidden_size
    k, patches = vision.patch_size, (vision.image_size // vision.patch_size) ** 2
    return {
        "logit_scale": (),
        "visual_projection.weight": (p, w),
        "text_projection.weight": (p, t),
        "vision_model.embeddings.class_embedding": (w,),
        "vision_model.embeddings.patch_embedding.weight": (w, 3, k, k),
        "vision_model.embeddings.position_embedding.weight": (patches + 1, w),
        **_norm("vision_model.pre_layrnorm", w),
        **_layers("vision_model.encoder.layers", vision),
        **_norm("vision_model.post_layernorm", w),
        "text_model.embeddings.token_embedding.weight": (text.vocab_size, t),
        "text_model.embeddings.position_embedding.weight": (text.max_position_embeddings, t),
        **_layers("text_model.encoder.layers", text),
        **_norm("text_model.final_layer_norm", t),
    }


def _layers(prefix: str, tower: VisionConfig | TextConfig) -> dict[str, tuple[int, ...]]:
    w, m = tower.hidden_size, tower.intermediate_size
    found: dict[str, tuple[int, ...]] = {}
    for i in range(tower.num_hidden_layers):
        at = f"{prefix}.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= {f"{at}.self_attn.{name}.weight": (w, w), f"{at}.self_attn.{name}.bias": (w,)}
        found |= {f"{at}.mlp.fc1.weight": (m, w), f"{at}.mlp.fc1.bias": (m,)}
        found |= {f"{at}.mlp.fc2.weight": (w, m), f"{at}.mlp.fc2.bias": (w,)}
        found |= {**_norm(f"{at}.layer_norm1", w), **_norm(f"{at}.layer_norm2", w)}
    return found


def _norm(at: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{at}.weight": (width,), f"{at}.bias": (width,)}


def init(config: ModelConfig, seed: int) -> dict[str, np.ndarray]:
    """Fresh float32 tensors by name, with the standard deviations of Radford et al. 2021."""
    rng = np.random.default_rng(seed)
    return {name: _fresh(name, shape, config, rng) for name, shape in shapes(config).items()}


def _fresh(name: str, shape: tuple[int, ...], config: ModelConfig, rng: np.random.Generator) -> np.ndarray:
    if name == "logit_scale":
        return np.asarray(config.logit_scale_init_value, np.float32)
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if "norm" in name or "layrnorm" in name:
        return np.ones(shape, np.float32)
    tower = config.vision_config if name.startswith("vis") else config.text_config
    return (rng.standard_normal(shape, np.float32) * _std(name, tower)).astype(np.float32)


def _std(name: str, tower: VisionConfig | TextConfig) -> float:
    width, depth = tower.hidden_size, tower.num_hidden_layers
    if re.search(r"[qkv]_proj|fc2", name):
        return width**-0.5 * (2 * depth) ** -0.5
    if "fc1" in name:
        return (2 * width) ** -0.5
    if re.search(r"out_proj|_projection|class_embedding", name):
        return width**-0.5
    return 0.02

"""Every tensor of a model by name and shape, and fresh values for them."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from medclip.model.config import ModelConfig, TextConfig, VisionConfig
from medclip.model.families import TEXT, VISION, Block

Shapes = dict[str, tuple[int, ...]]


def tensor_shapes(config: ModelConfig) -> Shapes:
    """Name and shape of every tensor of a model."""
    vision, text, p = config.vision, config.text, config.projection_dim
    scalar = (1,) if config.logit_bias else ()
    return {
        "logit_scale": scalar,
        **({"logit_bias": scalar} if config.logit_bias else {}),
        **_projection(vision.projection, vision.hidden_size, p),
        **_projection(text.projection, text.hidden_size, p),
        **{vision.prefix + name: shape for name, shape in vision_shapes(vision).items()},
        **{text.prefix + name: shape for name, shape in text_shapes(text).items()},
    }


def vision_shapes(tower: VisionConfig) -> Shapes:
    """Name and shape of every tensor of a vision tower, without prefix and projection."""
    family, w, k = VISION[tower.model_type], tower.hidden_size, tower.patch_size
    places = (tower.image_size // k) ** 2 + bool(family.class_token)
    leading = (1,) if family.batch_axis else ()
    found: Shapes = {}
    if family.class_token:
        found[family.class_token] = (*leading, *leading, w)
    if family.unused:
        found[family.unused] = (1, w)
    found[f"{family.patch}.weight"] = (w, 3, k, k)
    if family.patch_bias:
        found[f"{family.patch}.bias"] = (w,)
    found[family.position] = (*leading, places, w)
    if family.pre_norm:
        found |= _norm(family.pre_norm, w)
    found |= _layers(family.block, tower) | _norm(family.post_norm, w)
    if family.pool == "attention":
        m, at = tower.intermediate_size, "head"
        found |= {f"{at}.probe": (1, 1, w), **_linear(f"{at}.attention.in_proj", 3 * w, w)}
        found |= {**_linear(f"{at}.attention.out_proj", w, w), **_norm(f"{at}.layernorm", w)}
        found |= {**_linear(f"{at}.mlp.fc1", m, w), **_linear(f"{at}.mlp.fc2", w, m)}
    if family.pooler:
        found |= _linear(family.pooler, w, w)
    return found


def text_shapes(tower: TextConfig) -> Shapes:
    """Name and shape of every tensor of a text tower, without prefix and projection."""
    family, w = TEXT[tower.model_type], tower.hidden_size
    found: Shapes = {family.token: (tower.vocab_size, w), family.position: (tower.max_position_embeddings, w)}
    if family.types:
        found[family.types] = (tower.type_vocab_size, w)
    if family.embed_norm:
        found |= _norm(family.embed_norm, w)
    found |= _layers(family.block, tower)
    if family.final_norm:
        found |= _norm(family.final_norm, w)
    if family.head and not tower.pool:
        found |= _linear(family.head, tower.projection_size or w, w)
    return found


def _layers(block: Block, tower: VisionConfig | TextConfig) -> Shapes:
    w, m = tower.hidden_size, tower.intermediate_size
    found: Shapes = {}
    for i in range(tower.num_hidden_layers):
        at = f"{block.stack}.{i}."
        for name in block.qkv:
            found |= _linear(at + name, w * 3 // len(block.qkv), w)
        found |= _linear(at + block.out, w, w)
        found |= _linear(at + block.up, m, w) | _linear(at + block.down, w, m)
        found |= _norm(at + block.norm1, w) | _norm(at + block.norm2, w)
        found |= {at + name: (w,) for name in block.scales}
    return found


def _linear(at: str, out: int, into: int) -> Shapes:
    at = f"{at}_" if at.endswith("in_proj") else f"{at}."
    return {f"{at}weight": (out, into), f"{at}bias": (out,)}


def _norm(at: str, width: int) -> Shapes:
    return {f"{at}.weight": (width,), f"{at}.bias": (width,)}


def _projection(names: tuple[str, ...], into: int, out: int) -> Shapes:
    """Linear layers without bias; those between are as wide as the mean of both ends, as in open_clip."""
    widths = [into, *[(into + out) // 2] * (len(names) - 1), out]
    pairs = zip(names, widths, widths[1:], strict=False)
    return {name: (b, a) if name.endswith(".weight") else (a, b) for name, a, b in pairs}


def init(config: ModelConfig, seed: int, only: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Fresh float32 tensors by name, all or `only` those; CLIP towers as in Radford et al. 2021, others N(0, 0.02)."""
    rng, known = np.random.default_rng(seed), tensor_shapes(config)
    return {name: _fresh(name, known[name], config, rng) for name in (known if only is None else only)}


def _fresh(name: str, shape: tuple[int, ...], config: ModelConfig, rng: np.random.Generator) -> np.ndarray:
    if name == "logit_scale":
        return np.full(shape, config.logit_scale_init_value, np.float32)
    if name == "logit_bias":
        return np.full(shape, -10, np.float32)  # Zhai et al. 2023, section 3.2
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if len(shape) == 1 and name.endswith(("weight", "lambda1")):
        return np.ones(shape, np.float32)
    projects = [tower for tower in (config.vision, config.text) if name in tower.projection]
    tower = projects[0] if projects else config.vision if name.startswith(config.vision.prefix) else config.text
    std = tower.hidden_size**-0.5 if projects else _std(name, tower)
    return (rng.standard_normal(shape, np.float32) * std).astype(np.float32)


def _std(name: str, tower: VisionConfig | TextConfig) -> float:
    width, depth = tower.hidden_size, tower.num_hidden_layers
    if not tower.model_type.startswith("clip"):
        return 0.02
    if re.search(r"[qkv]_proj|fc2", name):
        return width**-0.5 * (2 * depth) ** -0.5
    if "fc1" in name:
        return (2 * width) ** -0.5
    if re.search(r"out_proj|class_embedding", name):
        return width**-0.5
    return 0.02

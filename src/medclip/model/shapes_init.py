"""Name and shape of every tensor of a model, and initial values for them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import numpy as np

from medclip.model.config import ModelConfig, TextConfig, VisionConfig
from medclip.model.families import RELATIVE_BUCKETS, Block
from medclip.model.resnet import resnet_shapes

Shapes = dict[str, tuple[int, ...]]


def tensor_shapes(config: ModelConfig) -> Shapes:
    """Name and shape of every tensor of a model."""
    vision, text, p = config.vision, config.text, config.projection_dim
    return {
        "logit_scale": config.scalar_shape,
        **({"logit_bias": config.scalar_shape} if config.logit_bias else {}),
        **_projection(vision, p),
        **_projection(text, p),
        **{vision.prefix + name: shape for name, shape in vision_shapes(vision).items()},
        **{text.prefix + name: shape for name, shape in text_shapes(text).items()},
    }


def vision_shapes(tower: VisionConfig) -> Shapes:
    """Name and shape of every tensor of a vision tower, without prefix and projection."""
    if tower.stages:
        return resnet_shapes(tower)
    family, w, k = tower.family, tower.hidden_size, tower.patch_size
    class_tokens = [name for name in (family.class_token, family.distillation_token) if name]
    leading = (1,) if family.batch_axis else ()
    shapes: Shapes = {name: (*leading, *leading, w) for name in class_tokens}
    if family.registers:
        shapes[family.registers] = (1, tower.num_register_tokens, w)
    if family.unused:
        shapes[family.unused] = (*[1] * (family.unused_ndim - 1), w)
    shapes[f"{family.patch}.weight"] = (w, 3, k, k)
    if family.patch_bias:
        shapes[f"{family.patch}.bias"] = (w,)
    if family.position:
        shapes[family.position] = (*leading, (tower.image_size // k) ** 2 + len(class_tokens), w)
    if family.pre_norm:
        shapes |= _norm(family.pre_norm, w)
    shapes |= _layers(family.block, tower) | _norm(family.post_norm, w)
    if head := family.attention_head:
        m = tower.intermediate_size
        shapes |= {head.probe: (1, 1, w), **(_linear(head.query, w, w) if head.query else {})}
        shapes |= _linear(head.key_value, (2 if head.query else 3) * w, w)
        shapes |= {**_linear(head.out, w, w), **_norm(head.norm, w)}
        shapes |= {**_linear(head.up, m, w), **_linear(head.down, w, m)}
    if family.pooler:
        shapes |= _linear(family.pooler, w, w)
    return shapes


def text_shapes(tower: TextConfig) -> Shapes:
    """Name and shape of every tensor of a text tower, without prefix and projection."""
    family, w = tower.family, tower.hidden_size
    shapes: Shapes = {family.token: (tower.vocab_size, w), family.position: (tower.max_position_embeddings, w)}
    if family.types:
        shapes[family.types] = (tower.type_vocab_size, w)
    if family.embed_norm:
        shapes |= _norm(family.embed_norm, w)
    if family.relative_bias:
        shapes[family.relative_bias] = (RELATIVE_BUCKETS, tower.num_attention_heads)
    shapes |= _layers(family.block, tower)
    if family.final_norm:
        shapes |= _norm(family.final_norm, w)
    if family.head:
        shapes |= _linear(family.head, tower.projection_size or w, w)
    return shapes


def in_tower(name: str, tower: VisionConfig | TextConfig) -> bool:
    """Whether a tensor is one of a tower's, projection apart; no prefix tells those of open_clip's text tower."""
    return name.startswith(tower.prefix) and name.removeprefix(tower.prefix) in _tower_names(tower)


@cache
def _tower_names(tower: VisionConfig | TextConfig) -> frozenset[str]:
    return frozenset(vision_shapes(tower) if isinstance(tower, VisionConfig) else text_shapes(tower))


def layer_count(names: Iterable[str], stack: str) -> int:
    """How many layers the tensors named STACK.0.…, STACK.1.… make up."""
    pattern = re.compile(re.escape(stack) + r"\.(\d{1,4})\.")
    return 1 + max((int(match[1]) for name in names if (match := pattern.match(name))), default=-1)


def _layers(block: Block, tower: VisionConfig | TextConfig) -> Shapes:
    w, m = tower.hidden_size, tower.intermediate_size
    linears = {name: (w * 3 // len(block.qkv), w) for name in block.qkv}
    linears |= {block.out: (w, w), block.down: (w, m)}
    linears |= {block.up: (2 * m, w)} if block.gate == block.up else {block.up: (m, w)}
    linears |= {block.gate: (m, w)} if block.gate not in ("", block.up) else {}
    shapes: Shapes = {}
    for i in range(tower.num_hidden_layers):
        layer = f"{block.stack}.{i}."
        for name, (out, into) in linears.items():
            shapes |= _linear(layer + name, out, into, name not in block.no_bias)
        shapes |= _norm(layer + block.norm1, w) | _norm(layer + block.norm2, w)
        shapes |= {layer + name: (w,) for name in block.scales}
    return shapes


def _linear(name: str, out: int, into: int, bias: bool = True) -> Shapes:
    stem = f"{name}_" if name.endswith("in_proj") else f"{name}."
    return {f"{stem}weight": (out, into), **({f"{stem}bias": (out,)} if bias else {})}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _projection(tower: VisionConfig | TextConfig, out: int) -> Shapes:
    weights = [name for name in tower.projection if not name.endswith(".bias")]
    hidden = tower.projection_hidden_size or (tower.hidden_size + out) // 2
    widths = [tower.hidden_size, *[hidden] * (len(weights) - 1), out]
    shapes: Shapes = {}
    for name, a, b in zip(weights, widths, widths[1:], strict=False):
        shapes[name] = (b, a) if name.endswith(".weight") else (a, b)
        if (bias := name.removesuffix(".weight") + ".bias") in tower.projection:
            shapes[bias] = (b,)
    return shapes


def init_params(config: ModelConfig, seed: int, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Initial float32 tensors, all or those of `names`: CLIP towers as in Radford et al. 2021, others N(0, 0.02)."""
    rng, shapes = np.random.default_rng(seed), tensor_shapes(config)
    return {name: _init_tensor(name, shapes[name], config, rng) for name in (shapes if names is None else names)}


def _init_tensor(name: str, shape: tuple[int, ...], config: ModelConfig, rng: np.random.Generator) -> np.ndarray:
    if name == "logit_scale":
        return np.full(shape, config.logit_scale_init_value, np.float32)
    if name == "logit_bias":
        return np.full(shape, -10, np.float32)  # Zhai et al. 2023, section 3.2
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if len(shape) == 1 and name.endswith(("weight", "lambda1")):
        return np.ones(shape, np.float32)
    return (rng.standard_normal(shape, np.float32) * _std(name, config)).astype(np.float32)


def _std(name: str, config: ModelConfig) -> float:
    for tower in (config.vision, config.text):
        if name in tower.projection:
            return tower.hidden_size**-0.5
    tower = config.vision if name.startswith(config.vision.prefix) else config.text
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

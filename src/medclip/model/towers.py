"""The towers as pure functions over arrays under the names of the family's own checkpoints.

One transformer; `families.py` says where its parts are. Weights keep PyTorch's layout (a linear layer's is
(out, in), a convolution's (out, in, h, w)), so a checkpoint is loaded and saved as it is.
b batch, t tokens, s side, w width, p projection.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from medclip.model.config import ModelConfig, TextConfig, VisionConfig
from medclip.model.families import TEXT, VISION, Block, TextFamily

Params = dict[str, jax.Array]


def encode_image(params: Params, pixels: jax.Array, config: ModelConfig) -> jax.Array:
    """Unit vectors (b, p) of normalised pixels (b, s, s, 3)."""
    return _unit(image_features(params, pixels, config))


def encode_text(params: Params, ids: jax.Array, valid: jax.Array, config: ModelConfig) -> jax.Array:
    """Unit vectors (b, p) of token ids (b, t); `valid` (b, t) is True at real tokens."""
    return _unit(text_features(params, ids, valid, config))


def image_features(params: Params, pixels: jax.Array, config: ModelConfig) -> jax.Array:
    """Projected pools (b, p) of normalised pixels (b, s, s, 3), of any length. Dosovitskiy et al. 2021."""
    tower, family = config.vision, VISION[config.vision.model_type]
    p = part(params, tower.prefix)
    x = _patches(p[f"{family.patch}.weight"], pixels) + p.get(f"{family.patch}.bias", 0)
    if family.class_token:
        head = jnp.broadcast_to(p[family.class_token].reshape(1, 1, -1), (x.shape[0], 1, x.shape[2]))
        x = jnp.concatenate([head, x], axis=1)
    x = x + p[family.position].reshape(x.shape[1:])
    if family.pre_norm:
        x = _layer_norm(p, family.pre_norm, x, tower.layer_norm_eps)
    x = _transformer(p, x, None, tower, family.block)
    if family.pool == "first":
        x = x[:, 0]
    x = _layer_norm(p, family.post_norm, x, tower.layer_norm_eps)
    if family.pool == "attention":
        x = _attention_pool(part(p, "head."), x, tower)
    if family.pooler:
        x = jnp.tanh(_linear(p, family.pooler, x))
    return _project(params, x, tower.projection)


def text_features(params: Params, ids: jax.Array, valid: jax.Array, config: ModelConfig) -> jax.Array:
    """Projected pools (b, p) of token ids (b, t), of any length; `valid` (b, t) is True at real tokens."""
    tower, family = config.text, TEXT[config.text.model_type]
    p, t = part(params, tower.prefix), ids.shape[1]
    x = p[family.token][ids]
    if family.after_padding:
        real = ids != tower.pad_token_id
        x = x + p[family.position][jnp.cumsum(real, axis=1) * real + tower.pad_token_id]
    else:
        x = x + p[family.position][:t]
    if family.types:
        x = x + p[family.types][0]
    if family.embed_norm:
        x = _layer_norm(p, family.embed_norm, x, tower.layer_norm_eps)
    mask = None if family.attends == "all" else valid[:, None, None, :]
    if family.attends == "causal":
        mask = jnp.tril(jnp.ones((t, t), bool)) & mask
    x = _transformer(p, x, mask, tower, family.block)
    if family.final_norm:
        x = _layer_norm(p, family.final_norm, x, tower.layer_norm_eps)
    x = _text_pool(x, ids, valid, tower, family)
    if family.head and not tower.pool:
        x = _linear(p, family.head, x)
        x = jnp.tanh(x) if family.tanh else x
    return _project(params, x, tower.projection)


def logits(params: Params, images: jax.Array, texts: jax.Array) -> jax.Array:
    """Scaled cosines (b, c) of unit vectors (b, p) and (c, p); SigLIP's are shifted by its bias."""
    return jnp.exp(params["logit_scale"]) * images @ texts.T + params.get("logit_bias", 0)


def part(params: Mapping[str, jax.Array], prefix: str) -> Params:
    """The tensors under a prefix, named without it."""
    return {name[len(prefix) :]: value for name, value in params.items() if name.startswith(prefix)}


def _patches(weight: jax.Array, pixels: jax.Array) -> jax.Array:
    """A convolution whose stride is its kernel is one matrix product over flattened patches."""
    b, s, _, _ = pixels.shape
    width, channels, k, _ = weight.shape
    n = s // k
    x = pixels[:, : n * k, : n * k].reshape(b, n, k, n, k, channels)
    x = x.transpose(0, 1, 3, 5, 2, 4).reshape(b, n * n, channels * k * k)
    return x @ weight.reshape(width, -1).T


def _transformer(
    p: Params, x: jax.Array, mask: jax.Array | None, tower: VisionConfig | TextConfig, block: Block
) -> jax.Array:
    eps = tower.layer_norm_eps
    # Unrolled: a scan over stacked layers halves training speed on a CPU.
    for i in range(tower.num_hidden_layers):
        layer = part(p, f"{block.stack}.{i}.")
        scales = [layer[name] for name in block.scales] or [1, 1]
        h = x if block.post_norm else _layer_norm(layer, block.norm1, x, eps)
        q, k, v = _qkv(layer, h, block.qkv, tower.num_attention_heads)
        x = x + _linear(layer, block.out, _attend(q, k, v, mask)) * scales[0]
        x = _layer_norm(layer, block.norm1, x, eps) if block.post_norm else x
        h = x if block.post_norm else _layer_norm(layer, block.norm2, x, eps)
        h = _activation(_linear(layer, block.up, h), tower.hidden_act)
        x = x + _linear(layer, block.down, h) * scales[1]
        x = _layer_norm(layer, block.norm2, x, eps) if block.post_norm else x
    return x


def _qkv(p: Params, x: jax.Array, names: tuple[str, ...], heads: int) -> list[jax.Array]:
    parts = [_linear(p, name, x) for name in names] if len(names) == 3 else jnp.split(_linear(p, names[0], x), 3, -1)
    return [y.reshape(*y.shape[:2], heads, -1) for y in parts]


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Softmax attention of (b, t, heads, d), heads joined again: (b, t, w)."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1), v)
    return mixed.reshape(*mixed.shape[:2], -1)


def _attention_pool(p: Params, x: jax.Array, tower: VisionConfig) -> jax.Array:
    """One learnt query attends to all patches, then an MLP (Zhai et al. 2022, section 2.2)."""
    probe = jnp.broadcast_to(p["probe"], (x.shape[0], 1, x.shape[2]))
    split = [jnp.split(p[f"attention.in_proj_{name}"], 3) for name in ("weight", "bias")]
    q, k, v = (
        (at @ weight.T + bias).reshape(*at.shape[:2], tower.num_attention_heads, -1)
        for at, weight, bias in zip((probe, x, x), *split, strict=True)
    )
    x = _linear(p, "attention.out_proj", _attend(q, k, v, None))
    h = _linear(p, "mlp.fc1", _layer_norm(p, "layernorm", x, tower.layer_norm_eps))
    return (x + _linear(p, "mlp.fc2", _activation(h, tower.hidden_act)))[:, 0]


def _text_pool(x: jax.Array, ids: jax.Array, valid: jax.Array, tower: TextConfig, family: TextFamily) -> jax.Array:
    pool = tower.pool or family.pool
    if pool == "first":
        return x[:, 0]
    if pool == "last":
        return x[:, -1]
    if pool == "mean":
        return (x * valid[:, :, None]).sum(axis=1) / valid.sum(axis=1, keepdims=True)
    # Configs of 2021 carry eos_token_id 2 by mistake; there the end of text is the largest id.
    end = ids if tower.eos_token_id == 2 else ids == tower.eos_token_id
    return jnp.take_along_axis(x, jnp.argmax(end, axis=1)[:, None, None], axis=1)[:, 0]


def _project(params: Params, x: jax.Array, names: tuple[str, ...]) -> jax.Array:
    for i, name in enumerate(names):
        x = jax.nn.gelu(x, approximate=False) if i else x
        x = x @ (params[name].T if name.endswith(".weight") else params[name])
    return x


def _linear(p: Params, name: str, x: jax.Array) -> jax.Array:
    at = f"{name}_" if name.endswith("in_proj") else f"{name}."
    return x @ p[f"{at}weight"].T + p[f"{at}bias"]


def _layer_norm(p: Params, name: str, x: jax.Array, eps: float) -> jax.Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + eps)
    return centred * scale * p[f"{name}.weight"] + p[f"{name}.bias"]


def _activation(x: jax.Array, name: str) -> jax.Array:
    if name == "quick_gelu":
        return x * jax.nn.sigmoid(1.702 * x)
    return jax.nn.relu(x) if name == "relu" else jax.nn.gelu(x, approximate=name != "gelu")


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

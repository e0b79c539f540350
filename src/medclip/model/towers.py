"""The towers as pure functions over arrays under the names of the family's own checkpoints.

One transformer; `families` names its parts. Weights keep PyTorch's layout (a linear layer's is (out, in), a
convolution's (out, in, h, w)), so a checkpoint is loaded and saved as it is. The computation runs in the type of the
weights; norms, softmax and unit vectors in float32.
b batch, t tokens, s side, w width, p projection, h heads.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int

from medclip.model.config import ModelConfig, TextConfig, VisionConfig
from medclip.model.families import AttentionHead, Block
from medclip.model.packing import PackedText

AnyArray = Array | np.ndarray
Params = dict[str, Float[AnyArray, "..."]]
"""Tensors by their name in the checkpoint."""


def encode_image(params: Params, pixels: Float[AnyArray, "b s s 3"], config: ModelConfig) -> Float32[Array, "b p"]:
    """Embeddings of normalized pixels."""
    return l2_normalize(project(params, image_features(params, pixels, config), config.vision))


def encode_text(
    params: Params, ids: Int[AnyArray, "b t"], valid: Bool[AnyArray, "b t"], config: ModelConfig
) -> Float32[Array, "b p"]:
    """Embeddings of token ids; `valid` is True at real tokens."""
    return l2_normalize(project(params, text_features(params, ids, valid, config), config.text))


def image_features(
    params: Params,
    pixels: Float[AnyArray, "b s s 3"],
    config: ModelConfig,
    kept_patches: Int[AnyArray, "b k"] | None = None,
    remat: bool = False,
) -> Float[AnyArray, "b w"]:
    """What the vision tower gives before its projection. Dosovitskiy et al. 2021.

    The tower sees `kept_patches` alone, if given (Li et al. 2023, FLIP). `remat` computes each layer again in the
    backward pass in place of storing its activations.
    """
    tower, family = config.vision, config.vision.family
    p = subtree(params, tower.prefix)
    x = _patches(p[f"{family.patch}.weight"], pixels) + p.get(f"{family.patch}.bias", 0)
    if family.class_token:
        head = jnp.broadcast_to(p[family.class_token].reshape(1, 1, -1), (x.shape[0], 1, x.shape[2]))
        x = jnp.concatenate([head, x], axis=1)
    x = x + p[family.position].reshape(x.shape[1:])
    if kept_patches is not None:
        if family.class_token:
            kept_patches = jnp.concatenate([jnp.zeros_like(kept_patches[:, :1]), kept_patches + 1], axis=1)
        x = jnp.take_along_axis(x, kept_patches[:, :, None], axis=1)
    if family.pre_norm:
        x = _layer_norm(p, family.pre_norm, x, tower.layer_norm_eps)
    x = _transformer(p, x, None, tower, family.block, remat)
    pool_first = family.norm_after_pool or family.pool == "first"  # of one token, the order is free
    x = _image_pool(p, x, tower) if pool_first else x
    x = _layer_norm(p, family.post_norm, x, tower.layer_norm_eps)
    x = x if pool_first else _image_pool(p, x, tower)
    if family.pooler:
        x = jnp.tanh(_linear(p, family.pooler, x))
    return x


def text_features(
    params: Params, ids: Int[AnyArray, "b t"], valid: Bool[AnyArray, "b t"], config: ModelConfig
) -> Float[AnyArray, "b w"]:
    """What the text tower gives before its projection, one caption a row; `valid` is True at real tokens."""
    tower, family = config.text, config.text.family
    p, t = subtree(params, tower.prefix), ids.shape[1]
    positions = p[family.position][:t]
    if family.after_padding:
        real = ids != tower.pad_token_id
        positions = p[family.position][jnp.cumsum(real, axis=1) * real + tower.pad_token_id]
    x = _text_states(p, ids, positions, valid[:, None, None, :], tower, False)
    return _text_head(p, _text_pool(x, ids, valid, tower), tower)


def packed_text_features(
    params: Params, texts: PackedText, config: ModelConfig, remat: bool = False
) -> Float[AnyArray, "n c w"]:
    """Features of packed captions, equal to `text_features` of the same captions one a row; `remat` as above."""
    tower, family = config.text, config.text.family
    p, (n, r, t) = subtree(params, tower.prefix), texts.ids.shape
    ids, caption, position = (x.reshape(n * r, t) for x in (texts.ids, texts.caption_index, texts.position))
    first = tower.pad_token_id + 1 if family.after_padding else 0
    mask = (caption[:, :, None] == caption[:, None, :])[:, None]
    x = _text_states(p, ids, p[family.position][position + first], mask, tower, remat)
    x = x.reshape(n, r * t, -1)
    if family.pool == "mean":
        is_part = texts.caption_index.reshape(n, 1, r * t) == jnp.arange(texts.pool_index.shape[1])[:, None]
        x = (is_part @ x) / jnp.maximum(is_part.sum(axis=2, keepdims=True), 1).astype(x.dtype)
    else:
        x = jnp.take_along_axis(x, texts.pool_index[:, :, None], axis=1)
    return _text_head(p, x, tower)


def project(
    params: Params, features: Float[AnyArray, "*b w"], tower: VisionConfig | TextConfig
) -> Float[AnyArray, "*b p"]:
    """Features of a tower in the common space."""
    x = features
    for i, name in enumerate(tower.projection):
        if name.endswith(".bias"):
            x = x + params[name]
            continue
        x = jax.nn.gelu(x, approximate=False) if i else x
        x = x @ (params[name].T if name.endswith(".weight") else params[name])
    return x


def l2_normalize(x: Float[AnyArray, "*b p"]) -> Float32[Array, "*b p"]:
    """Rows of length 1, in float32."""
    x = jnp.asarray(x, jnp.float32)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def logits(params: Params, images: Float[AnyArray, "b p"], texts: Float[AnyArray, "c p"]) -> Float[Array, "b c"]:
    """Scaled cosines of unit vectors; SigLIP's are shifted by its bias."""
    return jnp.exp(params["logit_scale"]) * images @ texts.T + params.get("logit_bias", 0)


def subtree(params: Mapping[str, AnyArray], prefix: str) -> Params:
    """The tensors under a prefix, named without it."""
    return {name[len(prefix) :]: value for name, value in params.items() if name.startswith(prefix)}


def _patches(weight: AnyArray, pixels: AnyArray) -> AnyArray:
    """A convolution whose stride is its kernel is one matrix product over flattened patches."""
    b, s, _, _ = pixels.shape
    width, channels, k, _ = weight.shape
    n = s // k
    x = pixels[:, : n * k, : n * k].reshape(b, n, k, n, k, channels)
    x = x.transpose(0, 1, 3, 5, 2, 4).reshape(b, n * n, channels * k * k)
    return x.astype(weight.dtype) @ weight.reshape(width, -1).T


def _text_states(
    p: Params,
    ids: AnyArray,
    positions: AnyArray,
    mask: AnyArray,
    tower: TextConfig,
    remat: bool,
) -> AnyArray:
    family = tower.family
    x = p[family.token][ids] + positions
    if family.types:
        x = x + p[family.types][0]
    if family.embed_norm:
        x = _layer_norm(p, family.embed_norm, x, tower.layer_norm_eps)
    if family.attends == "causal":
        mask = jnp.tril(jnp.ones((ids.shape[1],) * 2, bool)) & mask
    x = _transformer(p, x, None if family.attends == "all" else mask, tower, family.block, remat)
    return _layer_norm(p, family.final_norm, x, tower.layer_norm_eps) if family.final_norm else x


def _transformer(
    p: Params,
    x: AnyArray,
    mask: AnyArray | None,
    tower: VisionConfig | TextConfig,
    block: Block,
    remat: bool,
) -> AnyArray:
    layer = jax.checkpoint(_layer, static_argnums=(3, 4)) if remat else _layer
    # Unrolled: a scan over stacked layers halves training speed on a CPU.
    for i in range(tower.num_hidden_layers):
        x = layer(subtree(p, f"{block.stack}.{i}."), x, mask, tower, block)
    return x


def _layer(p: Params, x: AnyArray, mask: AnyArray | None, tower: VisionConfig | TextConfig, block: Block) -> AnyArray:
    eps, scales = tower.layer_norm_eps, [p[name] for name in block.scales] or [1, 1]
    h = x if block.post_norm else _layer_norm(p, block.norm1, x, eps)
    q, k, v = _qkv(p, h, block.qkv, tower.num_attention_heads)
    x = x + _linear(p, block.out, _attend(q, k, v, mask)) * scales[0]
    x = _layer_norm(p, block.norm1, x, eps) if block.post_norm else x
    h = x if block.post_norm else _layer_norm(p, block.norm2, x, eps)
    h = _activation(_linear(p, block.up, h), tower.hidden_act)
    x = x + _linear(p, block.down, h) * scales[1]
    return _layer_norm(p, block.norm2, x, eps) if block.post_norm else x


def _qkv(p: Params, x: AnyArray, names: tuple[str, ...], heads: int) -> list[AnyArray]:
    parts = [_linear(p, name, x) for name in names] if len(names) == 3 else jnp.split(_linear(p, names[0], x), 3, -1)
    return [y.reshape(*y.shape[:2], heads, -1) for y in parts]


def _attend(q: AnyArray, k: AnyArray, v: AnyArray, mask: AnyArray | None) -> AnyArray:
    """Softmax attention of (b, t, heads, d), heads joined again: (b, t, w)."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k).astype(jnp.float32) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1).astype(v.dtype), v)
    return mixed.reshape(*mixed.shape[:2], -1)


def _image_pool(p: Params, x: AnyArray, tower: VisionConfig) -> AnyArray:
    if tower.family.attention_head:
        return _attention_pool(p, tower.family.attention_head, x, tower)
    return x[:, 0] if tower.family.pool == "first" else x[:, 1 if tower.family.class_token else 0 :].mean(axis=1)


def _attention_pool(p: Params, head: AttentionHead, x: AnyArray, tower: VisionConfig) -> AnyArray:
    """One learned query attends to all patches, then an MLP (Zhai et al. 2022, section 2.2)."""
    query, keys_values = _linear(p, head.query or head.key_value, p[head.probe]), _linear(p, head.key_value, x)
    width = x.shape[-1]
    q = jnp.broadcast_to(query[..., :width], (x.shape[0], 1, width))
    q, k, v = (
        y.reshape(*y.shape[:2], tower.num_attention_heads, -1)
        for y in (q, keys_values[..., -2 * width : -width], keys_values[..., -width:])
    )
    x = _linear(p, head.out, _attend(q, k, v, None))
    h = _linear(p, head.up, _layer_norm(p, head.norm, x, tower.layer_norm_eps))
    return (x + _linear(p, head.down, _activation(h, tower.hidden_act)))[:, 0]


def _text_pool(x: AnyArray, ids: AnyArray, valid: AnyArray, tower: TextConfig) -> AnyArray:
    pool = tower.family.pool
    if pool == "first":
        return x[:, 0]
    if pool == "last":
        return x[:, -1]
    if pool == "mean":
        return (x * valid[:, :, None]).sum(axis=1) / valid.sum(axis=1, keepdims=True)
    end = ids if pool == "argmax" else ids == tower.eos_token_id
    return jnp.take_along_axis(x, jnp.argmax(end, axis=1)[:, None, None], axis=1)[:, 0]


def _text_head(p: Params, x: AnyArray, tower: TextConfig) -> AnyArray:
    if not tower.family.head:
        return x
    x = _linear(p, tower.family.head, x)
    return jnp.tanh(x) if tower.family.tanh else x


def _linear(p: Params, name: str, x: AnyArray) -> AnyArray:
    stem = f"{name}_" if name.endswith("in_proj") else f"{name}."
    return x @ p[f"{stem}weight"].T + p[f"{stem}bias"]


def _layer_norm(p: Params, name: str, x: AnyArray, eps: float) -> AnyArray:
    wide = x.astype(jnp.float32)
    centered = wide - wide.mean(axis=-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.square(centered).mean(axis=-1, keepdims=True) + eps)
    return (centered * scale * p[f"{name}.weight"] + p[f"{name}.bias"]).astype(x.dtype)


def _activation(x: AnyArray, name: str) -> AnyArray:
    if name == "quick_gelu":
        return x * jax.nn.sigmoid(1.702 * x)
    return jax.nn.relu(x) if name == "relu" else jax.nn.gelu(x, approximate=name != "gelu")

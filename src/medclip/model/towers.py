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
from medclip.model.layers import (
    AnyArray,
    Attention,
    activate,
    attend,
    layer_norm,
    linear,
    multiply,
    patch_rotation,
    relative_bias,
)
from medclip.model.packing import PackedText
from medclip.model.positions import resize_positions
from medclip.model.resnet import resnet_features

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
    backward pass; without it, what the layer's linear maps give is stored, and the rest computed again.
    """
    tower = config.vision
    if tower.stages:
        assert kept_patches is None, "a ResNet has no tokens"
        return resnet_features(subtree(params, tower.prefix), pixels, tower, remat)
    return token_features(params, image_tokens(params, pixels, config), config, kept_patches=kept_patches, remat=remat)


def image_tokens(
    params: Params, pixels: Float[AnyArray, "b s s 3"], config: ModelConfig, num_layers: int = 0
) -> Float[AnyArray, "b t w"]:
    """What the first `num_layers` layers of a ViT make of an image: its class token and registers, then its patches."""
    tower, family = config.vision, config.vision.family
    p = subtree(params, tower.prefix)
    x = _patches(p[f"{family.patch}.weight"], pixels) + p.get(f"{family.patch}.bias", 0)
    class_tokens = [p[name] for name in (family.class_token, family.distillation_token) if name]
    x = _prepend(x, *class_tokens)
    if family.position:
        positions = p[family.position].reshape(-1, x.shape[2])
        if family.position_resize:
            side = pixels.shape[1] // tower.patch_size
            positions = resize_positions(positions, len(class_tokens), side, family.position_resize)
        x = x + positions
    if family.registers:
        x = jnp.concatenate([x[:, :1], _prepend(x[:, 1:], p[family.registers])], axis=1)
    if family.pre_norm:
        x = layer_norm(p, family.pre_norm, x, tower.layer_norm_eps)
    attention = Attention(rotation=_rotation(x, p, tower))
    return _transformer(p, x, attention, tower, range(num_layers))


def token_features(
    params: Params,
    tokens: Float[AnyArray, "b t w"],
    config: ModelConfig,
    first_layer: int = 0,
    kept_patches: Int[AnyArray, "b k"] | None = None,
    remat: bool = False,
) -> Float[AnyArray, "b w"]:
    """What the layers from `first_layer` on make of the `image_tokens` before it; arguments as of `image_features`."""
    tower, family = config.vision, config.vision.family
    p, x = subtree(params, tower.prefix), tokens
    rotation = _rotation(x, p, tower)
    if kept_patches is not None:
        n = _num_first_tokens(p, tower)
        first = jnp.broadcast_to(jnp.arange(n), (len(x), n))
        x = jnp.take_along_axis(x, jnp.concatenate([first, kept_patches + n], axis=1)[:, :, None], axis=1)
        if rotation:
            rotation = jnp.asarray(rotation[0])[kept_patches], jnp.asarray(rotation[1])[kept_patches]
    x = _transformer(p, x, Attention(rotation=rotation), tower, range(first_layer, tower.num_hidden_layers), remat)
    pool_first = family.norm_after_pool or family.pool == "first"  # of one token, the order is free
    x = _image_pool(p, x, tower) if pool_first else x
    x = layer_norm(p, family.post_norm, x, tower.layer_norm_eps)
    x = x if pool_first else _image_pool(p, x, tower)
    if family.pooler:
        x = jnp.tanh(linear(p, family.pooler, x))
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
    distances = (jnp.arange(t)[None, :] - jnp.arange(t)[:, None])[None]
    x = _text_states(p, ids, positions, valid[:, None, None, :], distances, tower, False)
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
    distances = (jnp.arange(t)[None, :] - jnp.arange(t)[:, None])[None]  # a caption lies in one piece
    x = _text_states(p, ids, p[family.position][position + first], mask, distances, tower, remat)
    x = x.reshape(n, r * t, -1)
    if family.pool == "mean":
        is_part = texts.caption_index.reshape(n, 1, r * t) == jnp.arange(texts.pool_index.shape[1])[:, None]
        x = multiply(is_part, x) / jnp.maximum(is_part.sum(axis=2, keepdims=True), 1).astype(x.dtype)
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
        x = multiply(x, params[name].T if name.endswith(".weight") else params[name])
    return x


def l2_normalize(x: Float[AnyArray, "*b p"]) -> Float32[Array, "*b p"]:
    """Rows of length 1, in float32."""
    x = jnp.asarray(x, jnp.float32)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def logits(params: Params, images: Float[AnyArray, "b p"], texts: Float[AnyArray, "c p"]) -> Float[Array, "b c"]:
    """Scaled cosines of unit vectors; SigLIP's are shifted by its bias."""
    return multiply(jnp.exp(params["logit_scale"]) * images, texts.T) + params.get("logit_bias", 0)


def subtree(params: Mapping[str, AnyArray], prefix: str) -> Params:
    """The tensors under a prefix, named without it."""
    return {name[len(prefix) :]: value for name, value in params.items() if name.startswith(prefix)}


def _prepend(x: AnyArray, *tokens: AnyArray) -> AnyArray:
    """Tokens before those of every image."""
    first = [
        jnp.broadcast_to(token.reshape(1, -1, x.shape[2]), (x.shape[0], token.size // x.shape[2], x.shape[2]))
        for token in tokens
    ]
    return jnp.concatenate([*first, x], axis=1)


def _patches(weight: AnyArray, pixels: AnyArray) -> AnyArray:
    """A convolution whose stride is its kernel is one matrix product over flattened patches."""
    b, s, _, _ = pixels.shape
    width, channels, k, _ = weight.shape
    n = s // k
    x = pixels[:, : n * k, : n * k].reshape(b, n, k, n, k, channels)
    x = x.transpose(0, 1, 3, 5, 2, 4).reshape(b, n * n, channels * k * k)
    return multiply(x.astype(weight.dtype), weight.reshape(width, -1).T)


def _text_states(
    p: Params,
    ids: AnyArray,
    positions: AnyArray,
    mask: AnyArray,
    distances: AnyArray,
    tower: TextConfig,
    remat: bool,
) -> AnyArray:
    family = tower.family
    x = p[family.token][ids] + positions
    if family.types:
        x = x + p[family.types][0]
    if family.embed_norm:
        x = layer_norm(p, family.embed_norm, x, tower.layer_norm_eps)
    mask = jnp.ones_like(mask) if family.reads_padding else mask
    if family.attends in ("causal", "before"):
        mask = jnp.tril(jnp.ones((ids.shape[1],) * 2, bool)) & mask
    bias = relative_bias(p[family.relative_bias], distances) if family.relative_bias else None
    attention = Attention(None if family.attends == "all" else mask, bias)
    x = _transformer(p, x, attention, tower, range(tower.num_hidden_layers), remat)
    return layer_norm(p, family.final_norm, x, tower.layer_norm_eps) if family.final_norm else x


def _transformer(
    p: Params,
    x: AnyArray,
    attention: Attention,
    tower: VisionConfig | TextConfig,
    layers: range,
    remat: bool = False,
) -> AnyArray:
    # Attention, norms and activations take more room than time (Korthikanti et al. 2022): stored too, as JAX does by
    # default, they double the memory of a step, and take no less time even on a CPU.
    stored = None if remat else jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    layer = jax.checkpoint(_layer, static_argnums=(3, 4), policy=stored)
    block = tower.family.block
    # Unrolled: a scan over stacked layers halves training speed on a CPU.
    for i in layers:
        x = layer(subtree(p, f"{block.stack}.{i}."), x, attention, tower, block)
    return x


def _layer(p: Params, x: AnyArray, attention: Attention, tower: VisionConfig | TextConfig, block: Block) -> AnyArray:
    eps, scales = tower.layer_norm_eps, [p[name] for name in block.scales] or [1, 1]
    h = x if block.post_norm else layer_norm(p, block.norm1, x, eps)
    q, k, v = _qkv(p, h, block.qkv, tower.num_attention_heads)
    x = x + linear(p, block.out, attend(q, k, v, attention)) * scales[0]
    x = layer_norm(p, block.norm1, x, eps) if block.post_norm else x
    h = x if block.post_norm else layer_norm(p, block.norm2, x, eps)
    x = x + linear(p, block.down, _mlp_states(p, h, block, tower.hidden_act)) * scales[1]
    return layer_norm(p, block.norm2, x, eps) if block.post_norm else x


def _qkv(p: Params, x: AnyArray, names: tuple[str, ...], heads: int) -> list[AnyArray]:
    parts = [linear(p, name, x) for name in names] if len(names) == 3 else jnp.split(linear(p, names[0], x), 3, -1)
    return [y.reshape(*y.shape[:2], heads, -1) for y in parts]


def _mlp_states(p: Params, x: AnyArray, block: Block, activation: str) -> AnyArray:
    h = linear(p, block.up, x)
    if not block.gate:
        return activate(h, activation)
    gate, h = jnp.split(h, 2, axis=-1) if block.gate == block.up else (linear(p, block.gate, x), h)
    return activate(gate, activation) * h


def _num_first_tokens(p: Params, tower: VisionConfig) -> int:
    """The tokens before those of the patches: class, distillation, registers."""
    family = tower.family
    names = (family.class_token, family.distillation_token, family.registers)
    return sum(p[name].size // tower.hidden_size for name in names if name)


def _rotation(x: AnyArray, p: Params, tower: VisionConfig) -> tuple[np.ndarray, np.ndarray] | None:
    return patch_rotation(x.shape[1] - _num_first_tokens(p, tower), tower) if tower.family.rotary else None


def _image_pool(p: Params, x: AnyArray, tower: VisionConfig) -> AnyArray:
    if tower.family.attention_head:
        return _attention_pool(p, tower.family.attention_head, x, tower)
    return x[:, 0] if tower.family.pool == "first" else x[:, 1 if tower.family.class_token else 0 :].mean(axis=1)


def _attention_pool(p: Params, head: AttentionHead, x: AnyArray, tower: VisionConfig) -> AnyArray:
    """One learned query attends to all patches, then an MLP (Zhai et al. 2022, section 2.2)."""
    query, keys_values = linear(p, head.query or head.key_value, p[head.probe]), linear(p, head.key_value, x)
    width = x.shape[-1]
    q = jnp.broadcast_to(query[..., :width], (x.shape[0], 1, width))
    q, k, v = (
        y.reshape(*y.shape[:2], tower.num_attention_heads, -1)
        for y in (q, keys_values[..., -2 * width : -width], keys_values[..., -width:])
    )
    x = linear(p, head.out, attend(q, k, v, Attention()))
    h = linear(p, head.up, layer_norm(p, head.norm, x, tower.layer_norm_eps))
    return (x + linear(p, head.down, activate(h, tower.hidden_act)))[:, 0]


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
    x = linear(p, tower.family.head, x)
    return jnp.tanh(x) if tower.family.tanh else x

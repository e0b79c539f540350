"""The towers as pure functions over a nested dict of arrays under Hugging Face's tensor names.

Weights keep PyTorch's layout (a linear layer's is (out, in), a convolution's (out, in, h, w)), so a
checkpoint is loaded and saved as it is. b batch, t tokens, s side, w width, p projection.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from medclip.model.config import ModelConfig, TextConfig, VisionConfig

Params = dict[str, Any]


def encode_image(params: Params, pixels: jax.Array, config: ModelConfig) -> jax.Array:
    """Unit vectors (b, p) of normalised pixels (b, s, s, 3). Dosovitskiy et al. 2021 as in Radford et al. 2021."""
    tower, p = config.vision_config, params["vision_model"]
    x = _patches(p["embeddings"]["patch_embedding"]["weight"], pixels)
    head = jnp.broadcast_to(p["embeddings"]["class_embedding"], (x.shape[0], 1, x.shape[2]))
    x = jnp.concatenate([head, x], axis=1) + p["embeddings"]["position_embedding"]["weight"]
    x = _layer_norm(p["pre_layrnorm"], x, tower.layer_norm_eps)  # the Hub's own misspelling
    x = _transformer(p["encoder"]["layers"], x, None, tower)
    pooled = _layer_norm(p["post_layernorm"], x[:, 0], tower.layer_norm_eps)
    return _unit(pooled @ params["visual_projection"]["weight"].T)


def encode_text(params: Params, ids: jax.Array, valid: jax.Array, config: ModelConfig) -> jax.Array:
    """Unit vectors (b, p) of token ids (b, t); `valid` (b, t) is True at real tokens. Radford et al. 2021."""
    tower, p = config.text_config, params["text_model"]
    t = ids.shape[1]
    x = p["embeddings"]["token_embedding"]["weight"][ids]
    x = x + p["embeddings"]["position_embedding"]["weight"][:t]
    causal = jnp.tril(jnp.ones((t, t), bool))
    x = _transformer(p["encoder"]["layers"], x, causal & valid[:, None, None, :], tower)
    x = _layer_norm(p["final_layer_norm"], x, tower.layer_norm_eps)
    # Configs of 2021 carry eos_token_id 2 by mistake; there the end of text is the largest id.
    end = ids if tower.eos_token_id == 2 else ids == tower.eos_token_id
    pooled = jnp.take_along_axis(x, jnp.argmax(end, axis=1)[:, None, None], axis=1)[:, 0]
    return _unit(pooled @ params["text_projection"]["weight"].T)


def _patches(weight: jax.Array, pixels: jax.Array) -> jax.Array:
    """A convolution whose stride is its kernel is one matrix product over flattened patches."""
    b, s, _, _ = pixels.shape
    width, channels, k, _ = weight.shape
    n = s // k
    x = pixels[:, : n * k, : n * k].reshape(b, n, k, n, k, channels)
    x = x.transpose(0, 1, 3, 5, 2, 4).reshape(b, n * n, channels * k * k)
    return x @ weight.reshape(width, -1).T


def _transformer(layers: Params, x: jax.Array, mask: jax.Array | None, tower: VisionConfig | TextConfig) -> jax.Array:
    # Unrolled: a scan over stacked layers halves training speed on a CPU.
    for i in range(tower.num_hidden_layers):
        p = layers[str(i)]
        x = x + _attention(p["self_attn"], _layer_norm(p["layer_norm1"], x, tower.layer_norm_eps), mask, tower)
        h = _linear(p["mlp"]["fc1"], _layer_norm(p["layer_norm2"], x, tower.layer_norm_eps))
        x = x + _linear(p["mlp"]["fc2"], _activation(h, tower.hidden_act))
    return x


def _attention(p: Params, x: jax.Array, mask: jax.Array | None, tower: VisionConfig | TextConfig) -> jax.Array:
    b, t, w = x.shape
    heads = tower.num_attention_heads
    q, k, v = (_linear(p[name], x).reshape(b, t, heads, w // heads) for name in ("q_proj", "k_proj", "v_proj"))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (w // heads) ** -0.5
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores, axis=-1), v)
    return _linear(p["out_proj"], mixed.reshape(b, t, w))


def _linear(p: Params, x: jax.Array) -> jax.Array:
    return x @ p["weight"].T + p["bias"]


def _layer_norm(p: Params, x: jax.Array, eps: float) -> jax.Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + eps)
    return centred * scale * p["weight"] + p["bias"]


def _activation(x: jax.Array, name: str) -> jax.Array:
    return x * jax.nn.sigmoid(1.702 * x) if name == "quick_gelu" else jax.nn.gelu(x, approximate=False)


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)

"""The families of towers on the Hub: the tensor names of their parts, and the computation between them.

Every name is a tensor name of the family's own checkpoints without the tower's prefix, misspellings included.
`towers` computes with these names and `shapes_init` states their shapes, so a new family is a new value here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Block:
    """Names inside one layer; `stack` is the list of layers.

    `qkv` names three linear layers, or one whose rows are query, key and value in turn.
    """

    stack: str
    qkv: tuple[str, ...]
    out: str
    norm1: str
    norm2: str
    up: str
    down: str
    scales: tuple[str, ...] = ()
    """LayerScale's factors of the two branches."""
    post_norm: bool = False
    """Normalize after adding each branch (BERT), not before computing it."""


@dataclass(frozen=True)
class AttentionHead:
    """Names of the head in which one learned query attends to all patches (Zhai et al. 2022, section 2.2)."""

    probe: str
    query: str
    """The query's linear layer; "": the first third of `key_value`."""
    key_value: str
    out: str
    norm: str
    up: str
    down: str


@dataclass(frozen=True)
class VisionFamily:
    """A ViT. `defaults` are the values that its `config.json` may leave out."""

    block: Block
    patch: str
    position: str
    post_norm: str
    defaults: dict[str, Any] = field(hash=False)
    class_token: str = ""
    """Name of the class token; "" where there is none."""
    batch_axis: bool = True
    """Whether the class token is (1, 1, w) and the positions (1, n, w), or (w,) and (n, w)."""
    patch_bias: bool = True
    pre_norm: str = ""
    pool: Literal["first", "mean", "attention"] = "first"
    """The class token, the mean of the patches, or `attention_head`."""
    attention_head: AttentionHead | None = None
    norm_after_pool: bool = False
    """`post_norm` takes what was pooled, not every token."""
    pooler: str = ""
    """A linear layer and tanh after the pool."""
    unused: str = ""
    """A tensor of width w that is stored and saved but not used here: DINOv2's mask token."""


@dataclass(frozen=True)
class TextFamily:
    """A text tower. `defaults` are the values that its `config.json` may leave out."""

    block: Block
    token: str
    """The embedding of tokens: name of its weight, as of `position` and `types`."""
    position: str
    defaults: dict[str, Any] = field(hash=False)
    attends: Literal["causal", "valid", "all"]
    """To valid tokens before it, to valid tokens, or to every position, padding included (SigLIP)."""
    pool: Literal["end", "argmax", "first", "last", "mean"]
    """The first `eos_token_id`, the largest id (configs of 2021), the first or last position, or the mean of tokens."""
    types: str = ""
    embed_norm: str = ""
    final_norm: str = ""
    head: str = ""
    """A linear layer after the pool."""
    tanh: bool = False
    """Whether tanh follows `head`."""
    after_padding: bool = False
    """Positions count valid tokens from pad_token_id + 1 (RoBERTa)."""


def _clip_block(stack: str) -> Block:
    qkv = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    return Block(stack, qkv, "self_attn.out_proj", "layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2")


_VIT_QKV = tuple(f"attention.attention.{part}" for part in ("query", "key", "value"))
_BERT = Block(
    "encoder.layer",
    tuple(f"attention.self.{part}" for part in ("query", "key", "value")),
    out="attention.output.dense",
    norm1="attention.output.LayerNorm",
    norm2="output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    post_norm=True,
)
_RESBLOCK = Block("transformer.resblocks", ("attn.in_proj",), "attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj")
_BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_IMAGE = {**_BASE, "image_size": 224, "patch_size": 16}
_CLIP_TEXT = {
    **_BASE, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "vocab_size": 49408,
    "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    "pad_token_id": 1, "bos_token_id": 49406, "eos_token_id": 49407,
}  # fmt: skip
_BERT_TEXT = {
    **_BASE, "vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2, "hidden_act": "gelu",
    "layer_norm_eps": 1e-12, "pad_token_id": 0,
}  # fmt: skip
_BERT_FAMILY = TextFamily(
    _BERT,
    "embeddings.word_embeddings.weight",
    "embeddings.position_embeddings.weight",
    _BERT_TEXT,
    attends="valid",
    pool="first",
    types="embeddings.token_type_embeddings.weight",
    embed_norm="embeddings.LayerNorm",
    head="pooler.dense",
    tanh=True,
)

VISION = {
    "clip_vision_model": VisionFamily(
        _clip_block("encoder.layers"),
        "embeddings.patch_embedding",
        "embeddings.position_embedding.weight",
        "post_layernorm",
        {**_IMAGE, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
        class_token="embeddings.class_embedding",
        batch_axis=False,
        patch_bias=False,
        pre_norm="pre_layrnorm",
    ),
    "siglip_vision_model": VisionFamily(
        _clip_block("encoder.layers"),
        "embeddings.patch_embedding",
        "embeddings.position_embedding.weight",
        "post_layernorm",
        {**_IMAGE, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
        batch_axis=False,
        pool="attention",
        attention_head=AttentionHead(
            "head.probe",
            "",
            "head.attention.in_proj",
            "head.attention.out_proj",
            "head.layernorm",
            "head.mlp.fc1",
            "head.mlp.fc2",
        ),
    ),
    "vit": VisionFamily(
        Block(
            "encoder.layer",
            _VIT_QKV,
            "attention.output.dense",
            "layernorm_before",
            "layernorm_after",
            "intermediate.dense",
            "output.dense",
        ),
        "embeddings.patch_embeddings.projection",
        "embeddings.position_embeddings",
        "layernorm",
        {**_IMAGE, "hidden_act": "gelu", "layer_norm_eps": 1e-12},
        class_token="embeddings.cls_token",
        pooler="pooler.dense",
    ),
    "dinov2": VisionFamily(
        Block(
            "encoder.layer",
            _VIT_QKV,
            "attention.output.dense",
            "norm1",
            "norm2",
            "mlp.fc1",
            "mlp.fc2",
            scales=("layer_scale1.lambda1", "layer_scale2.lambda1"),
        ),
        "embeddings.patch_embeddings.projection",
        "embeddings.position_embeddings",
        "layernorm",
        {**_IMAGE, "patch_size": 14, "hidden_act": "gelu", "layer_norm_eps": 1e-6},
        class_token="embeddings.cls_token",
        unused="embeddings.mask_token",
    ),
    "timm_vit": VisionFamily(
        Block("blocks", ("attn.qkv",), "attn.proj", "norm1", "norm2", "mlp.fc1", "mlp.fc2"),
        "patch_embed.proj",
        "pos_embed",
        "norm",
        {**_IMAGE, "hidden_act": "gelu", "layer_norm_eps": 1e-6},
        class_token="cls_token",
    ),
    "open_clip_vit": VisionFamily(
        _RESBLOCK,
        "conv1",
        "positional_embedding",
        "ln_post",
        {**_IMAGE, "hidden_act": "gelu", "layer_norm_eps": 1e-5},
        class_token="class_embedding",
        batch_axis=False,
        patch_bias=False,
        pre_norm="ln_pre",
    ),
}

TEXT = {
    "clip_text_model": TextFamily(
        _clip_block("encoder.layers"),
        "embeddings.token_embedding.weight",
        "embeddings.position_embedding.weight",
        _CLIP_TEXT,
        attends="causal",
        pool="end",
        final_norm="final_layer_norm",
    ),
    "siglip_text_model": TextFamily(
        _clip_block("encoder.layers"),
        "embeddings.token_embedding.weight",
        "embeddings.position_embedding.weight",
        {**_CLIP_TEXT, **_BASE, "vocab_size": 32000, "max_position_embeddings": 64,
         "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
        attends="all",
        pool="last",
        final_norm="final_layer_norm",
        head="head",
    ),
    "bert": _BERT_FAMILY,
    "roberta": replace(
        _BERT_FAMILY,
        defaults={**_BERT_TEXT, "vocab_size": 50265, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
        after_padding=True,
    ),
    "open_clip_text": TextFamily(
        _RESBLOCK,
        "token_embedding.weight",
        "positional_embedding",
        {**_CLIP_TEXT, "hidden_act": "gelu", "pad_token_id": 0, "eos_token_id": 2},
        attends="causal",
        pool="end",
        final_norm="ln_final",
    ),
}  # fmt: skip

"""The families of towers on the Hub: the tensor names of their parts, and the computation between them.

Every name is a tensor name of the family's own checkpoints without the tower's prefix, misspellings included.
`towers` computes with these names and `shapes_init` states their shapes, so a new family is a new value here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

RELATIVE_BUCKETS = 32  # MPNet's, whatever its config says


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
    gate: str = ""
    """The other factor of a gated MLP (Shazeer 2020), which gets the activation; if it is `up`, its rows come first."""
    no_bias: tuple[str, ...] = ()
    """Those linear layers that have none."""
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
    distillation_token: str = ""
    """A second class token, which is not pooled (DeiT)."""
    registers: str = ""
    """Tokens without positions, after the class token (Darcet et al. 2024)."""
    batch_axis: bool = True
    """Whether the class token is (1, 1, w) and the positions (1, n, w), or (w,) and (n, w)."""
    rotary: bool = False
    """Whether queries and keys of patches are rotated by their place (DINOv3), in place of `position`."""
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
    """A tensor of width w that is stored and saved but not used here: DINO's mask token."""
    unused_ndim: int = 2
    position_resize: Literal["", "bicubic", "antialiased"] = ""
    """How the stored grid of positions becomes that of the pixels; "": not at all, so that the pixels must fit it."""
    image_processor: str = ""
    """The type of image processor that its folders are published with."""

    @property
    def takes_any_size(self) -> bool:
        """Whether `image_size` is but the size of the stored positions, and images may have another."""
        return bool(self.position_resize) or not self.position


@dataclass(frozen=True)
class TextFamily:
    """A text tower. `defaults` are the values that its `config.json` may leave out."""

    block: Block
    token: str
    """The embedding of tokens: name of its weight, as of `position` and `types`."""
    position: str
    defaults: dict[str, Any] = field(hash=False)
    attends: Literal["causal", "valid", "before", "all"]
    """To valid tokens before it, to valid tokens; or, padding included, to all tokens before it, to all (SigLIP)."""
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
    relative_bias: str = ""
    """What each head adds to the scores of two tokens by their distance (MPNet; Raffel et al. 2020, section 2.1)."""

    @property
    def reads_padding(self) -> bool:
        """Whether padding is part of a caption, so that its length changes the features."""
        return self.attends in ("before", "all")


def _clip_block(stack: str) -> Block:
    qkv = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    return Block(stack, qkv, "self_attn.out_proj", "layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2")


def _linears(prefix: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in names)


_VIT = Block(
    "encoder.layer",
    _linears("attention.attention", "query", "key", "value"),
    "attention.output.dense",
    "layernorm_before",
    "layernorm_after",
    "intermediate.dense",
    "output.dense",
)
_SCALES = ("layer_scale1.lambda1", "layer_scale2.lambda1")
_DINOV2 = replace(_VIT, norm1="norm1", norm2="norm2", up="mlp.fc1", down="mlp.fc2", scales=_SCALES)
_DINOV3 = Block(
    "layer",
    _linears("attention", "q_proj", "k_proj", "v_proj"),
    "attention.o_proj",
    "norm1",
    "norm2",
    "mlp.up_proj",
    "mlp.down_proj",
    scales=_SCALES,
)
_BERT = Block(
    "encoder.layer",
    _linears("attention.self", "query", "key", "value"),
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
    "pad_token_id": 1, "eos_token_id": 49407,
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
_ROBERTA_FAMILY = replace(
    _BERT_FAMILY, defaults={**_BERT_TEXT, "vocab_size": 50265, "pad_token_id": 1}, after_padding=True
)
_VIT_FAMILY = VisionFamily(
    _VIT,
    "embeddings.patch_embeddings.projection",
    "embeddings.position_embeddings",
    "layernorm",
    {**_IMAGE, "hidden_act": "gelu", "layer_norm_eps": 1e-12},
    class_token="embeddings.cls_token",
    pooler="pooler.dense",
    image_processor="ViTImageProcessor",
)
_DINOV2_FAMILY = replace(
    _VIT_FAMILY,
    block=_DINOV2,
    defaults={**_IMAGE, "patch_size": 14, "hidden_act": "gelu", "layer_norm_eps": 1e-6},
    pooler="",
    unused="embeddings.mask_token",
    position_resize="bicubic",
    image_processor="BitImageProcessor",
)
_DINOV2_REGISTERS_FAMILY = replace(
    _DINOV2_FAMILY,
    defaults={**_DINOV2_FAMILY.defaults, "patch_size": 16, "num_register_tokens": 4},
    registers="embeddings.register_tokens",
    position_resize="antialiased",
)
_DINOV3_FAMILY = replace(
    _DINOV2_REGISTERS_FAMILY,
    block=_DINOV3,
    patch="embeddings.patch_embeddings",
    position="",
    post_norm="norm",
    defaults={**_IMAGE, "hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6, "hidden_act": "gelu",
              "layer_norm_eps": 1e-5, "num_register_tokens": 0, "rope_theta": 100.0},
    rotary=True,
    unused_ndim=3,
    position_resize="",
    image_processor="DINOv3ViTImageProcessor",
)  # fmt: skip

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
        image_processor="CLIPImageProcessor",
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
        image_processor="SiglipImageProcessor",
    ),
    "vit": _VIT_FAMILY,
    "deit": replace(
        _VIT_FAMILY, distillation_token="embeddings.distillation_token", image_processor="DeiTImageProcessor"
    ),
    "dinov2": _DINOV2_FAMILY,
    "dinov2_with_registers": _DINOV2_REGISTERS_FAMILY,
    "dinov3_vit": _DINOV3_FAMILY,
    "timm_vit": VisionFamily(
        Block("blocks", ("attn.qkv",), "attn.proj", "norm1", "norm2", "mlp.fc1", "mlp.fc2"),
        "patch_embed.proj",
        "pos_embed",
        "norm",
        {**_IMAGE, "hidden_act": "gelu", "layer_norm_eps": 1e-6},
        class_token="cls_token",
    ),
    "open_clip_resnet": VisionFamily(  # the parts that are not a ViT's: `resnet`
        replace(_RESBLOCK, stack="layer"),
        "",
        "attnpool.positional_embedding",
        "",
        {**_IMAGE, "patch_size": 32, "hidden_act": "relu", "layer_norm_eps": 1e-5},
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
         "projection_size": 0, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
        attends="all",
        pool="last",
        final_norm="final_layer_norm",
        head="head",
    ),
    "bert": _BERT_FAMILY,
    "roberta": _ROBERTA_FAMILY,
    "xlm-roberta": replace(_ROBERTA_FAMILY, defaults={**_BERT_TEXT, "pad_token_id": 1}),
    "camembert": replace(_ROBERTA_FAMILY, defaults={**_BERT_TEXT, "pad_token_id": 1}),
    "mpnet": replace(
        _ROBERTA_FAMILY,
        block=replace(
            _BERT,
            qkv=_linears("attention.attn", "q", "k", "v"),
            out="attention.attn.o",
            norm1="attention.LayerNorm",
        ),
        defaults={**_BERT_TEXT, "vocab_size": 30527, "pad_token_id": 1},
        types="",
        relative_bias="encoder.relative_attention_bias.weight",
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
# sentence-transformers pools these itself, without their head.
TEXT |= {
    f"{name}-{pooling}-pooled": replace(TEXT[name], pool=pool, head="", tanh=False)
    for name in ("bert", "roberta", "xlm-roberta", "camembert", "mpnet")
    for pooling, pool in (("mean", "mean"), ("cls", "first"))
}
VISION["metaclip_2_vision_model"] = VISION["clip_vision_model"]
TEXT["metaclip_2_text_model"] = TEXT["clip_text_model"]

"""timm's ViTs as vision towers: what a name of timm fixes, and the rest from the tensors."""

from __future__ import annotations

import dataclasses
import logging
import re
from typing import NamedTuple

from medclip.errors import UserError
from medclip.model.config import VisionConfig, parse_vision
from medclip.model.families import AttentionHead
from medclip.model.shapes_init import Shapes, layer_count

LOG = logging.getLogger("medclip.model")
PREFIX = "visual.trunk."
# Width and heads by size, timm 1.0.
_SIZES = {
    "tiny": (192, 3), "xsmall": (256, 4), "small": (384, 6), "medium": (512, 8), "betwixt": (640, 10),
    "base": (768, 12), "large": (1024, 16), "huge": (1280, 16), "giant": (1408, 16), "gigantic": (1664, 16),
    "so400m": (1152, 16), "giantopt": (1536, 16),
}  # fmt: skip
_NAME = re.compile(
    rf"(?:vit|deit)_(?P<size>{'|'.join(_SIZES)})_patch\d+(?P<plus>_plus)?"
    r"(?P<variant>_clip|_clip_quickgelu|_siglip|_siglip_gap|_dinov2)?(?:_\d+)?"
)
_TANH_GELU = re.compile(r"vit_(base_patch32|giantopt_patch16|so400m_patch16)_siglip|vit_large_patch16_siglip.*_512")
_HEAD = AttentionHead(
    "attn_pool.latent",
    "attn_pool.q",
    "attn_pool.kv",
    "attn_pool.proj",
    "attn_pool.norm",
    "attn_pool.mlp.fc1",
    "attn_pool.mlp.fc2",
)
_POOLS = {"token": "first", "avg": "mean", "map": "attention"}


class TimmVit(NamedTuple):
    """What a name of timm fixes and no tensor shows."""

    name: str
    width: int
    heads: int
    hidden_act: str
    layer_norm_eps: float
    pool: str


class TimmHead(NamedTuple):
    """open_clip's options around a timm tower: `timm_pool`, `timm_proj`, `timm_proj_bias`."""

    pool: str | None
    projection: str | None
    bias: bool


def parse_name(name: str) -> TimmVit:
    """Raises UserError for an architecture of timm that is not a plain ViT."""
    bare = name.removeprefix("hf-hub:").removeprefix("timm/").split(".")[0]
    match = _NAME.fullmatch(bare)
    if not match or (match["size"], match["variant"]) == ("giant", "_dinov2"):
        raise UserError(
            f"open_clip_config.json: the vision tower {name} is not supported; of timm, the plain ViTs are, with the "
            "variants clip, siglip and dinov2."
        )
    variant = match["variant"] or ""
    width, heads = (896, 14) if match["plus"] else _SIZES[match["size"]]
    if variant == "_clip_quickgelu":
        activation = "quick_gelu"
    else:
        activation = "gelu_pytorch_tanh" if _TANH_GELU.match(bare) else "gelu"
    pool = {"_siglip": "map", "_siglip_gap": "avg"}.get(variant, "token")
    return TimmVit(name, width, heads, activation, 1e-5 if variant.startswith("_clip") else 1e-6, pool)


def parse_timm_vit(vit: TimmVit, head: TimmHead, shapes: Shapes, image_size: int, projection_dim: int) -> VisionConfig:
    """The tower whose tensors have these shapes. Raises UserError for a head that open_clip has not."""
    trunk = {name.removeprefix(PREFIX): shape for name, shape in shapes.items() if name.startswith(PREFIX)}
    width, _, patch, _ = trunk["patch_embed.proj.weight"]
    head_width = vit.width // vit.heads
    if width % head_width:
        raise UserError(f"open_clip_config.json: {vit.name} has heads of {head_width}, its tensors are {width} wide.")
    if width != vit.width:
        LOG.warning(
            "%s is %d wide in timm and %d here; heads of %d are assumed.", vit.name, vit.width, width, head_width
        )
    sizes = {
        "hidden_size": width,
        "intermediate_size": trunk["blocks.0.mlp.fc1.weight"][0],
        "num_hidden_layers": layer_count(trunk, "blocks"),
        "num_attention_heads": width // head_width,
        "patch_size": patch,
        "image_size": image_size,
        "hidden_act": vit.hidden_act,
        "layer_norm_eps": vit.layer_norm_eps,
    }
    tower = parse_vision({"model_type": "timm_vit", **sizes})
    if not head.pool and head.projection not in ("linear", "mlp"):
        raise UserError("open_clip_config.json: without timm_pool and timm_proj, nothing pools the vision tower.")
    pool = _POOLS[head.pool or vit.pool]
    after_pool = "fc_norm.weight" in trunk
    family = dataclasses.replace(
        tower.family,
        block=dataclasses.replace(
            tower.family.block, scales=("ls1.gamma", "ls2.gamma") if "blocks.0.ls1.gamma" in trunk else ()
        ),
        class_token="cls_token" if "cls_token" in trunk else "",
        patch_bias="patch_embed.proj.bias" in trunk,
        pre_norm="norm_pre" if "norm_pre.weight" in trunk else "",
        post_norm="fc_norm" if after_pool else "norm",
        norm_after_pool=after_pool,
        pool=pool,
        attention_head=_HEAD if pool == "attention" else None,
    )
    hidden = 2 * projection_dim if head.projection == "mlp" else 0
    return dataclasses.replace(
        tower, family=family, prefix=PREFIX, projection=_projection(head), projection_hidden_size=hidden
    )


def _projection(head: TimmHead) -> tuple[str, ...]:
    bias = head.bias
    match head.projection:
        case "none":
            return ()
        case "linear":
            return ("visual.head.proj.weight", *(("visual.head.proj.bias",) if bias else ()))
        case "mlp":
            first = ("visual.head.mlp.fc1.weight", "visual.head.mlp.fc1.bias", "visual.head.mlp.fc2.weight")
            return (*first, *(("visual.head.mlp.fc2.bias",) if bias else ()))
    return ("visual.trunk.head.weight", "visual.trunk.head.bias")  # the trunk's own classifier

"""DINOv2 and a BERT of transformers as one model of open_clip's, for its trainer. Runs where torch and timm are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAMES = {
    "norm1": "norm1", "norm2": "norm2", "attention.output.dense": "attn.proj", "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2", "layer_scale1.lambda1": "ls1.gamma", "layer_scale2.lambda1": "ls2.gamma",
}  # fmt: skip
"""Of a layer in transformers and of a block in timm."""


def timm_tensors(vision: Path) -> dict[str, Any]:
    """DINOv2 of transformers under timm's names."""
    import torch
    from safetensors.torch import load_file

    raw = {name.removeprefix("dinov2."): value for name, value in load_file(vision / "model.safetensors").items()}
    tensors = {
        "cls_token": raw["embeddings.cls_token"], "pos_embed": raw["embeddings.position_embeddings"],
        "patch_embed.proj.weight": raw["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": raw["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": raw["layernorm.weight"], "norm.bias": raw["layernorm.bias"],
    }  # fmt: skip
    for i in range(json.loads((vision / "config.json").read_text())["num_hidden_layers"]):
        layer, block = f"encoder.layer.{i}.", f"blocks.{i}."
        for kind in ("weight", "bias"):
            parts = [raw[f"{layer}attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            tensors[f"{block}attn.qkv.{kind}"] = torch.cat(parts)
        for name, value in raw.items():
            theirs, _, kind = name.removeprefix(layer).rpartition(".")
            if name.startswith(layer) and (target := NAMES.get(theirs) or NAMES.get(f"{theirs}.{kind}")):
                tensors[block + (target if "gamma" in target else f"{target}.{kind}")] = value
    return tensors


def towers_config(text: Path, pooler: str, width: int) -> dict[str, Any]:
    """The model in open_clip's own form, embeddings of that width."""
    texts = {"hf_model_name": str(text), "hf_tokenizer_name": str(text), "hf_proj_type": "linear",
             "hf_pooler_type": pooler, "context_length": 128}  # fmt: skip
    vision = {"timm_model_name": "vit_small_patch14_dinov2", "timm_model_pretrained": False, "timm_pool": "token",
              "timm_proj": "linear", "image_size": 224}  # fmt: skip
    return {"embed_dim": width, "vision_cfg": vision, "text_cfg": texts}


def make_towers(config: dict[str, Any], vision: Path, folder: Path) -> Any:
    """That model with DINOv2's weights and fresh projections; open_clip's trainer knows it as `towers` from now on."""
    import open_clip
    import timm
    import torch
    from timm.layers import resample_abs_pos_embed

    @timm.models.register_model
    def dinov2_small_224(
        **settings: object,
    ) -> torch.nn.Module:  # open_clip gives timm no image size, and 518 is its own
        return timm.create_model("vit_small_patch14_dinov2", img_size=224, **settings)

    sized = config["vision_cfg"] | {"timm_model_name": "dinov2_small_224"}
    (folder / "towers.json").write_text(json.dumps(config | {"vision_cfg": sized}))
    open_clip.add_model_config(folder / "towers.json")
    model: Any = open_clip.create_model("towers")
    tensors, trunk = timm_tensors(vision), model.visual.trunk
    tensors["pos_embed"] = resample_abs_pos_embed(tensors["pos_embed"], list(trunk.patch_embed.grid_size))
    trunk.load_state_dict(tensors)
    return model

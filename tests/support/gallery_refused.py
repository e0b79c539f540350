"""Folders that are refused in one sentence: architectures, adapters and files that are not read."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from support import gallery_tokenizers as tokenizers
from support.gallery_clip import clip_folder, siglip_processor
from support.gallery_peer import layout, model_folder, write_bin, write_safetensors
from support.gallery_tokenizers import write_json

SMALL = {"weight": np.zeros((2, 2), np.float32)}


def adapter(folder: Path) -> None:
    """What PEFT saves of a LoRA run over CLIP."""
    model = model_folder(folder)
    fields = {
        "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": "openai/clip-vit-base-patch32",
        "bias": "none", "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True, "lora_alpha": 32,
        "lora_dropout": 0.1, "modules_to_save": None, "peft_type": "LORA", "r": 16, "rank_pattern": {},
        "target_modules": ["q_proj", "v_proj"], "task_type": None, "use_dora": False, "use_rslora": False,
    }  # fmt: skip
    write_json(model / "adapter_config.json", fields)
    write_safetensors(SMALL, model)
    (model / "model.safetensors").rename(model / "adapter_model.safetensors")
    (model / "README.md").write_text("---\nlibrary_name: peft\n---\n")


def of_type(folder: Path, model_type: str, architecture: str, **config: Any) -> None:
    """A folder of another architecture; its weights are never read."""
    model = model_folder(folder)
    tokenizers.bert_files(model, fast=True, do_lower_case=True)
    write_json(model / "config.json", {"architectures": [architecture], "model_type": model_type, **config})
    write_json(model / "preprocessor_config.json", siglip_processor(224))
    write_safetensors(SMALL, model)


def onnx_only(folder: Path) -> None:
    model, _ = clip_folder(folder)
    (model / "onnx").mkdir()
    for name in ("model.onnx", "model_quantized.onnx", "text_model.onnx", "vision_model.onnx"):
        (model / "onnx" / name).write_bytes(b"\x08\x07\x12\x07pytorch")


def bare_checkpoint(folder: Path, file: str) -> None:
    """A state dict of a study's own training code, without a config."""
    write_bin({"vision_model.model.layers.0.weight": np.zeros((2, 2), np.float32)}, model_folder(folder), file=file)


def float8(folder: Path) -> None:
    model, tensors = clip_folder(folder)
    write_safetensors(tensors, model, "float8_e4m3fn")


TOWERS = {
    "text_config": {"model_type": "x", "hidden_size": 32},
    "vision_config": {"model_type": "x", "hidden_size": 32},
}
TEXT_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2,
              "vocab_size": 237}  # fmt: skip
LAYOUTS = (
    layout("peft-adapter", "a LoRA adapter of PEFT", "model", adapter, refused=("adapter",)),
    layout(
        "blip",
        "Salesforce/blip-itm-base-coco",
        "model",
        partial(of_type, model_type="blip", architecture="BlipForImageTextRetrieval", **TOWERS),
        refused=("blip",),
    ),
    layout(
        "align",
        "kakaobrain/align-base",
        "model",
        partial(of_type, model_type="align", architecture="AlignModel", **TOWERS),
        refused=("align",),
    ),
    layout(
        "chinese-clip",
        "OFA-Sys/chinese-clip-vit-base-patch16",
        "model",
        partial(of_type, model_type="chinese_clip", architecture="ChineseCLIPModel", **TOWERS),
        refused=("chinese_clip",),
    ),
    layout(
        "siglip2-naflex",
        "google/siglip2-base-patch16-naflex",
        "model",
        partial(of_type, model_type="siglip2", architecture="Siglip2Model", **TOWERS),
        refused=("siglip2",),
    ),
    layout("xenova-onnx", "Xenova/clip-vit-base-patch32", "model", onnx_only, refused=("ONNX",)),
    layout(
        "medclip-checkpoint",
        "RyanWangZf/MedCLIP",
        "model",
        partial(bare_checkpoint, file="pytorch_model.bin"),
        refused=("config.json",),
    ),
    layout(
        "convirt-checkpoint",
        "edreisMD/ConVIRT-pytorch",
        "model",
        partial(bare_checkpoint, file="model.pt"),
        refused=("model.pt",),
    ),
    layout("clip-float8", "CLIPModel, float8", "model", float8, refused=("float8",)),
    layout(
        "swin",
        "microsoft/swin-base-patch4-window7-224",
        "vision",
        partial(of_type, model_type="swin", architecture="SwinModel", image_size=224),
        refused=("swin",),
    ),
    layout(
        "convnext-base",
        "facebook/convnext-base-224",
        "vision",
        partial(of_type, model_type="convnext", architecture="ConvNextModel", image_size=224),
        refused=("convnext",),
    ),
    layout(
        "vit-mae",
        "facebook/vit-mae-base",
        "vision",
        partial(of_type, model_type="vit_mae", architecture="ViTMAEForPreTraining", image_size=224),
        refused=("vit_mae",),
    ),
    layout(
        "biogpt",
        "microsoft/biogpt",
        "text",
        partial(of_type, model_type="biogpt", architecture="BioGptForCausalLM", **TEXT_TOWER),
        refused=("biogpt",),
    ),
    layout(
        "distilbert",
        "distilbert/distilbert-base-uncased",
        "text",
        partial(of_type, model_type="distilbert", architecture="DistilBertForMaskedLM", **TEXT_TOWER),
        refused=("distilbert",),
    ),
    layout(
        "deberta-v3",
        "microsoft/deberta-v3-base",
        "text",
        partial(of_type, model_type="deberta-v2", architecture="DebertaV2Model", **TEXT_TOWER),
        refused=("deberta-v2",),
    ),
)

"""Layouts of open_clip and timm: narrow towers, everything else as published."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from support import gallery_tokenizers as tokenizers
from support.gallery import Layout
from support.gallery_open_clip_peer import (
    ROWS,
    embed_open_clip,
    embed_transformers_clip,
    fill,
    narrow_timm,
    write_open_clip,
)

OPENAI = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
PREPROCESS = {**OPENAI, "interpolation": "bicubic", "resize_mode": "shortest"}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
PUBMED_BERT = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"

CLIP_FILES = functools.partial(tokenizers.clip_files, whole=True)
BERT_FILES = functools.partial(
    tokenizers.bert_files, fast=True, special_map=True, do_lower_case=True, do_basic_tokenize=True, never_split=None,
    strip_accents=None, tokenize_chinese_chars=True, tokenizer_class="BertTokenizer",
    model_max_length=1000000000000000019884624838656,
)  # fmt: skip
ROBERTA_SPECIAL = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>",
                   "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"}  # fmt: skip
ROBERTA_FILES = functools.partial(
    tokenizers.roberta_files, fast=True, tokenizer_class="RobertaTokenizer", model_max_length=512, **ROBERTA_SPECIAL
)
XLM_ROBERTA_FILES = functools.partial(
    tokenizers.xlm_roberta_files, tokenizer_class="XLMRobertaTokenizer", **ROBERTA_SPECIAL
)
VIT = {"image_size": 224, "layers": 2, "width": 128, "patch_size": 32}
VIT_HUGE = {"image_size": 224, "layers": 2, "width": 160, "head_width": 80, "patch_size": 14}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2}
BERT_TEXT = {"hf_model_name": PUBMED_BERT, "hf_tokenizer_name": PUBMED_BERT, "hf_proj_type": "mlp",
             "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 256}  # fmt: skip


def _timm(name: str, pool: str, proj: str | None, size: int = 224) -> dict[str, Any]:
    return {"timm_model_name": name, "timm_model_pretrained": False, "timm_pool": pool, "timm_proj": proj,
            "image_size": size}  # fmt: skip


def _siglip(tokenizer: str, size: int = 224, arch: str = "vit_base_patch16_siglip_224", **text: Any) -> dict[str, Any]:
    return {
        "embed_dim": 128,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": _timm(arch, "map", "none", size),
        "text_cfg": {"context_length": 64, "vocab_size": ROWS, "hf_tokenizer_name": tokenizer,
                     "tokenizer_kwargs": {"clean": "canonicalize"}, "width": 128, "heads": 2, "layers": 2,
                     "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-06},
                     **text},
    }  # fmt: skip


def _clip(embed_dim: int = 64, vision: Mapping[str, Any] = VIT, **options: Any) -> dict[str, Any]:
    return {"embed_dim": embed_dim, "vision_cfg": dict(vision), "text_cfg": dict(TEXT), **options}


def _build(*arguments: Any, **options: Any) -> Callable[[Path], None]:
    return lambda folder: write_open_clip(folder / "model", *arguments, **options)


def _biomed_clip(folder: Path) -> None:
    """The .bin was saved when transformers still kept position ids among the tensors."""
    model = {"embed_dim": 64, "vision_cfg": _timm("vit_base_patch16_224", "", "linear"), "text_cfg": BERT_TEXT}
    positions = {"text.transformer.embeddings.position_ids": np.arange(512)[None]}
    write_open_clip(folder / "model", model, OPENAI, BERT_FILES, [BIN], positions)


def _both_layouts(folder: Path, safetensors: bool = True) -> None:
    """One CLIP in both layouts, as laion publishes: open_clip's files, and transformers' of the same weights."""
    import torch
    import transformers

    model, act = folder / "model", "gelu"
    write_open_clip(model, _clip(), OPENAI, CLIP_FILES, [SAFE, BIN] if safetensors else [BIN])
    vision = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 224, "patch_size": 32, "hidden_act": act, "projection_dim": 64}  # fmt: skip
    text = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
            "hidden_act": act, "projection_dim": 64, "eos_token_id": 2, "bos_token_id": 0}  # fmt: skip
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=64)
    clip = transformers.CLIPModel(config)
    clip.load_state_dict(_transformers_names(torch.load(model / BIN)))
    clip.save_pretrained(model)
    if not safetensors:
        (model / "model.safetensors").unlink()
        torch.save(clip.state_dict(), model / "pytorch_model.bin")
    processor = {"crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True, "resample": 3,
                 "feature_extractor_type": "CLIPFeatureExtractor", "size": 224,
                 "image_mean": OPENAI["mean"], "image_std": OPENAI["std"]}  # fmt: skip
    (model / "preprocessor_config.json").write_text(json.dumps(processor))


def _transformers_names(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """A native CLIP's tensors under CLIPModel's names."""
    names = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.conv1": "vision_model.embeddings.patch_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.ln_pre": "vision_model.pre_layrnorm", "visual.ln_post": "vision_model.post_layernorm",
        "visual.transformer.resblocks": "vision_model.encoder.layers",
        "token_embedding": "text_model.embeddings.token_embedding", "ln_final": "text_model.final_layer_norm",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "transformer.resblocks": "text_model.encoder.layers",
    }  # fmt: skip
    layer = {"attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2",
             "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}  # fmt: skip
    renamed: dict[str, Any] = {"logit_scale": tensors["logit_scale"]}
    renamed["visual_projection.weight"] = tensors["visual.proj"].T.contiguous()
    renamed["text_projection.weight"] = tensors["text_projection"].T.contiguous()
    for name, value in tensors.items():
        prefix = next((theirs for theirs in names if name == theirs or name.startswith(f"{theirs}.")), None)
        if prefix is None:
            continue
        name = names[prefix] + name.removeprefix(prefix)
        for theirs, ours in layer.items():
            name = name.replace(theirs, ours)
        if "in_proj_" in name:
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                renamed[name.replace("attn.in_proj_", f"self_attn.{part}_proj.")] = rows.contiguous()
        else:
            renamed[name] = value
    return renamed


def _timm_and_open_clip(folder: Path) -> None:
    """timm's config.json and its classifier-less ViT's model.safetensors beside open_clip's files of the same CLIP."""
    import timm
    from safetensors.torch import save_file

    model = folder / "model"
    write_open_clip(model, _clip(quick_gelu=True), PREPROCESS, CLIP_FILES)
    arch = "vit_base_patch32_clip_quickgelu_224"
    trunk = timm.create_model(arch, **narrow_timm(arch), num_classes=64)
    fill(trunk)
    save_file(trunk.state_dict(), model / "model.safetensors")
    pretrained = {"tag": "openai", "input_size": [3, 224, 224], "fixed_input_size": True, "crop_pct": 1.0,
                  "interpolation": "bicubic", "num_classes": 64, "pool_size": None, "first_conv": "patch_embed.proj",
                  "classifier": "head", **OPENAI}  # fmt: skip
    config = {"architecture": arch, "num_classes": 64, "num_features": 64, "global_pool": "token"}
    (model / "config.json").write_text(json.dumps({**config, "pretrained_cfg": pretrained}))


def _training_checkpoint(folder: Path) -> None:
    """What open_clip's training saves from several devices: a state dict inside a dict, its names under "module."."""
    import torch

    model = folder / "model"
    write_open_clip(model, _clip(), OPENAI, CLIP_FILES, [BIN])
    tensors = {f"module.{name}": tensor for name, tensor in torch.load(model / BIN).items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": tensors}, model / BIN)


def _transformers_config_alone(folder: Path) -> None:
    """A config.json of transformers for which the folder holds no weights; open_clip's are all that is in it."""
    _both_layouts(folder)
    (folder / "model" / "model.safetensors").unlink()


SAFE, BIN = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
_WORLDWIDE = {"hf_tokenizer_name": "facebook/xlm-v-base", "pool_type": "eos", "eos_id": 2, "context_length": 77,
              "vocab_size": ROWS, "width": 64, "heads": 4, "layers": 2}  # fmt: skip
_CLIPA_TEXT = {"context_length": 32, "vocab_size": ROWS, "hf_tokenizer_name": "bert-base-uncased",
               "tokenizer_kwargs": {"strip_sep_token": True}, "width": 64, "heads": 4, "layers": 2,
               "pool_type": "last", "no_causal_mask": True}  # fmt: skip
_CLIPA_VIT = {**VIT_HUGE, "no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True}
_XLM = {"hf_model_name": "xlm-roberta-base", "hf_tokenizer_name": "xlm-roberta-base", "hf_pooler_type": "mean_pooler"}
_ROBERTA = {"hf_model_name": "roberta-base", "hf_tokenizer_name": "roberta-base", "hf_pooler_type": "mean_pooler"}
_MT5 = {"hf_model_name": "google/mt5-base", "hf_tokenizer_name": "google/mt5-base", "hf_pooler_type": "mean_pooler"}
_NLLB = {"hf_model_name": "facebook/nllb-200-distilled-600M", "hf_tokenizer_name": "facebook/nllb-200-distilled-600M",
         "hf_proj_type": "linear", "hf_pooler_type": "cls_pooler"}  # fmt: skip
_COCA = {
    "embed_dim": 64,
    "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
    "text_cfg": {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {**TEXT, "context_length": 76, "attn_pooler_heads": 2},
    "custom_text": True,
}


def _layout(name: str, repository: str, build: Callable[[Path], None], **options: Any) -> Layout:
    return Layout(name, repository, "model", build, **{"embed": embed_open_clip, **options})


LAYOUTS = (
    _layout("biomedclip", "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", _biomed_clip),
    _layout("quilt-pubmedbert", "wisdomik/QuiltNet-B-16-PMB",
            _build({"embed_dim": 64, "vision_cfg": {**VIT, "patch_size": 16}, "text_cfg": BERT_TEXT}, OPENAI,
                   BERT_FILES, [BIN])),
    _layout("unimed-clip", "UzairK/unimed-clip-vit-b16",
            _build({"embed_dim": 64, "quick_gelu": True, "vision_cfg": {**VIT, "patch_size": 16},
                    "text_cfg": BERT_TEXT}, OPENAI, BERT_FILES, [BIN])),
    _layout("laion-b32", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K (both layouts)", _both_layouts,
            embed=embed_transformers_clip),
    _layout("laion-b32-open-clip", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K (open_clip alone)",
            _build(_clip(), OPENAI, CLIP_FILES, [SAFE, BIN])),
    _layout("laion-config-alone", "open_clip's weights beside a config.json of transformers without weights",
            _transformers_config_alone),
    _layout("quiltnet-b32", "wisdomik/QuiltNet-B-32",
            functools.partial(_both_layouts, safetensors=False), embed=embed_transformers_clip),
    _layout("openai-timm", "timm/vit_base_patch32_clip_224.openai", _timm_and_open_clip),
    _layout("metaclip", "timm/vit_base_patch32_clip_224.metaclip_400m",
            _build(_clip(quick_gelu=True), PREPROCESS, CLIP_FILES)),
    _layout("metaclip2", "timm/vit_huge_patch14_clip_224.metaclip2_worldwide",
            _build({"embed_dim": 64, "quick_gelu": True, "vision_cfg": VIT_HUGE, "text_cfg": _WORLDWIDE},
                   PREPROCESS,
                   XLM_ROBERTA_FILES)),
    _layout("laion-bigg", "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k (open_clip alone)",
            _build(_clip(vision={**VIT, "width": 208, "head_width": 104, "mlp_ratio": 4.9231, "patch_size": 14}),
                   OPENAI, CLIP_FILES, [BIN])),
    _layout("training-checkpoint", "open_clip's own training checkpoint", _training_checkpoint),
    _layout("custom-text", "open_clip's custom_text with a native tower",
            _build(_clip(custom_text=True), PREPROCESS, CLIP_FILES)),
    _layout("timm-token", "timm's class token and classifier as projection (timm_proj null)",
            _build({"embed_dim": 64, "vision_cfg": _timm("vit_base_patch16_clip_224", "token", None),
                    "text_cfg": dict(TEXT), "custom_text": True}, PREPROCESS, CLIP_FILES)),
    _layout("timm-average", "timm's average of patches with an MLP as projection",
            _build({"embed_dim": 64, "vision_cfg": _timm("vit_base_patch16_224", "avg", "mlp"),
                    "text_cfg": dict(TEXT)}, PREPROCESS, CLIP_FILES)),
    _layout("dfn", "apple/DFN2B-CLIP-ViT-B-16 (no tokenizer files)",
            _build(_clip(vision={**VIT, "patch_size": 16}, quick_gelu=True), PREPROCESS, None, [BIN]),
            tokenizer="laion-b32-open-clip"),
    _layout("datacomp", "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
            _build(_clip(vision={**VIT, "patch_size": 16}), OPENAI, CLIP_FILES, [BIN])),
    _layout("siglip-timm", "timm/ViT-B-16-SigLIP",
            _build(_siglip("timm/ViT-B-16-SigLIP"), HALF, tokenizers.open_clip_siglip_files, [SAFE, BIN])),
    _layout("siglip-so400m-timm", "timm/ViT-SO400M-14-SigLIP-384",
            _build({**_siglip("timm/ViT-B-16-SigLIP", 384, "vit_so400m_patch14_siglip_384", width=144, heads=2,
                              mlp_ratio=3.7362), "embed_dim": 144}, HALF, tokenizers.open_clip_siglip_files)),
    _layout("siglip2-so400m-timm", "timm/ViT-SO400M-14-SigLIP2",
            _build({**_siglip("timm/ViT-SO400M-14-SigLIP2", 224, "vit_so400m_patch14_siglip_224", width=144, heads=2,
                              mlp_ratio=3.7362, act_kwargs={"approximate": "tanh"}), "embed_dim": 144}, HALF,
                   tokenizers.gemma_files)),
    _layout("siglip2-timm", "timm/ViT-B-16-SigLIP2",
            _build(_siglip("timm/ViT-B-16-SigLIP2", act_kwargs={"approximate": "tanh"}), HALF,
                   tokenizers.gemma_files)),
    _layout("siglip2-b32-timm", "timm/ViT-B-32-SigLIP2-256",
            _build(_siglip("timm/ViT-B-32-SigLIP2-256", 256, "vit_base_patch32_siglip_256",
                           act_kwargs={"approximate": "tanh"}), HALF, tokenizers.gemma_files)),
    _layout("clipa", "UCSC-VLAA/ViT-H-14-CLIPA-datacomp1B",
            _build({"embed_dim": 64, "vision_cfg": _CLIPA_VIT, "text_cfg": _CLIPA_TEXT},
                   {**IMAGENET, "interpolation": "bilinear", "resize_mode": "squash"}, BERT_FILES)),
    _layout("xlm-roberta-b32", "laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k",
            _build({"embed_dim": 64, "vision_cfg": VIT, "text_cfg": _XLM}, OPENAI,
                   XLM_ROBERTA_FILES, [BIN])),
    _layout("roberta-b32", "laion/CLIP-ViT-B-32-roberta-base-laion2B-s12B-b32k",
            _build({"embed_dim": 64, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": _ROBERTA}, OPENAI,
                   ROBERTA_FILES, [BIN])),
    _layout("rn50", "timm/resnet50_clip.openai",
            _build(_clip(vision={"image_size": 224, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
                         quick_gelu=True), PREPROCESS, CLIP_FILES)),
    _layout("pmc-clip", "PMC-CLIP: RN50 and PubMedBERT",
            _build({"embed_dim": 64, "vision_cfg": {"image_size": 224, "layers": [1, 1, 1, 1], "width": 16,
                                                    "patch_size": None}, "text_cfg": BERT_TEXT}, OPENAI,
                   BERT_FILES, [BIN])),
    _layout("eva02", "timm/eva02_base_patch16_clip_224.merged2b_s8b_b131k",
            _build({"embed_dim": 64, "vision_cfg": _timm("eva02_base_patch16_clip_224", "token", None),
                    "text_cfg": dict(TEXT), "custom_text": True}, PREPROCESS, CLIP_FILES),
            refused=("eva02_base_patch16_clip_224", "not supported")),
    _layout("coca", "laion/CoCa-ViT-B-32-laion2B-s13B-b90k", _build(_COCA, OPENAI, CLIP_FILES, [BIN]),
            refused=("CoCa",)),
    _layout("convnext-open-clip", "laion/CLIP-convnext_base_w-laion2B-s13B-b82K",
            _build({"embed_dim": 64, "vision_cfg": _timm("convnext_base", "", "linear", 256),
                    "text_cfg": dict(TEXT)}, OPENAI, CLIP_FILES, [BIN]),
            refused=("convnext_base", "not supported")),
    _layout("mobileclip", "apple/MobileCLIP-S1-OpenCLIP",
            _build({"embed_dim": 64, "vision_cfg": _timm("fastvit_mci1", "avg", None, 256),
                    "text_cfg": {**TEXT, "no_causal_mask": True}, "custom_text": True},
                   {"mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear"}, CLIP_FILES, [BIN]),
            refused=("fastvit_mci1", "not supported")),
    _layout("nllb", "visheratin/nllb-clip-base-oc",
            _build({"embed_dim": 64, "vision_cfg": VIT, "text_cfg": _NLLB}, OPENAI, XLM_ROBERTA_FILES),
            refused=("nllb", "not supported")),
    _layout("mt5", "open_clip's mt5-base-ViT-B-32",
            _build({"embed_dim": 64, "vision_cfg": VIT, "text_cfg": _MT5}, OPENAI, tokenizers.open_clip_siglip_files),
            refused=("mt5", "not supported")),
)  # fmt: skip

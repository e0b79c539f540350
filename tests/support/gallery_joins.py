"""Joined towers as published: VisionTextDualEncoderModel of three ages and FlaxHybridCLIP of 2021."""

from __future__ import annotations

import shutil
from pathlib import Path

from support import gallery_tokenizers as tokenizers
from support.gallery_clip import OPENAI_PROCESSOR, clip_config
from support.gallery_peer import (
    BERT,
    HALVES,
    LEGACY,
    TINY,
    copy_beside,
    layout,
    model_folder,
    position_ids,
    tensors_of,
    write_bin,
    write_msgpack,
    write_safetensors,
)
from support.gallery_tokenizers import write_json


def join_transformers_5(folder: Path) -> None:
    """VisionTextDualEncoderModel and its processor, saved today."""
    import transformers

    files = folder / "files"
    files.mkdir(parents=True)
    size = tokenizers.bert_files(files)
    model = model_folder(folder)
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        transformers.ViTConfig(**{**TINY, "image_size": 224, "patch_size": 16}),
        transformers.BertConfig(**TINY, vocab_size=size), projection_dim=24,
    )  # fmt: skip
    made = transformers.VisionTextDualEncoderModel(config)
    made.save_pretrained(model)
    write_safetensors(tensors_of(made), model)
    image_processor = transformers.ViTImageProcessor(image_mean=HALVES, image_std=HALVES)
    tokenizer = transformers.BertTokenizer.from_pretrained(files)
    transformers.VisionTextDualEncoderProcessor(image_processor, tokenizer).save_pretrained(model)
    shutil.rmtree(files)


def clip_italian(folder: Path) -> None:
    """CLIP's vision tower and BERT in .bin of 2022, where the tower repeats its name."""
    import transformers

    model = model_folder(folder)
    fields = {"do_lower_case": False, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    size = tokenizers.bert_files(model, cased=True, fast=True, special_map=True, **fields)
    clip = clip_config(size)
    write_json(
        model / "config.json",
        {
            "_name_or_path": "clip-italian/clip-italian", "architectures": ["VisionTextDualEncoderModel"],
            "logit_scale_init_value": 2.6592, "model_type": "vision-text-dual-encoder", "projection_dim": 24,
            "text_config": {**LEGACY, **BERT, "vocab_size": size, "architectures": ["BertForMaskedLM"]},
            "torch_dtype": "float32", "transformers_version": None, "vision_config": clip["vision_config"],
        },
    )  # fmt: skip
    write_json(model / "preprocessor_config.json", OPENAI_PROCESSOR)
    tensors = tensors_of(transformers.VisionTextDualEncoderModel(transformers.AutoConfig.from_pretrained(model)))
    write_bin(position_ids({_name_of_2022(name): value for name, value in tensors.items()}), model)
    write_safetensors(tensors, copy_beside(folder, "*.bin"))


def _name_of_2022(name: str) -> str:
    name = name.replace("vision_model.vision_model.", "vision_model.")
    return name.replace("vision_model.", "vision_model.vision_model.", 1)


def hybrid_clip(folder: Path) -> None:
    """FlaxHybridCLIP of 2021: msgpack and config, nothing else; the peer gets a VisionTextDualEncoderModel."""
    import transformers

    model = model_folder(folder)
    size = len(tokenizers.bert_vocabulary())
    text = {**LEGACY, **BERT, "vocab_size": size, "architectures": None}
    vision = clip_config(size)["vision_config"]
    write_json(
        model / "config.json",
        {"architectures": ["HybridCLIP"], "initializer_factor": 1.0, "model_type": "hybrid-clip", "projection_dim": 24,
         "seed": 42, "text_config": text, "transformers_version": None, "vision_config": vision},
    )  # fmt: skip
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        transformers.CLIPVisionConfig(**{**TINY, "image_size": 224, "patch_size": 32}),
        transformers.BertConfig(**{**BERT, "vocab_size": size}), projection_dim=24,
    )  # fmt: skip
    made = transformers.VisionTextDualEncoderModel(config)
    tensors = tensors_of(made)
    write_msgpack(tensors, model, towers_twice=True)
    peer = folder / "peer"
    made.save_pretrained(peer)
    write_safetensors(tensors, peer)
    tokenizers.bert_files(peer, tokenizer_class="BertTokenizer")
    write_json(peer / "preprocessor_config.json", OPENAI_PROCESSOR)


LAYOUTS = (
    layout("join-transformers-5", "VisionTextDualEncoderModel saved by transformers 5", "model", join_transformers_5),
    layout("clip-italian", "clip-italian/clip-italian", "model", clip_italian),
    layout("medclip-roco", "flax-community/medclip-roco", "model", hybrid_clip, tokenizer="scibert"),
)

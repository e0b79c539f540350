"""Vision towers as published: ViT and its successors."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from support.gallery_peer import (
    HALVES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    TINY,
    layout,
    model_folder,
    tensors_of,
    write_bin,
    write_safetensors,
)
from support.gallery_tokenizers import write_json


def dinov2_config(**fields: Any) -> dict[str, Any]:
    return {
        "apply_layernorm": True, "architectures": ["Dinov2Model"], "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.0, "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "hidden_size": 32, "image_size": 518,
        "initializer_range": 0.02, "layer_norm_eps": 1e-06, "layerscale_value": 1.0, "mlp_ratio": 4,
        "model_type": "dinov2", "num_attention_heads": 4, "num_channels": 3, "num_hidden_layers": 2,
        "out_features": ["stage2"], "out_indices": [2], "patch_size": 14, "qkv_bias": True,
        "reshape_hidden_states": True, "stage_names": ["stem", "stage1", "stage2"], "torch_dtype": "float32",
        "transformers_version": "4.32.0.dev0", "use_swiglu_ffn": False,
    } | fields  # fmt: skip


def bit_processor(size: int = 256, crop: int = 224, **fields: Any) -> dict[str, Any]:
    return {
        "crop_size": {"height": crop, "width": crop}, "do_center_crop": True, "do_convert_rgb": True,
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": IMAGENET_MEAN,
        "image_processor_type": "BitImageProcessor", "image_std": IMAGENET_STD, "resample": 3,
        "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": size},
    } | fields  # fmt: skip


def vision_folder(folder: Path, config: dict[str, Any], processor: dict[str, Any]) -> None:
    """A tower in safetensors."""
    import transformers

    model = model_folder(folder)
    write_json(model / "config.json", config)
    write_json(model / "preprocessor_config.json", processor)
    kind = getattr(transformers, config["architectures"][0])
    write_safetensors(tensors_of(kind(kind.config_class.from_dict(config))), model)


def vit_bin(folder: Path) -> None:
    """ViT with its pooler, as bin: the processor states no filter."""
    import transformers

    model = model_folder(folder)
    config = {
        "_name_or_path": "google/vit-base-patch16-224-in21k", "architectures": ["ViTModel"],
        "attention_probs_dropout_prob": 0.0, "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "image_size": 224,
        "initializer_range": 0.02, "layer_norm_eps": 1e-12, "model_type": "vit", "num_channels": 3, "patch_size": 16,
        "qkv_bias": True, "transformers_version": "4.13.0.dev0", **TINY,
    }  # fmt: skip
    write_json(model / "config.json", config)
    processor = {"do_normalize": True, "do_resize": True, "image_mean": HALVES, "image_std": HALVES, "size": 224}
    write_json(model / "preprocessor_config.json", processor)
    write_bin(tensors_of(transformers.ViTModel(transformers.ViTConfig.from_dict(config))), model)


def deit(folder: Path, **fields: Any) -> None:
    """A classifier without a pooler; images are squashed to 256 x 256, then cropped."""

    config = {
        "architectures": ["ViTForImageClassification"], "attention_probs_dropout_prob": 0.0, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0, "id2label": {"0": "tench", "1": "goldfish"}, "image_size": 224,
        "initializer_range": 0.02, "label2id": {"goldfish": 1, "tench": 0}, "layer_norm_eps": 1e-12,
        "model_type": "vit", "num_channels": 3, "patch_size": 16, "qkv_bias": True, "torch_dtype": "float32",
        "transformers_version": "4.22.0", **TINY,
    }  # fmt: skip
    processor = {
        "crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "DeiTFeatureExtractor", "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD,
        "resample": 3, "size": 256,
    }  # fmt: skip
    vision_folder(folder, config | fields, processor)


def deit_distilled(folder: Path) -> None:
    """A second token beside the class token."""
    deit(folder, architectures=["DeiTForImageClassificationWithTeacher"], model_type="deit")


def vit_classifier(folder: Path) -> None:
    """Safetensors of a classifier without a pooler."""
    config = {
        "_name_or_path": "google/vit-base-patch16-224", "architectures": ["ViTForImageClassification"],
        "attention_probs_dropout_prob": 0.0, "encoder_stride": 16, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
        "id2label": {"0": "tench", "1": "goldfish"}, "image_size": 224, "initializer_range": 0.02,
        "label2id": {"goldfish": 1, "tench": 0}, "layer_norm_eps": 1e-12, "model_type": "vit", "num_channels": 3,
        "patch_size": 16, "qkv_bias": True, "transformers_version": "4.13.0.dev0", **TINY,
    }  # fmt: skip
    processor = {
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": HALVES,
        "image_processor_type": "ViTFeatureExtractor", "image_std": HALVES, "resample": 2,
        "rescale_factor": 0.00392156862745098, "size": {"height": 224, "width": 224},
    }  # fmt: skip
    vision_folder(folder, config, processor)


def dinov3_config(**fields: Any) -> dict[str, Any]:
    return {
        "architectures": ["DINOv3ViTModel"], "attention_dropout": 0.0, "drop_path_rate": 0.0, "hidden_act": "gelu",
        "hidden_size": 32, "image_size": 224, "initializer_range": 0.02, "intermediate_size": 48, "key_bias": False,
        "layer_norm_eps": 1e-05, "layerscale_value": 1.0, "mlp_bias": True, "model_type": "dinov3_vit",
        "num_attention_heads": 2, "num_channels": 3, "num_hidden_layers": 2, "num_register_tokens": 4,
        "patch_size": 16, "pos_embed_jitter": None, "pos_embed_rescale": 2.0, "pos_embed_shift": None,
        "proj_bias": True, "query_bias": True, "rope_theta": 100.0, "torch_dtype": "float32",
        "transformers_version": "4.56.0.dev0", "use_gated_mlp": False, "value_bias": True,
    } | fields  # fmt: skip


DINOV3_PROCESSOR = {
    "crop_size": None, "data_format": "channels_first", "default_to_square": True, "device": None,
    "disable_grouping": None, "do_center_crop": None, "do_convert_rgb": None, "do_normalize": True,
    "do_rescale": True, "do_resize": True, "image_mean": IMAGENET_MEAN,
    "image_processor_type": "DINOv3ViTImageProcessorFast", "image_std": IMAGENET_STD, "input_data_format": None,
    "resample": 2, "rescale_factor": 0.00392156862745098, "return_tensors": None,
    "size": {"height": 224, "width": 224},
}  # fmt: skip
RAD_DINO_PROCESSOR = bit_processor(518, 518, image_mean=[0.5307] * 3, image_std=[0.2583] * 3)
BICUBIC = {"image_tolerance": 5e-6, "reason": "positions are interpolated in another order of additions"}

REGISTERS = {"model_type": "dinov2_with_registers", "architectures": ["Dinov2WithRegistersModel"],
             "num_register_tokens": 4, "interpolate_antialias": True, "interpolate_offset": 0.0}  # fmt: skip


LAYOUTS = (
    layout(
        "dinov2-small",
        "facebook/dinov2-small",
        "vision",
        partial(vision_folder, config=dinov2_config(), processor=bit_processor()),
        **BICUBIC,
    ),
    layout(
        "dinov2-base",
        "facebook/dinov2-base",
        "vision",
        partial(vision_folder, config=dinov2_config(hidden_size=48, num_attention_heads=6), processor=bit_processor()),
        **BICUBIC,
    ),
    layout(
        "dinov2-giant",
        "facebook/dinov2-giant",
        "vision",
        partial(vision_folder, config=dinov2_config(hidden_size=48, use_swiglu_ffn=True), processor=bit_processor()),
        **BICUBIC,
    ),
    layout(
        "dinov2-registers",
        "facebook/dinov2-with-registers-small",
        "vision",
        partial(vision_folder, config=dinov2_config(**REGISTERS), processor=bit_processor()),
        **BICUBIC,
    ),
    layout(
        "rad-dino",
        "microsoft/rad-dino",
        "vision",
        partial(vision_folder, config=dinov2_config(), processor=RAD_DINO_PROCESSOR),
    ),
    layout(
        "rad-dino-maira-2",
        "microsoft/rad-dino-maira-2",
        "vision",
        partial(
            vision_folder,
            config=dinov2_config(hidden_size=48, transformers_version="4.42.4"),
            processor=RAD_DINO_PROCESSOR | {"_valid_processor_keys": ["images", "do_resize", "size"]},
        ),
    ),
    layout(
        "dinov3-s16",
        "facebook/dinov3-vits16-pretrain-lvd1689m",
        "vision",
        partial(vision_folder, config=dinov3_config(), processor=DINOV3_PROCESSOR),
    ),
    layout(
        "dinov3-h16plus",
        "facebook/dinov3-vith16plus-pretrain-lvd1689m",
        "vision",
        partial(
            vision_folder,
            config=dinov3_config(hidden_act="silu", use_gated_mlp=True, key_bias=False),
            processor=DINOV3_PROCESSOR,
        ),
    ),
    layout("vit-in21k", "google/vit-base-patch16-224-in21k", "vision", vit_bin),
    layout("vit-b16", "google/vit-base-patch16-224", "vision", vit_classifier, pooler=False),
    layout("deit-base", "facebook/deit-base-patch16-224", "vision", deit, pooler=False),
    layout("deit-distilled", "facebook/deit-base-distilled-patch16-224", "vision", deit_distilled, pooler=False),
)

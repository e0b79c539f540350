"""Dual encoders as published: CLIP and SigLIP in every form of file, and joined towers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from support import gallery_tokenizers as tokenizers
from support.gallery import example_weight
from support.gallery_peer import (
    CLIP_MEAN,
    CLIP_STD,
    HALVES,
    LEGACY,
    TINY,
    Tensors,
    copy_beside,
    embed_side,
    layout,
    model_folder,
    position_ids,
    published_names,
    tensors_of,
    write_bin,
    write_msgpack,
    write_safetensors,
    write_shards,
)
from support.gallery_tokenizers import write_json

OPENAI_PROCESSOR = {
    "crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
    "resample": 3, "size": 224,
}  # fmt: skip


def clip_config(vocab_size: int, side: int = 224, patch: int = 32, act: str = "quick_gelu", **text: Any) -> dict:
    return {
        "_name_or_path": "openai/clip-vit-base-patch32", "architectures": ["CLIPModel"], "initializer_factor": 1.0,
        "logit_scale_init_value": 2.6592, "model_type": "clip", "projection_dim": 24,
        "text_config": {**LEGACY, "_name_or_path": "", "architectures": None, "attention_dropout": 0.0,
                        "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2, "hidden_act": act,
                        "initializer_factor": 1.0, "initializer_range": 0.02, "layer_norm_eps": 1e-05,
                        "max_position_embeddings": 77, "model_type": "clip_text_model", "pad_token_id": 1,
                        "vocab_size": vocab_size, **TINY, "intermediate_size": 56} | text,
        "text_config_dict": None, "torch_dtype": "float32", "transformers_version": None,
        "vision_config": {**LEGACY, "_name_or_path": "", "architectures": None, "attention_dropout": 0.0,
                          "bos_token_id": None, "dropout": 0.0, "eos_token_id": None, "hidden_act": act,
                          "image_size": side, "initializer_factor": 1.0, "initializer_range": 0.02,
                          "layer_norm_eps": 1e-05, "model_type": "clip_vision_model", "pad_token_id": None,
                          "patch_size": patch, **TINY},
        "vision_config_dict": None,
    }  # fmt: skip


def clip_tensors(config: dict) -> Tensors:
    import transformers

    return tensors_of(transformers.CLIPModel(transformers.CLIPConfig.from_dict(config)))


def clip_folder(
    folder: Path, side: int = 224, patch: int = 32, act: str = "quick_gelu", processor: dict | None = None,
    slow: bool = True, **text: Any,
) -> tuple[Path, Tensors]:  # fmt: skip
    """Everything but the weights, which are returned."""
    model = model_folder(folder)
    config = clip_config(tokenizers.clip_files(model, slow=slow), side, patch, act, **text)
    write_json(model / "config.json", config)
    write_json(model / "preprocessor_config.json", processor or OPENAI_PROCESSOR | {"size": side, "crop_size": side})
    return model, clip_tensors(config)


def clip_bin(folder: Path, patch: int, **fields: Any) -> None:
    model, tensors = clip_folder(folder, patch=patch, **fields)
    write_bin(position_ids(tensors), model)


def clip_336(folder: Path) -> None:
    model, tensors = clip_folder(folder, 336, 14)
    write_safetensors(position_ids(tensors), model)


def clip_laion(folder: Path) -> None:
    """The weights lie there four times: both libraries' layouts, as safetensors and as pickles."""
    model, tensors = clip_folder(folder, act="gelu")
    write_safetensors(tensors, model)
    write_bin(position_ids(tensors), model)
    other = open_clip_tensors(tensors)
    write_bin(other, model, file="open_clip_pytorch_model.bin")
    (model / "open_clip").mkdir()
    write_safetensors(other, model / "open_clip")
    (model / "open_clip" / "model.safetensors").rename(model / "open_clip_model.safetensors")
    (model / "open_clip").rmdir()
    write_json(
        model / "open_clip_config.json",
        {
            "model_cfg": {
                "embed_dim": 24,
                "vision_cfg": {"image_size": 224, "layers": 2, "width": 32, "head_width": 8, "mlp_ratio": 1.5,
                               "patch_size": 32},
                "text_cfg": {"context_length": 77, "vocab_size": len(other["token_embedding.weight"]),
                             "width": 32, "heads": 4, "layers": 2, "mlp_ratio": 1.75},
            },
            "preprocess_cfg": {"mean": CLIP_MEAN, "std": CLIP_STD},
        },
    )  # fmt: skip


def open_clip_tensors(tensors: Tensors) -> Tensors:
    """A CLIPModel's weights under open_clip's names."""
    names = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    }
    parts = {
        "text_model.final_layer_norm": "ln_final", "vision_model.pre_layrnorm": "visual.ln_pre",
        "vision_model.post_layernorm": "visual.ln_post", "text_model.encoder.layers": "transformer.resblocks",
        "vision_model.encoder.layers": "visual.transformer.resblocks", "layer_norm": "ln_", "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj",
    }  # fmt: skip
    out = {"logit_scale": tensors["logit_scale"]}
    out["visual.proj"] = tensors["visual_projection.weight"].T.copy()
    out["text_projection"] = tensors["text_projection.weight"].T.copy()
    for name, value in tensors.items():
        if name in names:
            out[names[name]] = value
        elif "q_proj" in name:
            merged = np.concatenate([tensors[name.replace("q_proj", f"{x}_proj")] for x in "qkv"])
            new = name.replace("self_attn.q_proj.", "attn.in_proj_")
            out[_rename(new, parts)] = merged
        elif not any(part in name for part in ("k_proj", "v_proj", "projection", "logit_scale")):
            out[_rename(name, parts)] = value
    return out


def _rename(name: str, parts: dict[str, str]) -> str:
    for ours, theirs in parts.items():
        name = name.replace(ours, theirs)
    return name


def metaclip_2(folder: Path) -> None:
    """CLIP's towers over XLM-V's vocabulary, pooled at its `</s>`."""
    import transformers

    model = model_folder(folder)
    size = tokenizers.xlm_roberta_files(model, model_max_length=77, tokenizer_class="XLMRobertaTokenizer")
    raw = clip_config(size, 224, 14, bos_token_id=0, eos_token_id=2, model_type="metaclip_2_text_model")
    raw["vision_config"]["model_type"] = "metaclip_2_vision_model"
    raw |= {"_name_or_path": "", "architectures": ["MetaClip2Model"], "model_type": "metaclip_2"}
    write_json(model / "config.json", raw)
    write_json(model / "preprocessor_config.json", PUBMED_PROCESSOR)
    made = transformers.MetaClip2Model(transformers.MetaClip2Config.from_dict(raw))
    write_safetensors(tensors_of(made), model)


def clip_transformers_5(folder: Path, sharded: str = "") -> None:
    """What save_pretrained of model and processor writes today: processor_config.json and no slow tokenizer."""
    import transformers

    with_files = folder / "files"
    with_files.mkdir(parents=True)
    size = tokenizers.clip_files(with_files)
    model = model_folder(folder)
    ends = {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
    text, vision = {**TINY, "vocab_size": size, **ends}, {**TINY, "image_size": 224, "patch_size": 32}
    made = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    made.save_pretrained(model)
    write_safetensors(tensors_of(made), model)
    processor = transformers.CLIPProcessor(
        transformers.CLIPImageProcessor(), transformers.CLIPTokenizer.from_pretrained(with_files)
    )
    processor.save_pretrained(model)
    shutil.rmtree(with_files)


def clip_trainer(folder: Path) -> None:
    """What transformers 4's Trainer left: processors in two files, and pickles that hold no weights."""
    import torch

    model, tensors = clip_folder(folder, processor=PUBMED_PROCESSOR)
    write_bin(position_ids(tensors), model)
    write_json(model / "processor_config.json", {"processor_class": "CLIPProcessor"})
    torch.save({"lr": 5e-5}, model / "training_args.bin")
    torch.save({"state": {}, "param_groups": []}, model / "optimizer.pt")
    torch.save({"python": (3, (1, 2), None)}, model / "rng_state.pth")


def clip_slow(folder: Path) -> None:
    """Vocabulary and merges alone, and no config of the tokenizer."""
    model, tensors = clip_folder(folder)
    for name in ("tokenizer.json", "special_tokens_map.json"):
        (model / name).unlink()
    write_safetensors(tensors, model)


def clip_sharded(folder: Path, kind: str) -> None:
    model, tensors = clip_folder(folder)
    write_shards(tensors, model, kind)


def clip_half(folder: Path, dtype: str) -> None:
    model, tensors = clip_folder(folder)
    write_safetensors(tensors, model, dtype)
    config = json.loads((model / "config.json").read_text())
    write_json(model / "config.json", config | {"torch_dtype": dtype})


def clip_flax(folder: Path) -> None:
    """Both msgpack and bin, of the same weights."""
    model, tensors = clip_folder(folder)
    write_bin(position_ids(tensors), model)
    write_msgpack(tensors, model)


def clip_flax_only(folder: Path) -> None:
    model, tensors = clip_folder(folder)
    write_msgpack(tensors, model)
    peer = copy_beside(folder, "*.msgpack")
    write_safetensors(tensors, peer)


PUBMED_PROCESSOR = OPENAI_PROCESSOR | {
    "crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 224}, "do_convert_rgb": True,
    "do_rescale": True, "rescale_factor": 0.00392156862745098, "image_processor_type": "CLIPImageProcessor",
}  # fmt: skip


def clip_vision(folder: Path) -> None:
    """CLIP's vision tower as a model of its own."""
    import transformers

    model = model_folder(folder)
    config = {**clip_config(100)["vision_config"], "architectures": ["CLIPVisionModel"]}
    write_json(model / "config.json", config)
    write_json(model / "preprocessor_config.json", PUBMED_PROCESSOR)
    shapes = published_names(transformers.CLIPVisionModel(transformers.CLIPVisionConfig.from_dict(config)))
    names = {f"vision_model.{name}": shape for name, shape in shapes.items()}
    write_safetensors({name: example_weight(name, shape) for name, shape in names.items()}, model)


def siglip_processor(side: int, **fields: Any) -> dict[str, Any]:
    return {
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": HALVES,
        "image_processor_type": "SiglipImageProcessor", "image_std": HALVES, "processor_class": "SiglipProcessor",
        "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"height": side, "width": side},
    } | fields  # fmt: skip


def siglip_config(vocab_size: int, side: int, patch: int, tower: dict | None = None, **text: Any) -> dict[str, Any]:
    tower = tower or TINY
    return {
        "architectures": ["SiglipModel"], "initializer_factor": 1.0, "model_type": "siglip",
        "text_config": {"model_type": "siglip_text_model", **tower, "vocab_size": vocab_size} | text,
        "torch_dtype": "float32", "transformers_version": "4.37.0.dev0",
        "vision_config": {"model_type": "siglip_vision_model", **tower, "image_size": side, "patch_size": patch},
    }  # fmt: skip


def siglip_folder(
    folder: Path, side: int = 224, patch: int = 16, files: Callable[[Path], int] = tokenizers.siglip_files,
    tower: dict | None = None, processor: dict | None = None, **text: Any,
) -> None:  # fmt: skip
    import transformers

    model = model_folder(folder)
    tower = tower or TINY
    config = siglip_config(files(model), side, patch, tower, projection_size=tower["hidden_size"], **text)
    write_json(model / "config.json", config)
    write_json(model / "preprocessor_config.json", siglip_processor(side, **(processor or {})))
    made = transformers.SiglipModel(transformers.SiglipConfig.from_dict(config))
    write_safetensors(tensors_of(made), model)


def siglip_transformers_5(folder: Path) -> None:
    import transformers

    siglip_folder(folder / "old")
    old, model = folder / "old" / "model", folder / "model"
    made = transformers.SiglipModel.from_pretrained(old)
    made.save_pretrained(model)
    transformers.AutoProcessor.from_pretrained(old).save_pretrained(model)
    shutil.rmtree(folder / "old")


SO400M = {"hidden_size": 36, "intermediate_size": 54, "num_hidden_layers": 2, "num_attention_heads": 2}


HALF_SAVED = {"do_convert_rgb": None, "resample": 2}
LAYOUTS = (
    layout("openai-clip-b32", "openai/clip-vit-base-patch32", "model", partial(clip_bin, patch=32)),
    layout("openai-clip-b16", "openai/clip-vit-base-patch16", "model", partial(clip_bin, patch=16)),
    layout("openai-clip-l14-336", "openai/clip-vit-large-patch14-336", "model", clip_336),
    layout("laion-clip-b32", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "model", clip_laion),
    layout(
        "pubmed-clip",
        "flaviagiammarino/pubmed-clip-vit-base-patch32",
        "model",
        partial(clip_bin, patch=32, processor=PUBMED_PROCESSOR),
    ),
    layout("plip", "vinid/plip", "model", partial(clip_bin, patch=32, processor=PUBMED_PROCESSOR, slow=True)),
    layout("clip-trainer", "CLIPModel saved by Trainer, with its states", "model", clip_trainer),
    layout("clip-slow-tokenizer", "CLIPModel with vocab.json and merges.txt alone", "model", clip_slow),
    layout("clip-transformers-5", "CLIPModel saved by transformers 5", "model", clip_transformers_5),
    layout(
        "clip-sharded-safetensors", "CLIPModel, safetensors shards", "model", partial(clip_sharded, kind="safetensors")
    ),
    layout("clip-sharded-bin", "CLIPModel, bin shards", "model", partial(clip_sharded, kind="bin")),
    layout("clip-float16", "CLIPModel, float16", "model", partial(clip_half, dtype="float16")),
    layout("clip-bfloat16", "CLIPModel, bfloat16", "model", partial(clip_half, dtype="bfloat16")),
    layout("clip-rsicd", "flax-community/clip-rsicd-v2", "model", clip_flax),
    layout("clip-flax-only", "FlaxCLIPModel, msgpack alone", "model", clip_flax_only),
    layout("metaclip-2", "facebook/metaclip-2-worldwide-huge-quickgelu", "model", metaclip_2),
    layout("siglip-b16", "google/siglip-base-patch16-224", "model", siglip_folder),
    layout("siglip-transformers-5", "SiglipModel saved by transformers 5", "model", siglip_transformers_5),
    layout(
        "medsiglip-448",
        "google/medsiglip-448",
        "model",
        partial(siglip_folder, side=448, patch=14, tower=SO400M, processor=HALF_SAVED),
    ),
    layout(
        "siglip2-b16",
        "google/siglip2-base-patch16-224",
        "model",
        partial(siglip_folder, files=tokenizers.gemma_files, processor=HALF_SAVED),
    ),
    layout(
        "siglip2-b16-lowercase",
        "google/siglip2-base-patch16-224 with Siglip2Tokenizer",
        "model",
        partial(
            siglip_folder,
            files=partial(tokenizers.gemma_files, tokenizer_class="Siglip2Tokenizer"),
            processor=HALF_SAVED,
        ),
    ),
    layout(
        "clip-as-vision",
        "openai/clip-vit-base-patch32 as a vision tower",
        "vision",
        partial(clip_bin, patch=32),
        embed=partial(embed_side, side="vision"),
    ),
    layout("clip-vision-model", "CLIPVisionModel alone", "vision", clip_vision),
    layout(
        "clip-as-text",
        "openai/clip-vit-base-patch32 as a text tower",
        "text",
        partial(clip_bin, patch=32),
        embed=partial(embed_side, side="text"),
    ),
    layout(
        "siglip-as-vision",
        "google/siglip-base-patch16-224 as a vision tower",
        "vision",
        siglip_folder,
        embed=partial(embed_side, side="vision"),
    ),
    layout(
        "siglip-as-text", "google/siglip-base-patch16-224 as a text tower", "text", siglip_folder, refused=("siglip",)
    ),
)

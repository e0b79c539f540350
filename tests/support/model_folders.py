"""Model folders of every layout, made by rules of the tests' own, and what is asked of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from medclip.encode.encoder import embed_pixels, embed_texts
from medclip.errors import UserError
from medclip.model.checkpoint import Model, load
from medclip.model.config import parse_config
from medclip.model.shapes_init import init_params
from medclip.model.tokenizer.text_tokenizer import save_tokenizer, train_tokenizer
from support.references import CAPTIONS, FOLDER, WIDTH

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
CLOSE = 2e-6


def dual_encoder(vision: str, text: str, seed: int = 0) -> Model:
    """A random joined model of those families, as it would be loaded."""
    tokens, special = train_tokenizer(CAPTIONS, 300, 24)
    size = tokens.tokenizer.get_vocab_size()
    if text == "mpnet":
        special = {"pad_token_id": 1}
    length = 24 + (special["pad_token_id"] + 1 if text in ("roberta", "mpnet") else 0)
    raw = {
        "architectures": ["VisionTextDualEncoderModel"],
        "model_type": "vision-text-dual-encoder",
        "dtype": "float32",
        "projection_dim": 16,
        "vision_config": {"model_type": vision, **WIDTH, "num_hidden_layers": 1, "image_size": 32, "patch_size": 8},
        "text_config": {"model_type": text, **WIDTH, **special, "num_hidden_layers": 1, "vocab_size": size,
                        "max_position_embeddings": length},
    }  # fmt: skip
    config = parse_config(raw)
    rng = np.random.default_rng(seed)
    fresh = init_params(config, seed)
    params = {name: value + 0.1 * rng.standard_normal(value.shape, np.float32) for name, value in fresh.items()}
    return Model(params, config, tokens, load(FOLDER).image_processor, raw)


def vectors(model: Model) -> tuple[np.ndarray, np.ndarray]:
    return embed_pixels(model, PIXELS), embed_texts(model, CAPTIONS)


def assert_same_embeddings(one: Model, other: Model) -> None:
    for a, b in zip(vectors(one), vectors(other), strict=True):
        np.testing.assert_allclose(a, b, atol=CLOSE)


def save_tower(model: Model, side: str, folder: Path, prefix: str = "") -> Path:
    """One tower of a joined model as a folder of its own."""
    folder.mkdir()
    tower = f"{side}_model."
    tensors = {prefix + n[len(tower) :]: np.asarray(v) for n, v in model.params.items() if n.startswith(tower)}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(model.raw_config[f"{side}_config"]))
    (folder / "preprocessor_config.json").write_text(json.dumps(model.image_processor.raw_config))
    save_tokenizer(model.tokenizer, folder)
    return folder


def flax_array(value: np.ndarray, kind: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(kind, msgpack.packb((value.shape, value.dtype.name, value.tobytes())))


def flax_tree(params: Mapping[str, Any], leaf: Callable[[np.ndarray], Any] = flax_array) -> dict[str, Any]:
    """The tree of layers that Flax names and lays out in its own way, after transformers 4.x."""
    tree: dict = {}
    for name, value in params.items():
        value = np.asarray(value)
        *path, last = name.split(".")
        if re.search(r"(word|token|position|token_type)_embeddings?\.weight$", name) and value.ndim == 2:
            last = "embedding"
        elif last == "weight" and value.ndim == 4:
            last, value = "kernel", np.moveaxis(value, (0, 1), (3, 2))
        elif last == "weight" and value.ndim == 2:
            last, value = "kernel", value.swapaxes(0, 1)
        elif last == "weight":
            last = "scale"
        layer = tree
        for step in path:
            layer = layer.setdefault(step, {})
        layer[last] = leaf(np.ascontiguousarray(value) if value.ndim else value)
    return tree


def hybrid_folder(model: Model, folder: Path) -> Path:
    """A FlaxHybridCLIP folder after the published naming of transformers 4.x, by rules of this test's own."""
    params = {
        name.replace("vision_model.", "vision_model.vision_model.", 1): value for name, value in model.params.items()
    }
    folder.mkdir()
    (folder / "flax_model.msgpack").write_bytes(msgpack.packb(flax_tree(params)))
    raw = {**model.raw_config, "architectures": ["HybridCLIP"], "model_type": "hybrid-clip", "seed": 42}
    (folder / "config.json").write_text(json.dumps(raw))
    save_tokenizer(model.tokenizer, folder)
    return folder


def open_clip_folder(model: Model, folder: Path) -> Path:
    """A CLIPModel's weights in open_clip's layout, by rules of this test's own."""
    tensors: dict[str, np.ndarray] = {"logit_scale": np.asarray(model.params["logit_scale"])}
    towers = [("vision_model.", "visual."), ("text_model.", "")]
    plain = {
        "embeddings.class_embedding": "class_embedding",
        "embeddings.patch_embedding.weight": "conv1.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "pre_layrnorm": "ln_pre", "post_layernorm": "ln_post", "final_layer_norm": "ln_final",
        "self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
        "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "encoder.layers": "transformer.resblocks",
    }  # fmt: skip
    for prefix, theirs in towers:
        for name, value in model.params.items():
            if name.startswith(prefix) and not re.search(r"[qkv]_proj", name):
                for ours, other in plain.items():
                    name = name.replace(ours, other)
                tensors[name.replace(prefix, theirs)] = np.asarray(value)
        layers = {
            name[: name.index(".self_attn")]
            for name in model.params
            if name.startswith(prefix) and ".self_attn" in name
        }
        for layer in layers:
            renamed = layer.replace(prefix, theirs).replace("encoder.layers", "transformer.resblocks")
            for kind in ("weight", "bias"):
                parts = [model.params[f"{layer}.self_attn.{x}_proj.{kind}"] for x in "qkv"]
                tensors[f"{renamed}.attn.in_proj_{kind}"] = np.concatenate(parts)
    tensors["visual.proj"] = np.ascontiguousarray(model.params["visual_projection.weight"].T)
    tensors["text_projection"] = np.ascontiguousarray(model.params["text_projection.weight"].T)
    folder.mkdir()
    save_file(tensors, folder / "open_clip_model.safetensors")
    vision, text = model.config.vision, model.config.text
    raw = {
        "model_cfg": {
            "embed_dim": model.config.projection_dim,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 32, "layers": vision.num_hidden_layers, "width": 32, "patch_size": 7,
                           "head_width": 8, "mlp_ratio": 1.5},
            "text_cfg": {"context_length": 24, "vocab_size": text.vocab_size, "width": 32, "heads": 4,
                         "layers": text.num_hidden_layers, "mlp_ratio": 1.5, "hf_tokenizer_name": "of this folder"},
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    }  # fmt: skip
    (folder / "open_clip_config.json").write_text(json.dumps(raw))
    save_tokenizer(model.tokenizer, folder)
    return folder


def write_safetensors(tensors: dict[str, np.ndarray], path: Path) -> None:
    """By the format's definition; the library's own writer does not take float8 from NumPy."""
    names = {"float8_e4m3fn": "F8_E4M3", "float32": "F32", "int32": "I32", "int8": "I8", "bfloat16": "BF16"}
    header, data = {}, b""
    for name, value in tensors.items():
        places = [len(data), len(data) + value.nbytes]
        header[name] = {"dtype": names[value.dtype.name], "shape": value.shape, "data_offsets": places}
        data += value.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def rewrite_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def rewrite_config(folder: Path, part: str, **fields) -> None:
    raw = json.loads((folder / "config.json").read_text())
    raw[part] |= fields
    (folder / "config.json").write_text(json.dumps(raw))


def assert_refused(folder: Path, *words: str) -> None:
    with pytest.raises(UserError) as error:
        load(folder)
    for word in words:
        assert word in str(error.value)

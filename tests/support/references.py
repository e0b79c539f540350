"""Random models of every family as transformers itself writes them, and what transformers computes with them.

Run by hand where torch and transformers are (after `make parity`), it makes the stored references:
    .venv-parity/bin/python tests/support/references.py
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "clip-tiny"
CAPTIONS = [
    "Axial CT of the chest: a small nodule in the left upper lobe (arrow).",
    "T2",
    "Vue coronale – lésion hyperintense, 3 × 4 mm; no œdema. " * 6,
]
WIDTH = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
# Vision tower, text tower: each family at least once.
FAMILIES = [
    ("clip", "clip"),
    ("siglip", "siglip"),
    ("vit", "bert"),
    ("dinov2", "roberta"),
    ("clip", "bert"),
    ("siglip", "clip"),
    ("dinov2-with-registers", "mpnet"),
    ("dinov2-swiglu", "xlm-roberta"),
    ("dinov3", "camembert"),
    ("dinov3-gated", "bert"),
    ("deit", "mpnet"),
]


def random_images(side: int, seed: int) -> list[np.ndarray]:
    """Three u8 images (h, w, 3) of unequal sizes."""
    rng = np.random.default_rng(seed)
    sizes = [(side, side), (side * 2 + 3, side + 1), (side + 5, side * 3)]
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def random_folder(
    folder: Path,
    seed: int,
    families: tuple[str, str] = ("clip", "clip"),
    side: int = 32,
    squeeze: bool = True,
    **towers: Any,
) -> None:
    """A random dual_encoder encoder written by transformers itself, with a tokenizer and an image processor of ours.

    `towers` changes both towers' configs (`hidden_act`, `num_hidden_layers`).
    """
    import torch
    import transformers

    from medclip.atomic_io import write_json
    from medclip.model.image_processor import square_image_processor
    from medclip.model.tokenizer.text_tokenizer import save_tokenizer, train_tokenizer

    tokens, special = train_tokenizer(CAPTIONS, 300, 24)
    vision = {**WIDTH, "num_hidden_layers": 2, "image_size": side, "patch_size": 7, **towers}
    text = {**WIDTH, "num_hidden_layers": 3, "vocab_size": tokens.tokenizer.get_vocab_size(), **towers, **special}
    torch.manual_seed(seed)
    model = _model(families, vision, text, transformers)
    for tensor in model.parameters():  # biases, norms and registers start at 0 and 1, where a mistake would not show
        if tensor.ndim == 1 or not tensor.any():
            tensor.data += 0.1 * torch.randn_like(tensor)
    model.save_pretrained(folder)
    if families[1] == "siglip":  # as published: it attends to padding
        tokens = replace(tokens, raw_config={**tokens.raw_config, "model_input_names": ["input_ids"]})
    save_tokenizer(tokens, folder)
    preprocessor = dict(square_image_processor(side).raw_config)
    if not squeeze:
        preprocessor |= {
            "size": {"shortest_edge": side},
            "do_center_crop": True,
            "crop_size": {"height": side, "width": side},
        }
    write_json(folder / "preprocessor_config.json", preprocessor)


def _model(families: tuple[str, str], vision: dict[str, Any], text: dict[str, Any], transformers: Any) -> Any:
    after_padding = families[1] in ("roberta", "xlm-roberta", "camembert", "mpnet")
    places = 26 if after_padding else 24
    if families == ("clip", "clip"):
        text = {**text, "max_position_embeddings": places}
        config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=24)
        return transformers.CLIPModel(config)
    if families == ("siglip", "siglip"):
        text = {**text, "max_position_embeddings": places, "projection_size": WIDTH["hidden_size"]}
        return transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text))
    kinds = {
        "clip": (transformers.CLIPVisionConfig, transformers.CLIPTextConfig),
        "siglip": (transformers.SiglipVisionConfig, None),
        "vit": (transformers.ViTConfig, None),
        "deit": (transformers.DeiTConfig, None),
        "dinov2": (transformers.Dinov2Config, None),
        "dinov2-swiglu": (partial(transformers.Dinov2Config, use_swiglu_ffn=True, qkv_bias=False), None),
        "dinov2-with-registers": (partial(transformers.Dinov2WithRegistersConfig, num_register_tokens=3), None),
        "dinov3": (partial(transformers.DINOv3ViTConfig, num_register_tokens=4), None),
        "dinov3-gated": (
            partial(
                transformers.DINOv3ViTConfig,
                use_gated_mlp=True,
                query_bias=False,
                value_bias=False,
                mlp_bias=False,
                rope_theta=30.0,
            ),
            None,
        ),
        "bert": (None, transformers.BertConfig),
        "roberta": (None, transformers.RobertaConfig),
        "xlm-roberta": (None, transformers.XLMRobertaConfig),
        "camembert": (None, transformers.CamembertConfig),
        "mpnet": (None, transformers.MPNetConfig),
    }
    if after_padding:  # its positions follow the padding id, which must then lie low
        text = {**text, "pad_token_id": 1}
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        kinds[families[0]][0](**vision),
        kinds[families[1]][1](**{**text, "max_position_embeddings": places}),
        projection_dim=24,
    )
    return transformers.VisionTextDualEncoderModel(config)


def open_torch_model(folder: Path) -> Any:
    """The folder's model in torch, as transformers opens it."""
    import json

    import transformers

    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    return getattr(transformers, name).from_pretrained(folder).eval()


def transformers_inputs(folder: Path, images: list[np.ndarray], captions: list[str]) -> dict[str, Any]:
    """Pixels, ids and mask as transformers' own processor and tokenizer make them."""
    import transformers
    from PIL import Image

    processor = transformers.CLIPImageProcessorPil.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pixels = processor([Image.fromarray(image) for image in images], return_tensors="pt")
    texts = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    mask = {} if "siglip" in (folder / "config.json").read_text()[:200] else {"attention_mask": texts.attention_mask}
    return {"pixel_values": pixels.pixel_values, "input_ids": texts.input_ids, **mask}


def transformers_outputs(folder: Path, images: list[np.ndarray], captions: list[str]) -> dict[str, np.ndarray]:
    """Unit vectors and logits of every image with every caption, all of it by transformers: pixels, ids, towers."""
    import torch

    given = transformers_inputs(folder, images, captions)
    with torch.no_grad():
        out = open_torch_model(folder)(**given, return_loss=True)
    return {
        "images": out.image_embeds.numpy(),
        "texts": out.text_embeds.numpy(),
        "logits": out.logits_per_image.numpy(),
        "loss": out.loss.numpy(),
        "pixels": given["pixel_values"].numpy(),
        "ids": given["input_ids"].numpy(),
    }


if __name__ == "__main__":
    random_folder(FOLDER, seed=0)
    np.savez_compressed(FOLDER / "references.npz", **transformers_outputs(FOLDER, random_images(32, 0), CAPTIONS))
    print(f"wrote {FOLDER}")

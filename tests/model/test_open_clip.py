"""open_clip's layouts: its own ViT, and BiomedCLIP's towers of timm and Hugging Face, give what transformers' give."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.model.checkpoint import load, save
from medclip.model.tokenizer import save_tokenizer, train_tokenizer
from support.model_folders import assert_same_embeddings, open_clip_folder, rewrite_config
from support.references import CAPTIONS, FOLDER, random_images

WIDTH, SIDE, DIM = 128, 32, 24
TIMM_NAMES = {
    "embeddings.cls_token": "cls_token", "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj", "encoder.layer": "blocks",
    "attention.output.dense": "attn.proj", "layernorm_before": "norm1", "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2", "layernorm": "norm",
}  # fmt: skip
RAW = {
    "model_cfg": {
        "embed_dim": DIM,
        "vision_cfg": {"timm_model_name": "vit_base_patch16_224", "timm_pool": "", "timm_proj": "linear",
                       "image_size": SIDE},
        "text_cfg": {"hf_model_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
                     "hf_tokenizer_name": "of this folder", "hf_proj_type": "mlp",
                     "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 24},
    },
    "preprocess_cfg": {"mean": [0.48, 0.45, 0.4], "std": [0.26, 0.26, 0.27]},
}  # fmt: skip


def timm_names(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A Hugging Face ViT's tensors under timm's names, query, key and value stacked."""
    renamed: dict[str, np.ndarray] = {}
    for name, value in tensors.items():
        if "pooler" in name or re.search(r"attention\.(key|value)\.", name):
            continue
        if ".attention.query." in name:
            value = np.concatenate([tensors[name.replace("query", part)] for part in ("query", "key", "value")])
            name = name.replace("attention.attention.query", "attn.qkv")
        for theirs, ours in TIMM_NAMES.items():
            name = name.replace(theirs, ours)
        renamed[f"visual.trunk.{name}"] = value
    return renamed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "model"))


def test_open_clips_layout_loads_and_comes_back(tmp_path: Path, folder: Path) -> None:
    pytest.importorskip("ftfy")
    rewrite_config(
        folder, "text_config", eos_token_id=2
    )  # open_clip takes the largest id for the end of text, as CLIP of 2021
    model = load(folder)
    theirs = load(open_clip_folder(model, tmp_path / "open_clip"))
    assert_same_embeddings(model, theirs)
    save(theirs, tmp_path / "again")
    assert_same_embeddings(model, load(tmp_path / "again"))


@pytest.mark.parity
def test_biomedclips_layout_gives_what_the_same_weights_give_in_torch(tmp_path: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    tokens, _ = train_tokenizer(CAPTIONS, 300, 24)
    size = {"hidden_size": WIDTH, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = transformers.ViTConfig(**size, image_size=SIDE, patch_size=16, layer_norm_eps=1e-6)
    vit = transformers.ViTModel(vision, add_pooling_layer=False).eval()
    text = transformers.BertConfig(**size, vocab_size=tokens.tokenizer.get_vocab_size(), max_position_embeddings=24)
    bert = transformers.BertModel(text, add_pooling_layer=False).eval()
    head = torch.nn.Linear(WIDTH, DIM, bias=False)
    middle = (WIDTH + DIM) // 2
    mlp = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, middle, bias=False), torch.nn.GELU(), torch.nn.Linear(middle, DIM, bias=False)
    )
    for at, part in (("v", vit), ("t", bert)):
        part.save_pretrained(tmp_path / at)
    tensors = timm_names(load_file(tmp_path / "v/model.safetensors"))
    tensors |= {f"text.transformer.{n}": v for n, v in load_file(tmp_path / "t/model.safetensors").items()}
    tensors |= {f"text.proj.{i}.weight": mlp[i].weight.detach().numpy() for i in (0, 2)}
    tensors |= {"visual.head.proj.weight": head.weight.detach().numpy(), "logit_scale": np.float32(4.0).reshape(())}
    folder = tmp_path / "biomed"
    folder.mkdir()
    save_file({n: np.asarray(v, order="C") for n, v in tensors.items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(RAW))
    save_tokenizer(tokens, folder)

    model = load(folder)
    images = random_images(SIDE, 0)[:1]
    mean, std = (torch.tensor(RAW["preprocess_cfg"][x]).reshape(3, 1, 1) for x in ("mean", "std"))
    pixels = (torch.tensor(np.stack(images)).permute(0, 3, 1, 2) / 255 - mean) / std
    ids, valid = model.tokenizer.encode(CAPTIONS)
    given = {"input_ids": torch.tensor(ids, dtype=torch.long), "attention_mask": torch.tensor(valid)}
    with torch.no_grad():
        wanted = head(vit(pixels).last_hidden_state[:, 0]), mlp(bert(**given).last_hidden_state[:, 0])
    file = io.BytesIO()
    Image.fromarray(images[0]).save(file, "PNG")
    for ours, theirs in zip(
        (embed_images(model, [file.getvalue()]), embed_texts(model, CAPTIONS)), wanted, strict=True
    ):
        np.testing.assert_allclose(ours, torch.nn.functional.normalize(theirs, dim=1).numpy(), atol=2e-6)


@pytest.mark.parametrize(
    "option", [{"resize_mode": "stretch"}, {"interpolation": "nearest"}, {"mode": "L"}, {"fill_color": [9, 9, 9]}]
)
def test_a_resize_that_is_not_known_is_refused(tmp_path: Path, option: dict) -> None:
    folder = open_clip_folder(load(FOLDER), tmp_path / "model")
    raw = json.loads((folder / "open_clip_config.json").read_text())
    (folder / "open_clip_config.json").write_text(json.dumps(raw | {"preprocess_cfg": option}))
    with pytest.raises(UserError, match=next(iter(option))):
        load(folder)


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        ({}, "model_cfg has no vision_cfg"),
        ({"model_cfg": {"vision_cfg": {"layers": [3, 4, 6, 3]}, "text_cfg": {}, "embed_dim": 8}}, "ResNet"),
        ({"model_cfg": {"vision_cfg": {"timm_model_name": "convnext_base"}, "text_cfg": {}}}, "convnext_base"),
        (RAW, "that its tensors are not"),
    ],
)
def test_a_model_that_is_not_known_is_refused(tmp_path: Path, raw: dict, word: str) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps(raw))
    save_file({"logit_scale": np.zeros(())}, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(UserError, match=word):
        load(tmp_path)

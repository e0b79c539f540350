"""Models with random weights in published sizes, written by transformers, and embedding an image or a text with them.

A tokenizer of 300 words is ours: the towers do not know the difference, and nothing is fetched.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from performance.record import Bounds, in_new_process, run

WRITE = """
import json, sys
import torch
from transformers import (BertConfig, CLIPVisionConfig, Dinov2Config, VisionTextDualEncoderConfig,
                          VisionTextDualEncoderModel)
torch.manual_seed(0)
small = sys.argv[2] == "small"
if sys.argv[2] == "small":
    vision = Dinov2Config(hidden_size=384, num_attention_heads=6, patch_size=14, image_size=518)
    text = BertConfig(hidden_size=384, intermediate_size=1536, num_hidden_layers=6)
else:
    vision, text = CLIPVisionConfig(), BertConfig()
config = VisionTextDualEncoderConfig.from_vision_text_configs(vision, text)
VisionTextDualEncoderModel(config).save_pretrained(sys.argv[1])
"""
TRANSFORMERS = """
import io, json, sys, time
import numpy, torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, VisionTextDualEncoderModel
model = VisionTextDualEncoderModel.from_pretrained(sys.argv[1]).eval()
tokenizer, processor = (kind.from_pretrained(sys.argv[1]) for kind in (AutoTokenizer, AutoImageProcessor))
def unit(features):
    features = getattr(features, "pooler_output", features).float()
    return (features / features.norm(dim=-1, keepdim=True)).numpy()
def embed_texts(texts):
    return unit(model.get_text_features(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")))
def embed_images(files):
    images = [Image.open(file).convert("RGB") for file in files]
    return unit(model.get_image_features(**processor(images, return_tensors="pt")))
"""


def _write_tokenizer(folder: Path) -> None:
    from medclip.model.tokenizer.text_tokenizer import save_tokenizer, train_tokenizer

    save_tokenizer(train_tokenizer(["CT of the chest with a small pleural effusion"] * 2, 300, 64)[0], folder)
    mean_std = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    sizes = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "resample": 3}
    steps = {name: True for name in ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")}
    config = {"image_processor_type": "CLIPImageProcessor", "rescale_factor": 1 / 255, **mean_std, **sizes, **steps}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))


def write_model(bounds: Bounds, size: str) -> Path:
    """A folder with CLIP ViT-B/32 and BERT-base ("base"), or DINOv2-small and MiniLM's ("small")."""
    folder = bounds.folder / size
    run([bounds.peers, "-c", WRITE, folder, size])
    in_new_process(_write_tokenizer, folder)
    return folder


def choose_images(bounds: Bounds, count: int) -> list[Path]:
    """The first JPEG files of the folder."""
    files = sorted(path for path in bounds.images.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    return [path.resolve() for path in files[:count]]


def choose_pairs(bounds: Bounds, count: int) -> list[tuple[Path, str]]:
    """Images of ROCO and their captions, from `captions.txt` beside its folder; none is there twice."""
    captions, chosen, hashes = bounds.images.parent / "captions.txt", {}, set()
    if not captions.is_file():
        raise SystemExit(f"{captions} is not there: --images is radiology/images of ROCO here.")
    for line in captions.read_text(encoding="utf-8").splitlines():
        name, _, caption = line.partition("\t")
        path, caption = bounds.images / f"{name}.jpg", caption.strip()
        if len(caption) < 20 or caption in chosen or not path.is_file():
            continue
        if (digest := hashlib.sha256(path.read_bytes()).digest()) not in hashes:
            hashes.add(digest)
            chosen[caption] = path
        if len(chosen) == count:
            break
    return [(path, caption) for caption, path in chosen.items()]


def write_pairs(files: list[Path], folder: Path) -> Path:
    """A table of copies of images, and captions."""
    (folder / "images").mkdir(parents=True)
    lines = ["id,image,caption,split"]
    for number, file in enumerate(files):
        shutil.copyfile(file, folder / "images" / f"{number}.jpg")
        lines.append(f"{number},images/{number}.jpg,An image for the benchmark {number},train")
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return folder / "pairs.csv"

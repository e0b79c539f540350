"""The gallery's layouts opened, embedded and trained by medclip, from image files and strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from medclip.api import prepare, train
from medclip.encode.encoder import embed_images, embed_texts
from medclip.model.adapt import join_towers
from medclip.model.checkpoint import Model, load
from medclip.training.config import TrainConfig
from support.gallery import Embeddings, Layout
from support.material import draw_image, image_bytes

PARTNERS = {"vision": "bert-base", "text": "clip-transformers-5"}
"""The layout whose tower a tower of either side is joined with."""


def write_partners(folder: Path, layouts: Mapping[str, Layout]) -> None:
    """Build in `folder` what other layouts are joined with or take their tokenizer from."""
    for name in sorted({*PARTNERS.values(), *(layout.tokenizer for layout in layouts.values())} - {""}):
        layouts[name].build(folder / name)


def few_pairs(out: Path) -> Path:
    """A dataset of eight pairs to train on and four to validate with."""
    rows = [(image_bytes(draw_image(i)), f"CT of the chest, image number {i}") for i in range(12)]
    prepare({"train": rows[:8], "validation": rows[8:]}, out, num_workers=1)
    return out


def open_layout(layout: Layout, folder: Path) -> Model:
    """The model in FOLDER/NAME/model; a tower is joined by the identity, so that its embeddings are its features."""
    path = folder / layout.name / "model"
    if layout.opens == "model":
        tokenizer = folder / layout.tokenizer / "model" if layout.tokenizer else None
        return load(path, tokenizer=str(tokenizer)) if tokenizer else load(path)
    vision, text = (path, folder / PARTNERS["vision"] / "model")
    if layout.opens == "text":
        vision, text = folder / PARTNERS["text"] / "model", path
    width = getattr(join_towers(vision, text, 8).config, layout.opens).hidden_size
    model = join_towers(vision, text, width)
    name = "visual_projection.weight" if layout.opens == "vision" else "text_projection.weight"
    identity = np.eye(model.params[name].shape[1], dtype=np.float32)
    return replace(model, params={**model.params, name: identity})


def our_embeddings(
    model: Model, images: Sequence[Path], texts: Sequence[str], kinds: Sequence[str] = ("images", "texts")
) -> Embeddings:
    result = {}
    if "images" in kinds:
        result["images"] = embed_images(model, list(images), batch_size=len(images))
    if "texts" in kinds:
        result["texts"] = embed_texts(model, list(texts), batch_sizes=(len(texts),))
    return result


def train_two_steps(layout: Layout, folder: Path, data: Path, out: Path) -> None:
    """Train two steps from the layout into the run `out`."""
    path = str(folder / layout.name / "model")
    vision, text = str(folder / PARTNERS["text"] / "model"), str(folder / PARTNERS["vision"] / "model")
    start = {
        "model": {"init": path},
        "vision": {"vision_model": path, "text_model": text},
        "text": {"vision_model": vision, "text_model": path},
    }[layout.opens]
    if layout.tokenizer:
        start["tokenizer"] = str(folder / layout.tokenizer / "model")
    config = TrainConfig(**start, steps=2, batch_size=4, lr=1e-4, num_evals=1, on_regression="warn")
    train(data, out, config)

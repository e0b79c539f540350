"""Model folders as the Hub and today's tools hold them: tiny sizes, everything else as published.

A Layout builds its folder with the live peer and gives the peer's embeddings of image files and raw strings. Weights
follow `example_weight`, a rule of name and shape, so stored references need no stored weights.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

CLOSE = 2e-6  # float32 rounding of unit vectors through the tiny towers
Opens = Literal["model", "vision", "text"]
Embeddings = dict[str, np.ndarray]
Embed = Callable[[Path, Sequence[Path], Sequence[str]], Embeddings]

TEXTS = (
    "CT of the chest, axial view",
    "Échographie rénale: Kienböck's Disease à gauche",
    "T2-weighted MRI (STIR); UPPER Case, 5–10 mm & 50% of  the   lobe",
    "literal [SEP] and </s> and <|endoftext|> and [MASK] tokens",
    "x-ray " * 150 + "end",
    "a",
)
"""Ordinary, accents, upper case and punctuation, literal special tokens, longer than every context, one letter."""


@dataclass(frozen=True)
class Layout:
    """One layout; the peer that reads it is independent of medclip."""

    name: str
    """Of its folder: letters, digits and dashes."""
    repository: str
    """The Hub repository, or the tool, whose layout it is."""
    opens: Opens
    """`medclip.load` (also --init), or what --vision-model or --text-model takes."""
    build: Callable[[Path], None]
    """Writes `model/` of that folder as published, and `peer/` with the same weights where the peer cannot open it."""
    embed: Embed
    """Unit vectors by the peer of a folder as `build` writes it, from image files and strings: "images", "texts".

    A tower gives its own side alone: its features (what precedes a projection), divided by their length."""
    embed_trained: Embed | None = None
    """The peer on the run that medclip trains, whose `model/` it opens; None: `embed`."""
    refused: tuple[str, ...] = ()
    """Words of the refusal; () where it opens."""
    image_tolerance: float = CLOSE
    text_tolerance: float = CLOSE
    reason: str = ""
    """Of a larger tolerance."""
    pooler: bool = True
    """Whether the folder holds the pooler of its tower; where it does not, a fresh join has random features."""
    tokenizer: str = ""
    """Name of the layout whose folder gives the tokenizer (`--tokenizer`), where this one has none."""


def peer_folder(folder: Path) -> Path:
    """What the peer opens of a built layout."""
    return folder / "peer" if (folder / "peer").is_dir() else folder / "model"


def write_images(folder: Path) -> list[Path]:
    """Six PNG files of ragged sizes: color and gray, wide, tall, square, smaller than any input, larger."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    files = []
    for i, (height, width, gray) in enumerate(
        [(97, 161, False), (300, 211, True), (224, 224, False), (20, 17, False), (640, 401, False), (131, 503, True)]
    ):
        small = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)  # smooth, with noise over it
        image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        noise = rng.integers(-40, 40, (height, width, 3))
        image = Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
        files.append(folder / f"{i}.png")
        (image.convert("L") if gray else image).save(files[-1])
    return files


def example_weight(name: str, shape: Sequence[int]) -> np.ndarray:
    """The weights of one tensor, float32, from its name and shape alone."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    if name.endswith("logit_scale"):
        return np.asarray(2.6592 + 0.1 * values, np.float32)
    if name.endswith("logit_bias"):
        return np.asarray(-3 + 0.1 * values, np.float32)
    if len(shape) < 2:  # biases, norms, factors of LayerScale, class tokens
        norm = name.endswith((".weight", "gamma")) or "lambda" in name
        return np.asarray(0.1 * values + norm, np.float32)
    fan_in = np.prod(shape[1:]) if len(shape) == 4 else shape[-1]
    return np.asarray(values / np.sqrt(fan_in), np.float32)

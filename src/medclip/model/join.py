"""Two single towers made one dual encoder, with fresh projections into a common space."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from medclip.errors import UserError
from medclip.model.adapt import with_tokens
from medclip.model.checkpoint import Model, model_folder, open_folder
from medclip.model.config import DUAL, LOGIT_SCALE, parse_config, parse_text, parse_vision
from medclip.model.image_processor import read_preprocessor
from medclip.model.shapes_init import init, tensor_shapes, text_shapes, vision_shapes
from medclip.model.tokenizer import load_tokenizer
from medclip.model.weights import read

MAX_TOKENS = 128  # 99 % of ROCO's captions are shorter
# Names that whole models of one tower put before it, and what they hold beside it.
_WRAPPED = re.compile(r"^(vision_model|text_model|bert|roberta|vit|dinov2)\.")
_HEADS = re.compile(r"^(cls|lm_head|classifier|visual_projection|text_projection|logit_)")


def join(vision: str | Path, text: str | Path, projection_dim: int = 512, seed: int = 0) -> Model:
    """A dual encoder of the vision tower of one model and the text tower of another; a model of either kind will do.

    The folder it is saved to is that of a VisionTextDualEncoderModel. A pooler that a checkpoint was published without
    starts fresh, as the projections do. Raises UserError for folders that hold no such tower.
    """
    towers, params = {}, {}
    for side, name in (("vision", vision), ("text", text)):
        towers[side], tensors = _tower(model_folder(name), side)
        params |= {f"{side}_model.{at}": value for at, value in tensors.items()}
    said = {
        "architectures": ["VisionTextDualEncoderModel"],
        "model_type": "vision-text-dual-encoder",
        "dtype": "float32",
        "projection_dim": projection_dim,
        "logit_scale_init_value": LOGIT_SCALE,
        "vision_config": towers["vision"],
        "text_config": towers["text"],
    }
    config = parse_config(said)
    params |= init(config, seed, [name for name in tensor_shapes(config) if name not in params])
    tokens = load_tokenizer(model_folder(text), config.text)
    model = Model(params, config, tokens, read_preprocessor(model_folder(vision)), said)
    return with_tokens(model, min(MAX_TOKENS, tokens.length))


def _tower(folder: Path, side: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The config of one tower and its tensors, named without a prefix."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no single tower: it has no config.json.")
    said, stored = open_folder(folder)
    other = f"{'text' if side == 'vision' else 'vision'}_model."
    bare = {_WRAPPED.sub("", name): t for name, t in stored.items() if not name.startswith(other)}
    bare = {name: t for name, t in bare.items() if not _HEADS.match(name)}
    if (kind := said.get("model_type")) in DUAL:
        said = {"model_type": f"{kind}_{side}_model", **said[f"{side}_config"]}
    wanted = vision_shapes(parse_vision(said)) if side == "vision" else text_shapes(parse_text(said))
    fresh = {name for name in wanted if name.startswith("pooler.") and name not in bare}
    return said, read(bare, {name: shape for name, shape in wanted.items() if name not in fresh}, folder)

"""Pretrained models made into others: another image size or context length, or two towers joined."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medclip.errors import UserError
from medclip.model.checkpoint import Model, model_folder, open_folder, tokenizer_folder
from medclip.model.config import (
    DUAL_ENCODERS,
    LOGIT_SCALE,
    MAX_IMAGE_SIDE,
    Side,
    parse_config,
    parse_text,
    parse_vision,
    tower_config,
)
from medclip.model.image_processor import read_image_processor, with_side
from medclip.model.positions import resize_positions
from medclip.model.sentence_modules import MODULES_FILE, check_case, read_modules
from medclip.model.shapes_init import init_params, tensor_shapes, text_shapes, vision_shapes
from medclip.model.tokenizer.text_tokenizer import load_tokenizer, padding_right, with_length
from medclip.model.unsupported import warn_unread
from medclip.model.weights.weight_files import read_tensors, without_attribute

JOINED_CONTEXT_LENGTH = 128  # 99 % of ROCO's captions are shorter
LOG = logging.getLogger("medclip.model")
# In checkpoints of a single tower: prefixes of its tensors, and tensors that are not part of it.
_WRAPPERS = re.compile(
    r"^(vision_model|text_model|bert|roberta|camembert|mpnet|vit|deit|dinov2|dinov2_with_registers)\."
)
_HEADS = (
    "cls", "cls_projection_head", "lm_head", "classifier", "qa_outputs", "cls_classifier", "distillation_classifier",
    "decoder", "visual_projection", "text_projection", "logit_scale", "logit_bias",
    r"embeddings\.mask_token",  # of a ViT that was trained on hidden patches; DINOv2 keeps its own
)  # fmt: skip


def with_image_size(model: Model, side: int) -> Model:
    """The model for images of side x side pixels: its processor's resize and crop are scaled.

    Positions are interpolated (bicubic, antialiased, as open_clip does), once and for all; where the family does so
    for the pixels it gets, the tower stays as it is.
    """
    tower, family = model.config.vision, model.config.vision.family
    if not tower.patch_size <= side <= MAX_IMAGE_SIDE:
        raise UserError(f"--image-size {side}: a patch has {tower.patch_size} px, an image at most {MAX_IMAGE_SIDE}.")
    if side == model.image_processor.side:
        return model
    if tower.stages:
        raise UserError(f"--image-size {side}: open_clip opens a ResNet at its own {tower.image_size} px alone.")
    if tower.model_type == "timm_vit":
        LOG.warning(
            "--image-size %d: open_clip, whose tower is timm's here, opens it at %d px alone; medclip opens it so.",
            side,
            tower.image_size,
        )
    model = dataclasses.replace(model, image_processor=with_side(model.image_processor, side))
    if family.takes_any_size:
        return model
    name, table = tower.prefix + family.position, np.asarray(model.params[tower.prefix + family.position])
    num_class_tokens = sum(map(bool, (family.class_token, family.distillation_token)))
    rows = table.reshape(-1, tower.hidden_size)
    rows = np.asarray(resize_positions(rows, num_class_tokens, side // tower.patch_size, "antialiased"))
    return dataclasses.replace(
        model,
        params={**model.params, name: rows.reshape(*table.shape[:-2], *rows.shape)},
        config=dataclasses.replace(model.config, vision=dataclasses.replace(tower, image_size=side)),
        raw_config=_with_field(model.raw_config, "vision", "image_size", side),
    )


def with_context_length(model: Model, length: int) -> Model:
    """The model for captions of up to `length` tokens; positions beyond the tower's own are interpolated (linear).

    Raises UserError where the tower cannot: RoBERTa numbers its positions from the padding id on, SigLIP pools its
    last one.
    """
    tower, family = model.config.text, model.config.text.family
    if length == model.tokenizer.context_length:
        return model
    if length < 3 or (length > tower.max_length and family.after_padding):
        raise UserError(f"--context-length {length}: this text tower has positions for 3 to {tower.max_length} tokens.")
    if family.pool == "last" and length < tower.max_length:
        raise UserError(f"--context-length {length}: this text tower pools position {tower.max_length}; give no fewer.")
    in_open_clip = "model_cfg" in model.raw_config
    # open_clip takes the table's length for the context length, but for towers that it makes by a Hugging Face name
    by_name = in_open_clip and "hf_model_name" in model.raw_config["model_cfg"]["text_cfg"]
    if by_name and length > tower.max_length:
        raise UserError(
            f"--context-length {length}: open_clip opens this text tower with {tower.max_length} positions."
        )
    raw = _with_field(model.raw_config, "text", "context_length", length) if in_open_clip else model.raw_config
    model = dataclasses.replace(model, tokenizer=with_length(model.tokenizer, length), raw_config=raw)
    if by_name or (length <= tower.max_length and not in_open_clip):
        return model
    name = tower.prefix + family.position
    table = np.asarray(model.params[name])[:length]
    if length > tower.max_length:
        table = np.asarray(jax.image.resize(jnp.asarray(table), (length, tower.hidden_size), "linear"))
    raw = raw if in_open_clip else _with_field(raw, "text", "max_position_embeddings", length)
    return dataclasses.replace(
        model,
        params={**model.params, name: table},
        config=dataclasses.replace(model.config, text=dataclasses.replace(tower, max_position_embeddings=length)),
        raw_config=raw,
    )


def join_towers(
    vision: str | Path,
    text: str | Path,
    projection_dim: int = 512,
    seed: int = 0,
    tokenizer: str | Path | None = None,
) -> Model:
    """A dual encoder of the vision tower of one model and the text tower of another; a model of either kind will do.

    `tokenizer` is another folder or Hub model whose tokenizer is used in place of the text model's. The join is saved
    as a VisionTextDualEncoderModel. The projections start fresh, and so does a pooler that a checkpoint was published
    without, with a warning. A sentence-transformers folder pools as its modules say; transformers then refuses the
    join. Raises UserError for folders without such a tower.
    """
    vision_folder, text_folder = model_folder(vision), model_folder(text)
    sentence = read_modules(text_folder) if os.path.lexists(text_folder / MODULES_FILE) else None
    text_folder, pooling = (sentence.folder, sentence.pooling) if sentence else (text_folder, "")
    vision_config, vision_tensors = _read_tower(vision_folder, "vision")
    text_config, text_tensors = _read_tower(text_folder, "text", pooling)
    raw = {
        "architectures": ["VisionTextDualEncoderModel"],
        "model_type": "vision-text-dual-encoder",
        "dtype": "float32",
        "projection_dim": projection_dim,
        "logit_scale_init_value": LOGIT_SCALE,
        "vision_config": vision_config,
        "text_config": text_config,
    }
    config = parse_config(raw)
    params = {f"vision_model.{name}": value for name, value in vision_tensors.items()}
    params |= {f"text_model.{name}": value for name, value in text_tensors.items()}
    fresh = [name for name in tensor_shapes(config) if name not in params]
    if poolers := [name for name in fresh if "_model." in name]:
        LOG.warning("published without %s, which start fresh: train before use.", " and ".join(poolers))
    params |= init_params(config, seed, fresh)
    tokens = load_tokenizer(tokenizer_folder(tokenizer) if tokenizer else text_folder, config.text)
    model = Model(params, config, tokens, read_image_processor(vision_folder, config.vision), raw)
    length = tokens.context_length
    if sentence:
        check_case(sentence, tokens)
        # It pads to the longest caption of a batch: on the left, one and the same would have another vector in each.
        model = dataclasses.replace(model, tokenizer=padding_right(tokens))
        length = min(sentence.max_length or length, config.text.max_length)
    return with_context_length(model, min(length, JOINED_CONTEXT_LENGTH))


def _read_tower(folder: Path, side: Side, pooling: str = "") -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The config of one tower and its tensors, named without a prefix."""
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no single tower: it has no config.json.")
    raw, tensors = open_folder(folder)
    config = tower_config(raw, side, pooling)
    warn_unread(raw, folder)
    shapes = vision_shapes(parse_vision(config)) if side == "vision" else text_shapes(parse_text(config))
    tensors = without_attribute(tensors, lambda name: _WRAPPERS.sub("", name) in shapes)
    other = "text_model." if side == "vision" else "vision_model."
    tensors = {_WRAPPERS.sub("", name): tensor for name, tensor in tensors.items() if not name.startswith(other)}
    heads = re.compile(rf"({'|'.join((*_HEADS, 'pooler') if pooling else _HEADS)})(\.|$)")
    heads_by_name = {name: match[1] for name in tensors.keys() - shapes.keys() if (match := heads.match(name))}
    unused = sorted({*heads_by_name.values()} - {"pooler"})  # which sentence-transformers leaves out as well
    if unused and raw.get("model_type") not in DUAL_ENCODERS:  # whose projections are known to start fresh
        LOG.warning("%s: left out what is no part of a %s tower: %s.", folder, side, ", ".join(unused))
    tensors = {name: tensor for name, tensor in tensors.items() if name not in heads_by_name}
    shapes = {name: shape for name, shape in shapes.items() if name in tensors or not name.startswith("pooler.")}
    return config, read_tensors(tensors, shapes, folder)


def _with_field(raw: dict[str, Any], side: Side, name: str, value: int) -> dict[str, Any]:
    """A raw config with one field of one tower changed, in transformers' or open_clip's layout."""
    if "model_cfg" in raw:
        return {**raw, "model_cfg": _with_field(raw["model_cfg"], side, name, value)}
    key = next(key for key in (side, f"{side}_config", f"{side}_cfg") if key in raw)
    return {**raw, key: {**raw[key], name: value}}

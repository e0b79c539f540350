"""A trained model at another resolution or context length, by interpolating its position embeddings."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from medclip.errors import UserError
from medclip.model.checkpoint import Model
from medclip.model.families import TEXT, VISION
from medclip.model.tokenizer import with_length


def with_side(model: Model, side: int) -> Model:
    """The model for images of side x side pixels; its grid of positions is interpolated (bicubic)."""
    tower, family = model.config.vision, VISION[model.config.vision.model_type]
    if side == tower.image_size:
        return model
    if side < tower.patch_size:
        raise UserError(f"--image-size {side} is smaller than a patch ({tower.patch_size} px).")
    name, old, new = tower.prefix + family.position, tower.image_size // tower.patch_size, side // tower.patch_size
    table = np.asarray(model.params[name])
    rows = table.reshape(-1, tower.hidden_size)
    first, grid = rows[: bool(family.class_token)], rows[bool(family.class_token) :].reshape(old, old, -1)
    grid = jax.image.resize(jnp.asarray(grid), (new, new, grid.shape[-1]), "cubic").reshape(new * new, -1)
    fitted = np.concatenate([first, np.asarray(grid)])
    square = {"height": side, "width": side}
    size = model.preprocessor.get("size")
    by_edge = isinstance(size, dict) and "shortest_edge" in size
    edge = round(side * size["shortest_edge"] / tower.image_size) if by_edge else 0  # DINOv2 crops 224 of 256
    changes = {"size": {"shortest_edge": edge} if by_edge else square, "crop_size": square}
    return dataclasses.replace(
        model,
        params={**model.params, name: fitted.reshape(*table.shape[:-2], *fitted.shape)},
        config=dataclasses.replace(model.config, vision=dataclasses.replace(tower, image_size=side)),
        preprocessor=model.preprocessor | changes,
        raw_config=_saying(model.raw_config, "vision", "image_size", side),
    )


def with_tokens(model: Model, length: int) -> Model:
    """The model for captions of up to `length` tokens; positions beyond the tower's own are interpolated (linear).

    UserError where the tower cannot: RoBERTa numbers its positions from the padding id on, SigLIP pools its last one.
    """
    tower, family = model.config.text, TEXT[model.config.text.model_type]
    if length == model.tokenizer.length:
        return model
    if length < 3 or (length > tower.max_length and family.after_padding):
        raise UserError(f"--context-length {length}: this text tower has positions for 3 to {tower.max_length} tokens.")
    if family.pool == "last" and length < tower.max_length:
        raise UserError(f"--context-length {length}: this text tower pools position {tower.max_length}; give no fewer.")
    model = dataclasses.replace(model, tokenizer=with_length(model.tokenizer, length))
    if length <= tower.max_length:
        return model
    name = tower.prefix + family.position
    table = jax.image.resize(jnp.asarray(model.params[name]), (length, tower.hidden_size), "linear")
    at = "context_length" if "model_cfg" in model.raw_config else "max_position_embeddings"
    return dataclasses.replace(
        model,
        params={**model.params, name: np.asarray(table)},
        config=dataclasses.replace(model.config, text=dataclasses.replace(tower, max_position_embeddings=length)),
        raw_config=_saying(model.raw_config, "text", at, length),
    )


def _saying(said: dict[str, Any], side: str, name: str, value: int) -> dict[str, Any]:
    if "model_cfg" in said:
        return {**said, "model_cfg": _saying(said["model_cfg"], f"{side}_cfg", name, value)}
    at = side if side in said else f"{side}_config"
    return {**said, at: {**said[at], name: value}}

"""Which tensors a run has, and how fast each of them learns."""

from __future__ import annotations

from typing import Any

import numpy as np

from medclip.errors import UserError
from medclip.model.checkpoint import Model
from medclip.train.config import TrainConfig
from medclip.train.lora import adapted, updates
from medclip.train.optim import in_tower, lr_scales


def is_sigmoid(model: Model, recipe: TrainConfig) -> bool:
    """Whether the loss is the sigmoid one: as asked, or for a model that was made with it."""
    chosen = recipe.loss == "sigmoid" or (recipe.loss is None and model.config.logit_bias)
    if chosen and recipe.soft_target_temperature:
        raise UserError(
            "--soft-target-temperature are defined for the contrastive loss: add --loss contrastive, or leave them out."
        )
    return chosen


def trainable_params(model: Model, recipe: TrainConfig) -> tuple[dict[str, Any], dict[str, float]]:
    """All tensors of a run by name, and each one's share of the learning rate."""
    params = dict(model.params)
    if is_sigmoid(model, recipe) and "logit_bias" not in params:
        params["logit_bias"] = np.float32(-10)  # the loss's own, not the model's: cosines are the same without it
    shares = lr_scales(params, model.config, recipe)
    if recipe.lora_rank:
        towers = (model.config.vision, model.config.text)
        matrices = [name for name in adapted(params, params, model.config) if shares[name]]
        extra = updates(matrices, params, recipe.lora_rank, recipe.seed)
        learned = {name: shares[name.rsplit(".", 1)[0]] for name in extra}
        shares = {name: 0.0 if any(in_tower(name, t) for t in towers) else share for name, share in shares.items()}
        params, shares = params | extra, shares | learned
    return params, shares

"""Low-rank updates of the towers' matrices (Hu et al. 2021); the folder written is a plain model."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from medclip.model.config import ModelConfig
from medclip.model.towers import Params
from medclip.train.optim import in_tower

_DOWN, _UP = ".lora_down", ".lora_up"


def adapted(names: Iterable[str], params: Params, config: ModelConfig) -> list[str]:
    """The matrices that get an update: weights of linear layers inside the towers."""
    towers = (config.vision, config.text)
    linear = [name for name in names if name.endswith("weight") and params[name].ndim == 2 and "embed" not in name]
    return [name for name in linear if any(in_tower(name, tower) for tower in towers)]


def updates(names: Iterable[str], params: Params, rank: int, seed: int) -> Params:
    """Fresh factors: NAME.lora_down (rank, in), random, and NAME.lora_up (out, rank), zero: nothing changes yet."""
    rng, found = np.random.default_rng(seed), {}
    for name in names:
        out, into = params[name].shape
        found[name + _DOWN] = (rng.standard_normal((rank, into)) * into**-0.5).astype(np.float32)
        found[name + _UP] = np.zeros((out, rank), np.float32)
    return found


def merged(params: Params) -> Params:
    """The parameters with every update added to its matrix, under the model's own names."""
    plain = {name: value for name, value in params.items() if not name.endswith((_DOWN, _UP))}
    for name in [at.removesuffix(_UP) for at in params if at.endswith(_UP)]:
        plain[name] = plain[name] + params[name + _UP] @ params[name + _DOWN]
    return plain

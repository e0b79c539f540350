"""Which tensors are trained, at which rate, and by which rule; low-rank updates (LoRA, Hu et al. 2021)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from medclip.errors import UserError
from medclip.model.checkpoint import Model
from medclip.model.config import ModelConfig, TextConfig, VisionConfig
from medclip.model.layers import multiply
from medclip.model.shapes_init import in_tower
from medclip.model.towers import Params
from medclip.require import require
from medclip.training.config import ResolvedTrainConfig
from medclip.training.losses import is_sigmoid

if TYPE_CHECKING:
    import optax
else:
    optax = require("optax", extra="train")

_LORA_DOWN, _LORA_UP = ".lora_down", ".lora_up"
SIGMOID_BIAS = np.array(-10, np.float32)  # Zhai et al. 2023, section 3.2


def initial_params(model: Model, config: ResolvedTrainConfig) -> tuple[Params, dict[str, float]]:
    """All tensors of a run by name, with the loss's bias and LoRA's factors, and the learning-rate scale of each.

    The contrastive loss leaves a model's bias alone: its gradient is mere rounding, of which Adam would make steps.
    """
    params, sigmoid = dict(model.params), is_sigmoid(model, config)
    if sigmoid and "logit_bias" not in params:
        params["logit_bias"] = SIGMOID_BIAS  # the loss's own, not the model's: cosines are the same without it
    scales = lr_scales(params, model.config, config)
    if not sigmoid and "logit_bias" in scales:
        scales["logit_bias"] = 0.0
    if config.lora_rank:
        towers = (model.config.vision, model.config.text)
        matrices = [name for name in lora_matrices(params, model.config) if scales[name]]
        factors = init_lora(matrices, params, config.lora_rank, config.seed)
        factor_scales = {name: scales[_matrix_of(name)] for name in factors}
        scales = {name: 0.0 if any(in_tower(name, t) for t in towers) else scale for name, scale in scales.items()}
        params, scales = params | factors, scales | factor_scales
    return params, scales


def lr_scales(names: Iterable[str], config: ModelConfig, settings: ResolvedTrainConfig) -> dict[str, float]:
    """Each tensor's learning rate as a fraction of `settings.lr`; 0 is frozen.

    UserError for a pattern that matches no tensor, and where nothing is left to train.
    """
    names = list(names)
    for pattern in settings.freeze:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"--freeze {pattern!r} names no tensor of the model; one is called {names[-1]!r}.")
    scales = {name: _lr_scale(name, config, settings) for name in names}
    if not any(scales.values()):
        raise UserError("--freeze leaves nothing to train.")
    return scales


def is_frozen(tower: VisionConfig | TextConfig, scales: Mapping[str, float]) -> bool:
    """Whether no tensor of a tower is trained; its projection does not count."""
    return not any(scale for name, scale in scales.items() if in_tower(_matrix_of(name), tower))


def num_frozen_layers(tower: VisionConfig, scales: Mapping[str, float]) -> int:
    """The layers of a ViT with nothing trained in them or below them; 0 of a ResNet."""
    if tower.stages:
        return 0
    trained = [_matrix_of(name) for name, scale in scales.items() if scale]
    trained = [name.removeprefix(tower.prefix) for name in trained if in_tower(name, tower)]
    return max(0, tower.num_hidden_layers - max((_layers_above(name, tower) for name in trained), default=0))


def _matrix_of(name: str) -> str:
    """The matrix that a factor of LoRA is of; another tensor's own name."""
    return name.removesuffix(_LORA_DOWN).removesuffix(_LORA_UP)


def _lr_scale(name: str, config: ModelConfig, settings: ResolvedTrainConfig) -> float:
    unused = config.vision.family.unused
    if (unused and name == config.vision.prefix + unused) or any(fnmatchcase(name, p) for p in settings.freeze):
        return 0.0
    for tower, lr in ((config.vision, settings.vision_lr), (config.text, settings.text_lr)):
        if in_tower(name, tower):
            layers_above = _layers_above(name.removeprefix(tower.prefix), tower)
            return lr / settings.lr * settings.layerwise_lr_decay**layers_above
    return 1.0


def _layers_above(name: str, tower: VisionConfig | TextConfig) -> int:
    """How far below the projection a tensor works: 0 after the last layer, 1 in it (Clark et al. 2020, ELECTRA)."""
    if isinstance(tower, VisionConfig):
        if tower.stages:
            return _bottlenecks_above(name, tower)
        family = tower.family
        tokens = (family.class_token, family.distillation_token, family.registers)
        below = (*tokens, family.patch, family.position, family.pre_norm)
    else:
        family = tower.family
        below = (family.token, family.position, family.types, family.embed_norm, family.relative_bias)
    if name.startswith(f"{family.block.stack}."):
        return tower.num_hidden_layers - int(name[len(family.block.stack) + 1 :].split(".")[0])
    return tower.num_hidden_layers + 1 if any(prefix and name.startswith(prefix) for prefix in below) else 0


def _bottlenecks_above(name: str, tower: VisionConfig) -> int:
    """The same of a ResNet, whose layers are its bottlenecks: the stem is below them, the attention pool above."""
    if match := re.match(r"layer(\d+)\.(\d+)\.", name):
        return tower.num_hidden_layers - sum(tower.stages[: int(match[1]) - 1]) - int(match[2])
    return 0 if name.startswith("attnpool.") else tower.num_hidden_layers + 1


def make_optimizer(config: ResolvedTrainConfig, scales: Mapping[str, float]) -> optax.GradientTransformation:
    """AdamW with warm-up and cosine decay, betas of Radford et al. 2021; biases, norms and scalars do not decay."""
    warmup = max(1, round(config.warmup_ratio * config.steps)) if config.warmup_ratio else 0
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.lr, warmup, max(config.steps, warmup + 1), config.lr / 100
    )

    def decay_mask(params: Any) -> dict[str, bool]:
        return {name: p.ndim > 1 for name, p in params.items()}

    def scale_updates(updates: Any, params: Any) -> dict[str, jax.Array]:
        return {name: update * scales.get(name, 1.0) for name, update in updates.items()}

    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, b1=0.9, b2=0.98, weight_decay=config.weight_decay, mask=decay_mask),
        optax.stateless(scale_updates),
    )


def lora_matrices(params: Params, config: ModelConfig) -> list[str]:
    """The matrices that get a low-rank update: weights of linear layers inside the towers."""
    towers = (config.vision, config.text)
    tables = ("embed", "relative_attention_bias")
    linear = [name for name, p in params.items() if name.endswith("weight") and p.ndim == 2]
    linear = [name for name in linear if not any(table in name for table in tables)]
    return [name for name in linear if any(in_tower(name, tower) for tower in towers)]


def init_lora(names: Iterable[str], params: Params, rank: int, seed: int) -> Params:
    """Fresh factors: NAME.lora_down (rank, in), random, and NAME.lora_up (out, rank), zero: nothing changes yet."""
    rng, factors = np.random.default_rng(seed), {}
    for name in names:
        fan_out, fan_in = params[name].shape
        factors[name + _LORA_DOWN] = (rng.standard_normal((rank, fan_in)) * fan_in**-0.5).astype(np.float32)
        factors[name + _LORA_UP] = np.zeros((fan_out, rank), np.float32)
    return factors


def merge_lora(params: Params) -> Params:
    """The parameters with every update added to its matrix, under the model's own names."""
    plain = {name: value for name, value in params.items() if not name.endswith((_LORA_DOWN, _LORA_UP))}
    for name in [factor.removesuffix(_LORA_UP) for factor in params if factor.endswith(_LORA_UP)]:
        plain[name] = plain[name] + multiply(params[name + _LORA_UP], params[name + _LORA_DOWN])
    return plain

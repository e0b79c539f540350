"""Which tensors learn, how fast, and by which rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import optax

from medclip.errors import UserError
from medclip.model.config import ModelConfig, TextConfig, VisionConfig
from medclip.model.families import TEXT, VISION
from medclip.train.config import TrainConfig


def lr_scales(names: Iterable[str], config: ModelConfig, recipe: TrainConfig) -> dict[str, float]:
    """Each tensor's learning rate as a share of `recipe.lr`; 0 is frozen. UserError for a pattern without a tensor."""
    names = list(names)
    for pattern in recipe.freeze:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"--freeze {pattern!r} names no tensor of the model; one is called {names[-1]!r}.")
    found = {name: _rate(name, config, recipe) for name in names}
    if not any(found.values()):
        raise UserError("--freeze leaves nothing to train.")
    return found


def is_frozen(tower: VisionConfig | TextConfig, found: Mapping[str, float]) -> bool:
    """Whether no tensor of a tower learns; its projection does not count."""
    return not any(rate for name, rate in found.items() if in_tower(name, tower))


def in_tower(name: str, tower: VisionConfig | TextConfig) -> bool:
    """Whether a tensor belongs to a tower, projection apart."""
    return name.startswith(tower.prefix) and name not in tower.projection


def _rate(name: str, config: ModelConfig, recipe: TrainConfig) -> float:
    if any(fnmatchcase(name, pattern) for pattern in recipe.freeze):
        return 0.0
    for tower, lr in ((config.vision, recipe.vision_lr), (config.text, recipe.text_lr)):
        if in_tower(name, tower):
            share = 1.0 if lr is None else lr / recipe.lr
            return share * recipe.layerwise_lr_decay ** _layers_above(name.removeprefix(tower.prefix), tower)
    return 1.0


def _layers_above(name: str, tower: VisionConfig | TextConfig) -> int:
    """How far below the projection a tensor works: 0 after the last layer, 1 in it (Clark et al. 2020, ELECTRA)."""
    if isinstance(tower, VisionConfig):
        family = VISION[tower.model_type]
        below = (family.class_token, family.patch, family.position, family.pre_norm, family.unused)
    else:
        family = TEXT[tower.model_type]
        below = (family.token, family.position, family.types, family.embed_norm)
    if name.startswith(f"{family.block.stack}."):
        return tower.num_hidden_layers - int(name[len(family.block.stack) + 1 :].split(".")[0])
    return tower.num_hidden_layers + 1 if any(at and name.startswith(at) for at in below) else 0


def optimizer(recipe: TrainConfig, shares: Mapping[str, float]) -> optax.GradientTransformation:
    """AdamW with warm-up and cosine, betas of Radford et al. 2021; biases, norms and scalars do not decay."""
    warmup = max(1, round(recipe.warmup_ratio * recipe.steps))
    rate = optax.warmup_cosine_decay_schedule(0.0, recipe.lr, warmup, max(recipe.steps, warmup + 1), recipe.lr / 100)
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            rate,
            b1=0.9,
            b2=0.98,
            weight_decay=recipe.weight_decay,
            mask=lambda params: {name: p.ndim > 1 and "mask_token" not in name for name, p in params.items()},
        ),
        optax.stateless(lambda updates, _: {name: u * shares.get(name, 1.0) for name, u in updates.items()}),
    )

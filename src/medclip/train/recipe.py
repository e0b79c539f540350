"""The settings of a run, as one value: what `RUN/config.json` records and a resume compares."""

from __future__ import annotations

from dataclasses import dataclass

import optax

from medclip.errors import UserError

_STARTS = ([True, False, False, False], [False, True, False, False], [False, False, True, True])


@dataclass(frozen=True)
class Recipe:
    """How a model is trained; written to RUN/config.json."""

    preset: str | None
    steps: int
    batch: int
    lr: float
    seed: int
    weight_decay: float = 0.2
    warmup_fraction: float = 0.1
    evaluations: int = 12
    """How often validation is measured over the run."""
    vocab_size: int = 6000
    """Size of the vocabulary learnt from the training captions."""
    exchanged_sides: float = 0.5
    """Captions with left and right exchanged, as negatives of the pictures: at most this share of the batch."""

    init: str | None = None
    """A model to start from, in place of a preset."""
    vision: str | None = None
    """With `text`: towers to join, in place of a preset."""
    text: str | None = None
    side: int | None = None
    """Resolution of the pictures, where it is not the model's own."""
    max_tokens: int | None = None
    """Context length of the captions, where it is not the model's own."""

    def __post_init__(self) -> None:
        if self.batch < 2 or self.steps < 1 or self.lr <= 0 or self.seed < 0:
            raise UserError("--batch must be at least 2, --steps at least 1, --lr above 0 and --seed at least 0.")
        if [bool(self.preset), bool(self.init), bool(self.vision), bool(self.text)] not in _STARTS:
            raise UserError("a run starts from one of --preset, --init MODEL, or --vision MODEL with --text MODEL.")


def optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """AdamW with warm-up and cosine, betas of Radford et al. 2021; biases, norms and scalars do not decay."""
    warmup = max(1, round(recipe.warmup_fraction * recipe.steps))
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
    )

"""The settings of a run, as one value: flags of `medclip train`, RUN/config.json, what a resume compares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from medclip.errors import UserError

_STARTS = ([True, False, False, False], [False, True, False, False], [False, False, True, True])


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is trained. What is None is chosen by `settled`."""

    init: str | None = None
    """A dual encoder to fine-tune; after training, weights between it and the last are tried too (WiSE-FT)."""
    vision: str | None = None
    """A vision tower to join with --text: ViT, DINOv2, CLIP or SigLIP."""
    text: str | None = None
    """A text tower to join with --vision: BERT, RoBERTa or CLIP."""
    preset: Literal["tiny", "small"] | None = None
    """From scratch (the default: small). tiny: 64 px, 3+1 layers of width 96, enough for phantoms.
    small: 96 px, 6+3 layers of width 192."""
    side: int | None = None
    """Another resolution than the model's own, in pixels; position embeddings are interpolated."""
    max_tokens: int | None = None
    """Another context length than the model's own; position embeddings are interpolated."""
    vocab_size: int = 6000
    """Most tokens of the vocabulary that a preset learns from the training captions."""

    steps: int | None = None
    """Optimizer steps; takes the place of --epochs."""
    epochs: float = 30.0
    """Passes over the training split."""
    batch: int = 128
    """Pairs per step, over all devices; every other pair of the batch is a negative."""
    microbatch: int | None = None
    """Pairs encoded at a time (GradCache): memory is that of a microbatch, negatives and gradient are the batch's."""
    seed: int = 0
    """Seed of weights, order and augmentation."""

    loss: Literal["contrastive", "sigmoid"] | None = None
    """Symmetric InfoNCE, or SigLIP's sigmoid loss; by default what the model's family was made with."""
    exchanged_sides: float = 0.0
    """Captions with left and right exchanged, as negatives of the pictures: at most this share of the batch."""
    soft_targets: float | None = None
    """Temperature of targets that are shared with pairs of overlapping UMLS concepts; without it, a pair's own only."""

    lr: float | None = None
    """Peak learning rate, after warm-up and before cosine decay; 1e-3 from scratch, 5e-5 joined, 1e-5 with --init."""
    vision_lr: float | None = None
    """Another peak learning rate for the vision tower."""
    text_lr: float | None = None
    """Another peak learning rate for the text tower."""
    layer_decay: float = 1.0
    """Each layer learns at this share of the rate of the layer above it."""
    freeze: tuple[str, ...] = ()
    """Tensors that stay as they are, by name: "vision_model.*" is CLIP's whole vision tower, whose features are then
    computed once, without augmentation."""
    lora: int = 0
    """Rank of low-rank updates of the towers' matrices, in place of training the towers; 0: none."""
    weight_decay: float = 0.2
    """Decoupled weight decay of matrices."""
    warmup_fraction: float = 0.1
    """Share of the steps in which the learning rate rises."""
    ema: float = 0.0
    """Decay of an average of the weights, which is then what is measured and kept; 0: none."""

    smallest_crop: float = 0.9
    """Least share of a picture's area that a random crop keeps; 1: no crops."""
    rotation: float = 0.0
    """Largest random rotation, in degrees."""
    flip: bool = False
    """Flip every second picture left to right, which makes left and right wrong in captions."""
    patch_dropout: float = 0.0
    """Share of the patches that the vision tower does not see in a step."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the towers' work; parameters, norms and loss are float32."""
    remat: bool = False
    """Compute each layer's insides again in the backward pass: less memory, about a third more work."""
    fsdp: bool = False
    """Spread parameters and optimizer state over the devices, in place of a copy on each."""

    evaluations: int = 12
    """How often validation is measured over the run, and the state saved; it is also measured before the first step."""
    patience: int | None = None
    """Stop after this many evaluations without a better mean recall."""
    guard: Literal["stop", "warn"] = "stop"
    """What to do when validation recall is clearly below that before the first step."""

    def __post_init__(self) -> None:
        for name, least, most in _RANGES:
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"{flag} {value} is out of range: {least} to {most:g}.")
        if self.microbatch and self.batch % self.microbatch:
            raise UserError(f"--microbatch {self.microbatch} does not divide --batch {self.batch}.")


_INF, _LEAST = float("inf"), 1e-12
_RANGES = (
    ("steps", 1, _INF), ("epochs", _LEAST, _INF), ("batch", 2, _INF), ("microbatch", 1, _INF), ("seed", 0, _INF),
    ("exchanged_sides", 0, 1), ("soft_targets", _LEAST, _INF), ("lr", _LEAST, _INF), ("vision_lr", 0, _INF),
    ("text_lr", 0, _INF), ("layer_decay", _LEAST, 1), ("lora", 0, 4096), ("weight_decay", 0, _INF),
    ("warmup_fraction", 0, 1), ("ema", 0, 1 - 1e-7), ("smallest_crop", 0.01, 1), ("rotation", 0, 180),
    ("patch_dropout", 0, 0.95), ("evaluations", 1, _INF), ("patience", 1, _INF), ("vocab_size", 300, _INF),
)  # fmt: skip


def settled(recipe: Recipe, pairs: int) -> Recipe:
    """The recipe with everything chosen that depends on its start or on the number of training pairs."""
    preset = recipe.preset or (None if recipe.init or recipe.vision or recipe.text else "small")
    if [bool(preset), bool(recipe.init), bool(recipe.vision), bool(recipe.text)] not in _STARTS:
        raise UserError("a run starts from one of --preset, --init MODEL, or --vision MODEL with --text MODEL.")
    if recipe.batch > pairs:
        raise UserError(f"--batch {recipe.batch} is larger than the training split ({pairs} pairs).")
    steps = recipe.steps or max(1, round(recipe.epochs * pairs / recipe.batch))
    lr = recipe.lr or (1e-3 if preset else 1e-5 if recipe.init else 5e-5)
    return replace(recipe, preset=preset, steps=steps, lr=lr)

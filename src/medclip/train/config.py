"""The settings of a run, as one value: flags of `medclip train`, RUN/config.json, what a resume compares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from medclip.errors import UserError

_STARTS = ([True, False, False, False], [False, True, False, False], [False, False, True, True])


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained. What is None is chosen by `settled`."""

    init: str | None = None
    """A dual encoder to fine-tune; after training, weights between it and the last are tried too (WiSE-FT)."""
    vision_model: str | None = None
    """A vision tower to join with --text-model: ViT, DINOv2, CLIP or SigLIP."""
    text_model: str | None = None
    """A text tower to join with --vision-model: BERT, RoBERTa or CLIP."""
    preset: Literal["tiny", "small"] | None = None
    """From scratch (the default: small). tiny: 64 px, 3+1 layers of width 96, enough for phantoms.
    small: 96 px, 6+3 layers of width 192."""
    image_size: int | None = None
    """Another resolution than the model's own, in pixels; position embeddings are interpolated."""
    context_length: int | None = None
    """Another context length than the model's own; position embeddings are interpolated."""
    vocab_size: int = 6000
    """Most tokens of the vocabulary that a preset learns from the training captions."""

    steps: int | None = None
    """Optimizer steps; takes the place of --epochs."""
    epochs: float = 30.0
    """Passes over the training split."""
    batch_size: int = 128
    """Pairs per step, over all devices; every other pair of the batch is a negative."""
    micro_batch_size: int | None = None
    """Pairs encoded at a time (GradCache): memory is that of a microbatch, negatives and gradient are the batch's."""
    seed: int = 0
    """Seed of weights, order and augmentation."""

    loss: Literal["contrastive", "sigmoid"] | None = None
    """Symmetric InfoNCE, or SigLIP's sigmoid loss; by default what the model's family was made with."""
    hard_negatives: float = 0.0
    """Captions with left and right exchanged, as negatives of the images: at most this share of the batch."""
    soft_target_temperature: float | None = None
    """Temperature of targets that are shared with pairs of overlapping UMLS concepts; without it, a pair's own only."""

    lr: float | None = None
    """Peak learning rate, after warm-up and before cosine decay; 1e-3 from scratch, 5e-5 joined, 1e-5 with --init."""
    vision_lr: float | None = None
    """Another peak learning rate for the vision tower."""
    text_lr: float | None = None
    """Another peak learning rate for the text tower."""
    layerwise_lr_decay: float = 1.0
    """Each layer learns at this share of the rate of the layer above it."""
    freeze: tuple[str, ...] = ()
    """Tensors that stay as they are, by name: "vision_model.*" is CLIP's whole vision tower, whose features are then
    computed once, without augmentation."""
    lora_rank: int = 0
    """Rank of low-rank updates of the towers' matrices, in place of training the towers; 0: none."""
    weight_decay: float = 0.2
    """Decoupled weight decay of matrices."""
    warmup_ratio: float = 0.1
    """Share of the steps in which the learning rate rises."""
    ema_decay: float = 0.0
    """Decay of an average of the weights, which is then what is measured and kept; 0: none."""

    min_crop_scale: float = 0.9
    """Least share of an image's area that a random crop keeps; 1: no crops."""
    rotation: float = 0.0
    """Largest random rotation, in degrees."""
    flip: bool = False
    """Flip every second image left to right, which makes left and right wrong in captions."""
    patch_dropout: float = 0.0
    """Share of the patches that the vision tower does not see in a step."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the towers' work; parameters, norms and loss are float32."""
    gradient_checkpointing: bool = False
    """Compute each layer's insides again in the backward pass: less memory, about a third more work."""
    fsdp: bool = False
    """Spread parameters and optimizer state over the devices, in place of a copy on each."""

    num_evals: int = 12
    """How often validation is measured over the run, and the state saved; it is also measured before the first step."""
    early_stopping_patience: int | None = None
    """Stop after this many evaluations without a better mean recall."""
    on_regression: Literal["stop", "warn"] = "stop"
    """What to do when validation recall is clearly below that before the first step."""

    def __post_init__(self) -> None:
        for name, least, most in _RANGES:
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"{flag} {value} is out of range: {least} to {most:g}.")
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise UserError(
                f"--micro-batch-size {self.micro_batch_size} does not divide --batch-size {self.batch_size}."
            )


_INF, _LEAST = float("inf"), 1e-12
_RANGES = (
    ("steps", 1, _INF),
    ("epochs", _LEAST, _INF),
    ("batch_size", 2, _INF),
    ("micro_batch_size", 1, _INF),
    ("seed", 0, _INF),
    ("hard_negatives", 0, 1),
    ("soft_target_temperature", _LEAST, _INF),
    ("lr", _LEAST, _INF),
    ("vision_lr", 0, _INF),
    ("text_lr", 0, _INF),
    ("layerwise_lr_decay", _LEAST, 1),
    ("lora_rank", 0, 4096),
    ("weight_decay", 0, _INF),
    ("warmup_ratio", 0, 1),
    ("ema_decay", 0, 1 - 1e-7),
    ("min_crop_scale", 0.01, 1),
    ("rotation", 0, 180),
    ("patch_dropout", 0, 0.95),
    ("num_evals", 1, _INF),
    ("early_stopping_patience", 1, _INF),
    ("vocab_size", 300, _INF),
)


def resolve(recipe: TrainConfig, pairs: int) -> TrainConfig:
    """The recipe with everything chosen that depends on its start or on the number of training pairs."""
    preset = recipe.preset or (None if recipe.init or recipe.vision_model or recipe.text_model else "small")
    if [bool(preset), bool(recipe.init), bool(recipe.vision_model), bool(recipe.text_model)] not in _STARTS:
        raise UserError(
            "a run starts from one of --preset, --init MODEL, or --vision-model MODEL with --text-model MODEL."
        )
    if recipe.batch_size > pairs:
        raise UserError(f"--batch-size {recipe.batch_size} is larger than the training split ({pairs} pairs).")
    steps = recipe.steps or max(1, round(recipe.epochs * pairs / recipe.batch_size))
    lr = recipe.lr or (1e-3 if preset else 1e-5 if recipe.init else 5e-5)
    return replace(recipe, preset=preset, steps=steps, lr=lr)

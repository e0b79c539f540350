"""Training settings: as a user gives them (TrainConfig), and with every choice made (ResolvedTrainConfig)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from medclip.data.hard_negatives import KINDS
from medclip.errors import UserError
from medclip.model.config import PRESETS

LossName = Literal["auto", "contrastive", "sigmoid"]
Precision = Literal["float32", "bfloat16"]
OnRegression = Literal["stop", "warn"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training settings. What is None is chosen by `resolve`. UserError for a value out of range."""

    init: str | None = None
    """Dual encoder to fine-tune; after training, weights between it and the last ones are evaluated too (WiSE-FT)."""
    vision_model: str | None = None
    """Vision tower to join with --text-model: ViT, DINOv2, CLIP or SigLIP."""
    text_model: str | None = None
    """Text tower to join with --vision-model: BERT, RoBERTa or CLIP."""
    tokenizer: str | None = None
    """Folder or model whose tokenizer is used with --init or --text-model, where that holds none; it is saved with the
    run's model (flax-community/medclip-roco: allenai/scibert_scivocab_uncased)."""
    preset: Literal["tiny", "small"] | None = None
    """From scratch (the default: small). tiny: 64 px, 3+1 layers of width 96, enough for phantoms.
    small: 96 px, 6+3 layers of width 192."""
    image_size: int | None = None
    """Image side in pixels, if not the model's own: resize and crop are scaled, position embeddings interpolated."""
    context_length: int | None = None
    """Tokens per caption, if not the model's own; position embeddings are interpolated."""
    vocab_size: int = 6000
    """Maximum size of the vocabulary that a preset learns from the training captions."""

    steps: int | None = None
    """Optimizer steps; overrides --epochs."""
    epochs: float = 30.0
    """Passes over the training split."""
    batch_size: int = 128
    """Pairs per step, over all devices; every other pair of the batch is a negative."""
    micro_batch_size: int | None = None
    """Pairs encoded at a time: uses the memory of these for the exact loss and gradient of the batch (GradCache)."""
    seed: int = 0
    """Seed of weights, order and augmentation."""

    loss: LossName = "auto"
    """Symmetric InfoNCE (CLIP) or the sigmoid loss (SigLIP); auto: the one the model was trained with."""
    hard_negatives: tuple[str, ...] = ()
    """Kinds of foils that each image has as extra candidates beside the captions of the batch (NegCLIP): left-right,
    negation, plane, modality, order; with commas or spaces between. Each adds up to one caption per pair to a step."""

    lr: float | None = None
    """Peak learning rate (warm-up, then cosine decay); default 1e-3 from scratch, 5e-5 joined, 1e-5 with --init."""
    vision_lr: float | None = None
    """Peak learning rate of the vision tower, if not --lr."""
    text_lr: float | None = None
    """Peak learning rate of the text tower, if not --lr."""
    layerwise_lr_decay: float = 1.0
    """Each layer's learning rate is that of the layer above times this factor."""
    freeze: tuple[str, ...] = ()
    """Name patterns of tensors that are not trained. "vision_model.*" is CLIP's whole vision tower, whose features are
    then computed once, without augmentation but for --cached-views."""
    cached_views: int = 0
    """Augmented views of each image that go once through the frozen layers of the vision tower, all or the first ones;
    each step draws one. 0: a frozen tower is given the image as it is, and first layers are run at each step."""
    lora_rank: int = 0
    """Rank of low-rank updates of the towers' matrices (LoRA); 0: the towers themselves are trained."""
    weight_decay: float = 0.2
    """Decoupled weight decay of matrices."""
    warmup_ratio: float = 0.1
    """Fraction of the steps in which the learning rate rises."""
    ema_decay: float = 0.0
    """EMA decay; 0 disables. If set, EMA weights are evaluated and saved."""

    min_crop_scale: float = 0.9
    """Minimum fraction of an image's area that a random crop keeps; 1 disables."""
    rotation: float = 0.0
    """Maximum random rotation, in degrees; 0 disables."""
    color_jitter: float = 0.2
    """Maximum random change of brightness and of contrast, as a fraction; 0 disables."""
    patch_dropout: float = 0.0
    """Fraction of the image patches that are dropped at each step; 0 disables."""

    precision: Precision = "float32"
    """Precision of the towers; parameters, norms and loss are float32, which is never rounded to TF32."""
    gradient_checkpointing: bool = False
    """Compute each layer's matrix products again too in the backward pass: less memory on a GPU or TPU, a third more
    work. On a CPU it frees nothing more."""
    fsdp: bool = False
    """Shard parameters and optimizer state over the devices; otherwise each device holds a copy."""

    num_evals: int = 12
    """Evaluations and saved states over the run; validation is also measured before the first step."""
    early_stopping_patience: int = 0
    """Stop after this many evaluations without a better one; 0 disables."""
    on_regression: OnRegression = "stop"
    """What to do when validation recall is significantly below that before the first step."""

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not (low <= value <= high and value < _INF):
                raise UserError(f"{_flag(name)} {value} is out of range: {low} to {high:g}.")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise UserError(f"{_flag(name)} {value!r} is not one of: {', '.join(choices)}.")
        given = {kind.strip() for names in self.hard_negatives for kind in names.split(",")}
        if unknown := sorted(given - {*KINDS}):
            raise UserError(f"--hard-negatives {unknown[0]!r} is not one of: {', '.join(KINDS)}.")
        object.__setattr__(self, "hard_negatives", tuple(kind for kind in KINDS if kind in given))
        if self.micro_batch_size and self.batch_size % self.micro_batch_size:
            raise UserError(
                f"--micro-batch-size {self.micro_batch_size} does not divide --batch-size {self.batch_size}."
            )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


_INF, _EPSILON = float("inf"), 1e-12
_RANGES = (
    ("image_size", 1, _INF),
    ("context_length", 2, _INF),
    ("vocab_size", 300, _INF),
    ("steps", 1, _INF),
    ("epochs", _EPSILON, _INF),
    ("batch_size", 2, _INF),
    ("micro_batch_size", 1, _INF),
    ("seed", 0, _INF),
    ("lr", _EPSILON, _INF),
    ("vision_lr", 0, _INF),
    ("text_lr", 0, _INF),
    ("layerwise_lr_decay", _EPSILON, 1),
    ("cached_views", 0, 4096),
    ("lora_rank", 0, 4096),
    ("weight_decay", 0, _INF),
    ("warmup_ratio", 0, 1),
    ("ema_decay", 0, 1 - 1e-7),
    ("min_crop_scale", 0.01, 1),
    ("rotation", 0, 180),
    ("color_jitter", 0, 1),
    ("patch_dropout", 0, 0.95),
    ("num_evals", 1, _INF),
    ("early_stopping_patience", 0, _INF),
)
_CHOICES = {
    "preset": PRESETS,
    "loss": get_args(LossName),
    "precision": get_args(Precision),
    "on_regression": get_args(OnRegression),
}


@dataclass(frozen=True)
class FromPreset:
    """Fresh weights in one of the shapes of `model.presets`."""

    preset: str


@dataclass(frozen=True)
class FromModel:
    """A dual encoder: a folder, a run or OWNER/NAME."""

    init: str
    tokenizer: str = ""
    """Another's; "": its own."""


@dataclass(frozen=True)
class FromTowers:
    """Two towers, joined by fresh projections."""

    vision_model: str
    text_model: str
    tokenizer: str = ""
    """Another's; "": the text tower's."""


RECORDED_FIELDS = ("data", "software")
"""Fields of `train_config.json` that are no settings: what was trained on, and by which software."""


@dataclass(frozen=True, kw_only=True)
class ResolvedTrainConfig:
    """A TrainConfig in which every choice is made, for a training split of known size. Fields as there."""

    start: FromPreset | FromModel | FromTowers
    image_size: int
    """0: the model's own, as for `context_length`."""
    context_length: int
    vocab_size: int
    steps: int
    batch_size: int
    micro_batch_size: int
    seed: int
    loss: LossName
    hard_negatives: tuple[str, ...]
    lr: float
    vision_lr: float
    text_lr: float
    layerwise_lr_decay: float
    freeze: tuple[str, ...]
    cached_views: int
    lora_rank: int
    weight_decay: float
    warmup_ratio: float
    ema_decay: float
    min_crop_scale: float
    rotation: float
    color_jitter: float
    patch_dropout: float
    precision: Precision
    gradient_checkpointing: bool
    fsdp: bool
    num_evals: int
    early_stopping_patience: int
    on_regression: OnRegression

    def to_json(self) -> dict[str, Any]:
        """The settings under their flags' names, as in `train_config.json`; a resumed run compares them."""
        settings = asdict(self)
        return settings.pop("start") | settings


def resolve(config: TrainConfig, num_pairs: int) -> ResolvedTrainConfig:
    """Choose what depends on the initial model or on the number of training pairs. UserError where they do not fit."""
    start = _start(config)
    if config.batch_size > num_pairs:
        raise UserError(f"--batch-size {config.batch_size} is larger than the training split ({num_pairs} pairs).")
    lr = config.lr or _DEFAULT_LR[type(start)]
    resolved = {
        "start": start,
        "image_size": config.image_size or 0,
        "context_length": config.context_length or 0,
        "steps": config.steps or max(1, round(config.epochs * num_pairs / config.batch_size)),
        "micro_batch_size": config.micro_batch_size or config.batch_size,
        "lr": lr,
        "vision_lr": lr if config.vision_lr is None else config.vision_lr,
        "text_lr": lr if config.text_lr is None else config.text_lr,
    }
    given = {f.name: getattr(config, f.name) for f in fields(ResolvedTrainConfig) if f.name not in resolved}
    return ResolvedTrainConfig(**resolved, **given)


_DEFAULT_LR = {FromPreset: 1e-3, FromModel: 1e-5, FromTowers: 5e-5}


def _start(config: TrainConfig) -> FromPreset | FromModel | FromTowers:
    tokenizer = config.tokenizer or ""
    match config.preset, config.init, config.vision_model, config.text_model:
        case preset, None, None, None:
            if tokenizer:
                raise UserError("--tokenizer goes with --init or --text-model; a preset learns its own.")
            return FromPreset(preset or "small")
        case None, str(model), None, None:
            return FromModel(model, tokenizer)
        case None, None, str(vision), str(text):
            return FromTowers(vision, text, tokenizer)
    raise UserError("a run starts from one of --preset, --init MODEL, or --vision-model MODEL with --text-model MODEL.")

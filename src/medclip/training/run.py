"""What does not change while a run goes on: its model before the first step, its pairs and its validation set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jax.sharding import Mesh

from medclip.data.dataset import Split
from medclip.data.hard_negatives import hard_negative_shares
from medclip.encode.encoder import jax_backend
from medclip.errors import UserError
from medclip.model.adapt import join_towers, with_context_length, with_image_size
from medclip.model.checkpoint import Model, load, model_hash
from medclip.model.config import PRESETS, parse_config, preset_config
from medclip.model.image_processor import square_image_processor
from medclip.model.packing import pack
from medclip.model.shapes_init import init_params
from medclip.model.tokenizer.text_tokenizer import train_tokenizer
from medclip.model.towers import Params
from medclip.progress import console
from medclip.training import distributed
from medclip.training.config import FromModel, FromPreset, FromTowers, ResolvedTrainConfig
from medclip.training.data import Pairs, count_blocks, read_pairs
from medclip.training.losses import Loss, contrastive_loss, is_sigmoid, sigmoid_loss
from medclip.training.optim import initial_params, is_frozen
from medclip.training.validation import ValidationSet, read_validation_set


@dataclass(frozen=True)
class Run:
    """All that a run is made of before its first step."""

    config: ResolvedTrainConfig
    model: Model
    """Before the first step."""
    params: Params
    """The model's, and what is trained beside them: a loss's bias, LoRA's factors."""
    lr_scales: dict[str, float]
    loss: Loss
    pairs: Pairs
    foil_shares: dict[str, float]
    """The share of training captions that have a hard negative, by its kind."""
    validation: Split
    validation_set: ValidationSet
    mesh: Mesh
    cache: bool
    """Whether what frozen towers give is kept for other runs."""


def prepare_run(
    config: ResolvedTrainConfig, training: Split, validation: Split, image_cache_gb: float, cache: bool
) -> Run:
    """The initial model, the pairs as its towers take them, and the decoded validation set."""
    mesh = distributed.all_devices()
    count_blocks(config, mesh.size)  # before the work, as every other setting that cannot be
    model = initial_model(config, training.iter_column("caption"))
    params, scales = initial_params(model, config)
    _check_images_are_changed(model, config, scales)
    if not is_frozen(model.config.text, scales):
        _check_pooling(model)
    loss = sigmoid_loss if is_sigmoid(model, config) else contrastive_loss
    foil_shares = _foil_shares(config, training)
    backend = jax_backend(model, cache)
    pairs = read_pairs(training, backend, config, scales, image_cache_gb)
    validation_set = read_validation_set(validation, backend, config, scales)
    return Run(config, model, params, scales, loss, pairs, foil_shares, validation, validation_set, mesh, cache)


def _check_images_are_changed(model: Model, config: ResolvedTrainConfig, scales: Mapping[str, float]) -> None:
    """Raise UserError for an option that would change nothing of this vision tower's images."""
    vision = model.config.vision
    if config.patch_dropout and vision.stages:
        raise UserError("--patch-dropout drops the tokens of a ViT; this vision tower is a ResNet.")
    if not is_frozen(vision, scales):
        return
    if config.patch_dropout:
        raise UserError("--patch-dropout drops patches in training; this vision tower is frozen, and runs before it.")
    if config.rotation and not config.cached_views:
        raise UserError("--rotation turns no image of a frozen vision tower, but those of --cached-views.")


def _check_pooling(model: Model) -> None:
    """UserError where the tokenizer pads at the token that the text tower pools, which no caption can be packed by."""
    ids, valid = model.tokenizer.encode(["CT"])
    pack(ids[None], valid[None], model.config.text)


def _foil_shares(config: ResolvedTrainConfig, training: Split) -> dict[str, float]:
    """`hard_negative_shares` of the training captions, shown too: a kind that no caption has a foil of does nothing."""
    if not config.hard_negatives:
        return {}
    result = hard_negative_shares(training.column("caption"), config.hard_negatives, config.seed)
    if distributed.is_first():
        console.print(f"captions with a foil: {', '.join(f'{k} {v:.1%}' for k, v in result.items())}", soft_wrap=True)
        for kind in (kind for kind, share in result.items() if not share):
            console.print(f"warning: --hard-negatives {kind}: no caption of training has such a foil.", soft_wrap=True)
    return result


def initial_model(config: ResolvedTrainConfig, captions: Iterable[str]) -> Model:
    """The model before the first step; a preset learns its vocabulary from the training captions."""
    match config.start:
        case FromModel(name, tokenizer):
            model = load(name, tokenizer=tokenizer or None)
            model_hash(name)  # or it is damaged
        case FromTowers(vision, text, tokenizer):
            model = join_towers(vision, text, seed=config.seed, tokenizer=tokenizer or None)
        case FromPreset(name):
            preset = PRESETS[name]
            tokenizer, special_tokens = train_tokenizer(captions, config.vocab_size, preset.context_length)
            raw = preset_config(preset, tokenizer.tokenizer.get_vocab_size(), special_tokens)
            parsed, processor = parse_config(raw), square_image_processor(preset.image_size)
            model = Model(init_params(parsed, config.seed), parsed, tokenizer, processor, raw)
    model = with_image_size(model, config.image_size) if config.image_size else model
    return with_context_length(model, config.context_length) if config.context_length else model

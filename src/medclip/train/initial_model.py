"""The model a run starts from: a trained one, two towers joined, or fresh weights of a preset."""

from __future__ import annotations

from collections.abc import Iterable

from medclip.model.adapt import join_towers, with_context_length, with_image_size
from medclip.model.checkpoint import Model, load
from medclip.model.config import PRESETS, parse_config, preset_config
from medclip.model.image_processor import square_preprocessor
from medclip.model.shapes_init import init_params
from medclip.model.tokenizer import train_tokenizer
from medclip.train.config import TrainConfig


def initial_model(recipe: TrainConfig, captions: Iterable[str]) -> Model:
    """The recipe's model before its first step; a preset's vocabulary is learnt from the training captions."""
    if recipe.init:
        model = load(recipe.init)
    elif recipe.vision_model and recipe.text_model:
        model = join_towers(recipe.vision_model, recipe.text_model, seed=recipe.seed)
    else:
        model = _fresh(recipe, captions)
    model = with_image_size(model, recipe.image_size) if recipe.image_size else model
    return with_context_length(model, recipe.context_length) if recipe.context_length else model


def _fresh(recipe: TrainConfig, captions: Iterable[str]) -> Model:
    preset = PRESETS[recipe.preset]
    tokenizer, special_tokens = train_tokenizer(captions, recipe.vocab_size, preset.context_length)
    raw = preset_config(preset, tokenizer.tokenizer.get_vocab_size(), special_tokens)
    config = parse_config(raw)
    return Model(init_params(config, recipe.seed), config, tokenizer, square_preprocessor(preset.image_size), raw)

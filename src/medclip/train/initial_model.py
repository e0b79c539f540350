"""The model a run starts from: a trained one, two towers joined, or fresh weights of a preset."""

from __future__ import annotations

from collections.abc import Iterable

from medclip.model.adapt import with_side, with_tokens
from medclip.model.checkpoint import Model, load
from medclip.model.config import parse_config
from medclip.model.image_processor import square_preprocessor
from medclip.model.join import join
from medclip.model.presets import PRESETS, preset_config
from medclip.model.shapes_init import init
from medclip.model.tokenizer import train_tokenizer
from medclip.train.config import TrainConfig


def initial_model(recipe: TrainConfig, captions: Iterable[str]) -> Model:
    """The recipe's model before its first step; a preset's vocabulary is learnt from the training captions."""
    if recipe.init:
        model = load(recipe.init)
    elif recipe.vision_model and recipe.text_model:
        model = join(recipe.vision_model, recipe.text_model, seed=recipe.seed)
    else:
        model = _fresh(recipe, captions)
    model = with_side(model, recipe.image_size) if recipe.image_size else model
    return with_tokens(model, recipe.context_length) if recipe.context_length else model


def _fresh(recipe: TrainConfig, captions: Iterable[str]) -> Model:
    *_, side, _, length = PRESETS[recipe.preset]
    tokens, special = train_tokenizer(captions, recipe.vocab_size, length)
    said = preset_config(recipe.preset, tokens.tokenizer.get_vocab_size(), special)
    config = parse_config(said)
    return Model(init(config, recipe.seed), config, tokens, square_preprocessor(side), said)

"""What a user says becomes a config in which everything is chosen; what does not fit is refused with the flag named."""

import dataclasses

import pytest

from medclip.errors import UserError
from medclip.training.config import FromModel, FromPreset, FromTowers, TrainConfig, resolve


@pytest.mark.parametrize(
    ("settings", "start", "lr"),
    [
        ({}, FromPreset("small"), 1e-3),
        ({"preset": "tiny"}, FromPreset("tiny"), 1e-3),
        ({"init": "a/model"}, FromModel("a/model"), 1e-5),
        ({"vision_model": "v", "text_model": "t"}, FromTowers("v", "t"), 5e-5),
        ({"init": "a/model", "tokenizer": "an/other"}, FromModel("a/model", "an/other"), 1e-5),
        ({"vision_model": "v", "text_model": "t", "tokenizer": "o"}, FromTowers("v", "t", "o"), 5e-5),
    ],
)
def test_the_start_decides_the_learning_rate(settings, start, lr):
    config = resolve(TrainConfig(**settings), 1000)
    assert (config.start, config.lr, config.vision_lr, config.text_lr) == (start, lr, lr, lr)


@pytest.mark.parametrize(
    "settings",
    [{"init": "m", "preset": "tiny"}, {"vision_model": "v"}, {"text_model": "t"}, {"init": "m", "text_model": "t"}],
)
def test_a_run_has_one_start(settings):
    with pytest.raises(UserError, match="a run starts from one of"):
        resolve(TrainConfig(**settings), 1000)


def test_a_preset_learns_its_own_tokenizer():
    with pytest.raises(UserError, match="--tokenizer goes with --init or --text-model"):
        resolve(TrainConfig(tokenizer="an/other"), 1000)


def test_epochs_become_steps_and_what_is_given_stays():
    assert resolve(TrainConfig(epochs=2, batch_size=100), 1000).steps == 20
    assert resolve(TrainConfig(epochs=0.001, batch_size=100), 1000).steps == 1
    config = resolve(TrainConfig(steps=7, lr=0.1, vision_lr=0.0, text_lr=0.2, batch_size=8, micro_batch_size=4), 1000)
    assert (config.steps, config.lr, config.vision_lr, config.text_lr) == (7, 0.1, 0.0, 0.2)
    assert (config.batch_size, config.micro_batch_size) == (8, 4)
    assert resolve(TrainConfig(batch_size=8), 1000).micro_batch_size == 8


def test_nothing_is_left_open():
    values = [getattr(resolve(TrainConfig(), 1000), f.name) for f in dataclasses.fields(resolve(TrainConfig(), 1000))]
    assert None not in values


def test_its_json_has_the_flags_names():
    written = resolve(TrainConfig(init="a/model", tokenizer="an/other", steps=7), 1000).to_json()
    assert (written["init"], written["tokenizer"], written["steps"]) == ("a/model", "an/other", 7)
    assert "start" not in written
    assert written.keys() <= {f.name for f in dataclasses.fields(TrainConfig)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "--steps 0 is out of range: 1 to inf"),
        ({"image_size": 0}, "--image-size 0 is out of range: 1 to inf"),
        ({"context_length": -8}, "--context-length -8 is out of range: 2 to inf"),
        ({"preset": "huge"}, "--preset 'huge' is not one of: tiny, small"),
        ({"loss": "infonce"}, "--loss 'infonce' is not one of: auto, contrastive, sigmoid"),
        ({"precision": "float16"}, "--precision 'float16' is not one of: float32, bfloat16"),
        ({"on_regression": "Stop"}, "--on-regression 'Stop' is not one of: stop, warn"),
        ({"color_jitter": 1.5}, "--color-jitter 1.5 is out of range: 0 to 1"),
        ({"epochs": float("inf")}, "--epochs inf is out of range: 1e-12 to inf"),
        ({"weight_decay": float("nan")}, "--weight-decay nan is out of range: 0 to inf"),
        ({"batch_size": 8, "micro_batch_size": 3}, "--micro-batch-size 3 does not divide --batch-size 8"),
    ],
)
def test_a_value_out_of_range_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        TrainConfig(**settings)


def test_a_batch_larger_than_the_split_is_refused():
    with pytest.raises(UserError, match=r"--batch-size 100 is larger than the training split \(25 pairs\)"):
        resolve(TrainConfig(batch_size=100), 25)

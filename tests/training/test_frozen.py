"""What is frozen ends as it began, bit for bit: in a step, in an average, between two ends, in the file."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors import safe_open

from medclip.model.checkpoint import load, save
from medclip.training.config import resolve
from medclip.training.distributed import all_devices
from medclip.training.loop import train
from medclip.training.optim import initial_params
from medclip.training.step import init_state, make_step
from medclip.training.validation import wise_ft
from training.test_loop import Killed, killer
from training.test_step import BATCH, MICRO, config_of, stepper

LARGE, SMALL = np.float32(3.4e38), np.float32(1e-45)  # their sum with anything is not they; the latter is denormal
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VALUES = npst.arrays(np.float32, (8,), elements=FLOATS)
AWKWARD = np.array([LARGE, -LARGE, SMALL, -SMALL, 0.0, -0.0, 1 / 3, 1.17549421e-38], np.float32)
NAME = "text_model.final_layer_norm.bias"


def assert_same_bits(value, expected, name=""):
    value, expected = np.asarray(value), np.asarray(expected)
    assert (value.dtype, value.shape) == (expected.dtype, expected.shape), name
    assert value.tobytes() == expected.tobytes(), name


@settings(max_examples=200)
@given(VALUES, VALUES, st.booleans())
def test_between_equal_ends_nothing_moves(first, last, as_jax):
    last[::2] = first[::2]
    ends = [{"w": jnp.asarray(end) if as_jax else end} for end in (first, last)]
    for _, params in wise_ft(*ends):
        assert_same_bits(np.asarray(params["w"])[::2], first[::2])


@pytest.fixture(scope="module")
def frozen_step():
    """A step that trains all but one tensor, with an average; and its first state."""
    return stepper(optax.sgd(0.1), trainable=set(MICRO.params) - {NAME}, ema_decay=0.7)


@pytest.mark.slow
@settings(max_examples=30)
@given(VALUES)
def test_a_frozen_tensor_passes_through_steps_and_averages_as_it_is(frozen_step, values):
    step, start = frozen_step
    state = start(MICRO.params | {NAME: values})
    for _ in range(2):
        state, _ = step(state, BATCH)
    assert_same_bits(state.params[NAME], values)
    assert_same_bits(state.ema_params[NAME], values)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_awkward_values_too_in_every_precision(precision):
    step, start = stepper(optax.sgd(0.1), trainable={"visual_projection.weight"}, ema_decay=0.9, precision=precision)
    state, _ = step(start(MICRO.params | {NAME: AWKWARD}), BATCH)
    for name, value in (MICRO.params | {NAME: AWKWARD}).items():
        for params in (state.params, state.ema_params):
            if name != "visual_projection.weight":
                assert_same_bits(params[name], value, name)


SIGLIP_SCALE = np.full(1, 4.7205, np.float32)  # google/siglip-base-patch16-224 holds 4.7247; above ln 100 = 4.6052
CLIP_SCALE = np.array(4.6052, np.float32)  # its exponential is 100.003


def one_step(scale, direction, loss="contrastive", frozen=(), params=None):
    """The scale after a step of gradient ascent or descent of it alone, by 1."""
    model = dataclasses.replace(MICRO, params=MICRO.params | {"logit_scale": scale} | (params or {}))
    trainable, optimizer = set(model.params) - set(frozen), optax.sgd(1.0)

    def scale_alone(images, texts, params, mask, foils):
        return direction * params["logit_scale"].sum()

    step = make_step(model, config_of(loss=loss), trainable, optimizer, scale_alone, all_devices())
    state, _ = step(init_state(model.params, trainable, optimizer, False), BATCH)
    return np.asarray(state.params["logit_scale"])


BIAS = {"logit_bias": np.full(1, -16.5, np.float32)}


@pytest.mark.parametrize(
    "scale", [SIGLIP_SCALE, CLIP_SCALE, np.array(2.66, np.float32)], ids=("siglip", "clip", "fresh")
)
def test_a_frozen_scale_is_never_touched(scale):
    for loss, params in (("contrastive", {}), ("sigmoid", BIAS)):
        assert_same_bits(one_step(scale, -1, loss, {"logit_scale"}, params), scale)


def test_a_trained_contrastive_scale_is_bounded_by_100_or_a_larger_start():
    assert one_step(np.array(2.66, np.float32), -1) == pytest.approx(3.66)
    assert one_step(np.array(4.5, np.float32), -1) == pytest.approx(np.log(100))
    assert_same_bits(one_step(CLIP_SCALE, -1), CLIP_SCALE)
    assert_same_bits(one_step(SIGLIP_SCALE, -1), SIGLIP_SCALE)
    assert one_step(CLIP_SCALE, 1) == pytest.approx(3.6052)


def test_the_sigmoid_loss_bounds_nothing():
    assert one_step(SIGLIP_SCALE, -1, "sigmoid", params=BIAS) == pytest.approx(5.7205)
    assert one_step(np.array(4.5, np.float32), -1, "sigmoid", params=BIAS) == pytest.approx(5.5)


def test_a_bias_that_the_contrastive_loss_does_not_see_is_not_trained():
    """A softmax is the same with it, so all its gradient is rounding, which Adam would make whole steps of."""
    model = dataclasses.replace(
        MICRO, params=MICRO.params | BIAS, config=dataclasses.replace(MICRO.config, logit_bias=True)
    )
    for loss, scale in (("contrastive", 0), ("sigmoid", 1), ("auto", 1)):
        assert initial_params(model, config_of(loss=loss))[1]["logit_bias"] == scale


def saved_tensors(folder):
    with safe_open(folder / "model.safetensors", "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def start_folder(run, tmp_path_factory):
    """A model whose scale is above ln 100, with awkward numbers among its weights."""
    model = load(run)
    params = {name: np.array(p) for name, p in model.params.items()} | {"logit_scale": np.array(4.7205, np.float32)}
    params["text_model.encoder.layers.0.layer_norm1.bias"][:3] = [SMALL, -0.0, 1e-39]
    folder = tmp_path_factory.mktemp("start") / "model"
    save(dataclasses.replace(model, params=params), folder)
    return folder


FROZEN = ("logit_scale", "text_model.encoder.*", "vision_model.embeddings.*", "visual_projection.weight")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema_decay": 0.9},
        {"lora_rank": 2},
        {"lora_rank": 2, "ema_decay": 0.9, "micro_batch_size": 4},
        {"precision": "bfloat16", "ema_decay": 0.9, "fsdp": True},
        {"loss": "sigmoid"},
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_the_file_holds_what_was_frozen_as_it_was(start_folder, data, train_config, tmp_path, monkeypatch, changes):
    """Every evaluation is better than the one before, so what is saved last is WiSE-FT's; also that of the steps."""
    from medclip.training import best_model

    recalls, files = iter(range(0, 10_000, 10)), []

    def validate(*arguments, measure=best_model.validate):
        result = measure(*arguments)
        if (tmp_path / "run" / "model" / "model.safetensors").exists():
            files.append(saved_tensors(tmp_path / "run" / "model"))
        return result._replace(metrics={**result.metrics, "mean_recall": float(next(recalls))})

    monkeypatch.setattr(best_model, "validate", validate)
    config = dataclasses.replace(
        train_config,
        preset=None,
        init=str(start_folder),
        freeze=FROZEN,
        lr=1e-2,
        warmup_ratio=0.0,
        on_regression="warn",
        **changes,
    )
    summary = train(data, tmp_path / "run", config)
    assert summary["best"]["alpha"] == 0.8  # that of all the last weights is the one before WiSE-FT
    first, last = saved_tensors(start_folder), saved_tensors(tmp_path / "run" / "model")
    assert len(files) == 6  # two evaluations after the start and four of WiSE-FT, each finding what was saved
    scales = initial_params(load(start_folder), resolve(config, 25))[1]
    frozen = {name for name, lr in scales.items() if not lr and f"{name}.lora_up" not in scales}
    assert {"logit_scale", "vision_model.embeddings.class_embedding"} <= frozen
    for tensors in (*files, last):
        assert tensors.keys() == first.keys()
        for name in frozen:
            assert_same_bits(tensors[name], first[name], name)
    assert all((last[name] != first[name]).any() for name in ("text_projection.weight",))
    save(load(tmp_path / "run"), tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        tmp_path / "run" / "model" / "model.safetensors"
    ).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"lora_rank": 2}, {"lora_rank": 2, "ema_decay": 0.9}], ids="-".join)
def test_where_nothing_is_better_the_start_is_saved_as_it_was(
    start_folder, data, train_config, tmp_path, monkeypatch, changes
):
    from medclip.training import best_model

    recalls = iter(range(0, -10_000, -10))

    def validate(*arguments, measure=best_model.validate):
        result = measure(*arguments)
        return result._replace(metrics={**result.metrics, "mean_recall": float(next(recalls))})

    monkeypatch.setattr(best_model, "validate", validate)
    train(
        data,
        tmp_path / "run",
        dataclasses.replace(train_config, preset=None, init=str(start_folder), on_regression="warn", **changes),
    )
    first, last = saved_tensors(start_folder), saved_tensors(tmp_path / "run" / "model")
    for name, value in first.items():
        assert_same_bits(last[name], value, name)


@pytest.mark.slow
def test_a_resumed_run_goes_on_from_what_is_frozen_bit_for_bit(start_folder, data, train_config, tmp_path):
    config = dataclasses.replace(
        train_config, preset=None, init=str(start_folder), freeze=FROZEN, ema_decay=0.9, on_regression="warn"
    )
    with pytest.raises(Killed):
        train(data, tmp_path / "run", config, callbacks=[killer(3)])
    train(data, tmp_path / "run", config, resume=True)
    first, last = saved_tensors(start_folder), saved_tensors(tmp_path / "run" / "model")
    for name in first:
        if name == "logit_scale" or name.startswith(("text_model.encoder.", "vision_model.embeddings.")):
            assert_same_bits(last[name], first[name], name)

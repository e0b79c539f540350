"""One step: bounded temperature, determined by its batch, all of it in the loss, however it is cut up."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medclip.model.checkpoint import Model
from medclip.model.config import parse_config
from medclip.model.image_processor import square_image_processor
from medclip.model.packing import pack
from medclip.model.shapes_init import init_params
from medclip.model.tokenizer.text_tokenizer import train_tokenizer
from medclip.training.config import TrainConfig, resolve
from medclip.training.distributed import all_devices
from medclip.training.losses import contrastive_loss
from medclip.training.optim import init_lora, lora_matrices, lr_scales, make_optimizer, merge_lora
from medclip.training.step import Batch, init_state, make_step
from support.jaxprs import precisions

TOWER = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
SPECIAL = {"pad_token_id": 19, "bos_token_id": 18, "eos_token_id": 19}
RAW_CONFIG = {
    "model_type": "clip",
    "vision_config": {"image_size": 8, "patch_size": 4, **TOWER},
    "text_config": {"vocab_size": 20, "max_position_embeddings": 6, **SPECIAL, **TOWER},
    "projection_dim": 8,
}
CONFIG = parse_config(RAW_CONFIG)
TOKENIZER, _ = train_tokenizer([], 300, 6)  # unused: ids are given
MICRO = Model(init_params(CONFIG, 0), CONFIG, TOKENIZER, square_image_processor(8), RAW_CONFIG)
RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(3, 7, 8)
VALID = np.arange(6) < LENGTHS[:, None]
IDS = np.where(np.arange(6) == LENGTHS[:, None] - 1, 19, RNG.integers(0, 18, (8, 6))).astype(np.int32)
PIXELS = RNG.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
CLOSE = 1e-5


def batch_in(blocks):
    """Eight pairs, the last two of them with equal captions, in blocks."""
    ids, valid = (x.reshape(blocks, -1, 6) for x in (np.where(VALID, IDS, 19), VALID))
    numbers = np.array([0, 1, 2, 3, 4, 5, 6, 6], np.int32).reshape(blocks, -1)
    pixels = PIXELS.reshape(blocks, -1, 8, 8, 3)
    images = np.arange(8, dtype=np.int32).reshape(blocks, -1)
    keys = np.arange(16, dtype=np.uint32).reshape(blocks, -1, 2)
    no_foils = np.zeros((*numbers.shape, 0), bool)
    return Batch(pixels, pack(ids, valid, CONFIG.text), no_foils, images, numbers, keys)


BATCH = batch_in(1)
TRAINABLE = set(MICRO.params)


def config_of(**settings):
    return resolve(TrainConfig(batch_size=8, **settings), 8)


def stepper(optimizer=None, loss=contrastive_loss, trainable=TRAINABLE, **settings):
    """A compiled step, and a function that makes its first state (a step consumes the state it is given)."""
    optimizer, config = optimizer or optax.sgd(1.0), config_of(**settings)
    step = make_step(MICRO, config, trainable, optimizer, loss, all_devices())
    return step, lambda params=MICRO.params: init_state(params, trainable, optimizer, config.ema_decay > 0)


@pytest.fixture(scope="module")
def first():
    return stepper()


def after(step, state, steps):
    for _ in range(steps):
        state, metrics = step(state, BATCH)
    return state, float(metrics["loss"])


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize(("direction", "expected"), [(-1, np.log(100)), (1, 3.6)])
def test_the_logit_scale_never_exceeds_a_hundred(direction, expected):
    step, start = stepper(loss=lambda images, texts, params, *_: direction * params["logit_scale"])
    state, metrics = step(start({**MICRO.params, "logit_scale": np.array(4.6, np.float32)}), BATCH)
    assert float(state.params["logit_scale"]) == pytest.approx(expected)
    assert float(metrics["logit_scale"]) == pytest.approx(expected)


def test_the_loss_gets_the_whole_batch():
    shapes = []

    def loss(images, texts, params, mask, foils):
        shapes.append((images.shape, texts.shape, params["logit_scale"].shape, mask.shape))
        return contrastive_loss(images, texts, params, mask, foils)

    step, start = stepper(loss=loss)
    jax.eval_shape(step, start(), BATCH)
    assert shapes == [((8, 8), (8, 8), (), (8, 8))]


def test_no_factor_of_a_step_in_float32_is_rounded():  # a GPU would take TF32
    factors = init_lora(lora_matrices(MICRO.params, CONFIG), MICRO.params, 2, 0)
    step, start = stepper(trainable={*TRAINABLE, *factors}, micro_batch_size=4)
    products = precisions(step, start(MICRO.params | factors), batch_in(2))
    assert products == {("float32", (jax.lax.Precision.HIGHEST,) * 2)}


def test_a_step_is_determined_by_its_keys(first):
    step, start = first
    assert same(after(step, start(), 2)[0], after(step, start(), 2)[0])
    losses = {float(step(start(), BATCH._replace(aug_keys=BATCH.aug_keys + shift))[1]["loss"]) for shift in range(4)}
    assert len(losses) == 4


def test_steps_lower_the_loss_of_their_batch(first):
    step, start = first
    assert after(step, start(), 60)[1] < 0.5 * after(step, start(), 1)[1]


def gradient(compiled, blocks=1):
    """Loss and gradient of the first step, as what plain gradient descent subtracts."""
    step, start = compiled
    state, metrics = step(start(), batch_in(blocks))
    return float(metrics["loss"]), {n: np.asarray(MICRO.params[n] - p) for n, p in state.params.items()}, metrics


@pytest.fixture(scope="module")
def whole(first):
    return gradient(first)


@pytest.mark.parametrize(
    ("blocks", "settings"),
    [(4, {"micro_batch_size": 2}), (2, {"micro_batch_size": 4}), (2, {}), (1, {"gradient_checkpointing": True})],
)
def test_however_a_batch_is_cut_up_loss_and_gradient_are_the_same(whole, blocks, settings):
    """Cached gradients (GradCache), blocks and rematerialisation change memory, not the step."""
    value, grads, _ = gradient(stepper(**settings), blocks)
    assert value == pytest.approx(whole[0], rel=CLOSE)
    for name, expected in whole[1].items():
        np.testing.assert_allclose(grads[name], expected, atol=CLOSE * max(1, np.abs(expected).max()), err_msg=name)


def foil_batch(blocks):
    """The batch with two foils a pair, each of other words; pair 3 has none, pair 5 but the first."""
    mask = np.ones((8, 2), bool)
    mask[3], mask[5, 1] = False, False
    ids = np.where(VALID, IDS, 19)
    foils = np.stack([np.where(ids == 19, 19, (ids + shift) % 18) for shift in (1, 2)], axis=1)
    ids, valid, foils, foil_valid = (
        x.reshape(blocks, -1, 6) for x in (ids, VALID, foils, VALID[:, None] & mask[..., None])
    )
    texts = pack(np.concatenate([ids, foils], axis=1), np.concatenate([valid, foil_valid], axis=1), CONFIG.text)
    return batch_in(blocks)._replace(texts=texts, foil_mask=mask.reshape(blocks, -1, 2))


@pytest.mark.slow
def test_foils_are_the_same_however_the_batch_is_cut_up(first):
    step, start = first
    losses = [float(step(start(), foil_batch(blocks))[1]["loss"]) for blocks in (1, 2, 4)]
    losses.append(float(stepper(micro_batch_size=4)[0](start(), foil_batch(2))[1]["loss"]))
    assert losses == pytest.approx([losses[0]] * 4, rel=CLOSE)
    assert losses[0] > float(step(start(), BATCH)[1]["loss"]) + 0.01  # more candidates


def test_plain_accumulation_would_be_another_loss(whole):
    """The test above can fail: the mean loss of four microbatches is not the loss of the batch."""
    assert abs(whole[0] - np.log(2)) > 0.5  # chance among two is ln 2, among eight ln 8


@pytest.mark.slow
def test_bfloat16_is_near_and_its_parameters_are_float32(whole):
    value, grads, metrics = gradient(stepper(precision="bfloat16"))
    assert value == pytest.approx(whole[0], rel=0.02)
    assert value != whole[0]
    assert {x.dtype for x in grads.values()} == {np.dtype("float32")}
    assert metrics["loss"].dtype == jnp.float32


@pytest.mark.slow
def test_dropped_patches_are_not_encoded(whole):
    value, grads, _ = gradient(stepper(patch_dropout=0.5))
    assert value != pytest.approx(whole[0], rel=CLOSE)
    assert all(np.isfinite(g).all() for g in grads.values())


@pytest.mark.slow
def test_frozen_parameters_stay_bit_for_bit_and_have_no_moments():
    config = config_of(steps=10, lr=1e-2, freeze=("vision_model.*", "logit_scale"))
    scales = lr_scales(MICRO.params, CONFIG, config)
    step, start = stepper(make_optimizer(config, scales), trainable={name for name, scale in scales.items() if scale})
    state = after(step, start(), 3)[0]
    for name, value in MICRO.params.items():
        frozen = name == "logit_scale" or name.startswith("vision_model.")
        assert np.array_equal(state.params[name], value) == frozen, name
    shapes = {x.shape for x in jax.tree.leaves(state.opt_state)}
    assert MICRO.params["vision_model.embeddings.patch_embedding.weight"].shape not in shapes


@pytest.mark.slow
def test_ema_weights_are_the_average_computed_by_hand():
    decay, name = 0.7, "visual_projection.weight"
    step, start = stepper(optax.sgd(0.1), ema_decay=decay)
    state, average = start(), np.asarray(MICRO.params[name], np.float64)
    for _ in range(3):
        state, _ = step(state, BATCH)
        average = decay * average + (1 - decay) * np.asarray(state.params[name], np.float64)
    np.testing.assert_allclose(state.ema_params[name], average, atol=1e-6)
    assert np.abs(average - np.asarray(state.params[name])).max() > 1e-3
    assert state.eval_params is state.ema_params


@pytest.mark.slow
def test_lora_changes_nothing_at_first_and_only_the_towers_matrices_later():
    matrices = lora_matrices(MICRO.params, CONFIG)
    factors = init_lora(matrices, MICRO.params, 2, 0)
    assert all(np.array_equal(merge_lora({**MICRO.params, **factors})[n], v) for n, v in MICRO.params.items())
    step, start = stepper(optax.adam(1e-2), trainable=set(factors))
    state = after(step, start({**MICRO.params, **factors}), 3)[0]
    assert all(np.array_equal(state.params[name], value) for name, value in MICRO.params.items())  # the base itself
    plain = merge_lora(state.params)
    assert {n for n, v in MICRO.params.items() if not np.array_equal(plain[n], v)} == set(matrices)
    assert any("fc1.weight" in name for name in matrices)
    for name in matrices:
        assert np.linalg.matrix_rank(np.asarray(plain[name]) - MICRO.params[name], tol=1e-5) == 2, name

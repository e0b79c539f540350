"""One step: bounded temperature, determined by its batch, all of it in the loss, however it is cut up."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medclip.errors import UserError
from medclip.model.checkpoint import Model
from medclip.model.config import parse_config
from medclip.model.image_processor import square_preprocessor
from medclip.model.packing import pack
from medclip.model.shapes_init import init_params
from medclip.model.tokenizer import train_tokenizer
from medclip.train.config import TrainConfig
from medclip.train.distributed import all_devices
from medclip.train.lora import adapted, merged, updates
from medclip.train.losses import contrastive
from medclip.train.optim import lr_scales, optimizer
from medclip.train.step import Batch, init_state, make_step

TOWER = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
SPECIAL = {"pad_token_id": 19, "bos_token_id": 18, "eos_token_id": 19}
SAID = {
    "model_type": "clip",
    "vision_config": {"image_size": 8, "patch_size": 4, **TOWER},
    "text_config": {"vocab_size": 20, "max_position_embeddings": 6, **SPECIAL, **TOWER},
    "projection_dim": 8,
}
CONFIG = parse_config(SAID)
TOKENIZER, _ = train_tokenizer([], 300, 6)  # unused: ids are given
MICRO = Model(init_params(CONFIG, 0), CONFIG, TOKENIZER, square_preprocessor(8), SAID)
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
    concepts = np.array([[0], [0], [1], [1], [2], [2], [0], [3]], np.int32).reshape(blocks, -1, 1)
    pixels = PIXELS.reshape(blocks, -1, 8, 8, 3)
    pictures = np.arange(8, dtype=np.int32).reshape(blocks, -1)
    keys = np.arange(16, dtype=np.uint32).reshape(blocks, -1, 2)
    return Batch(pixels, pack(ids, valid, CONFIG.text), np.ones(numbers.shape, bool), pictures, numbers, concepts, keys)


BATCH = batch_in(1)
LEARN = set(MICRO.params)
FIRST = {"rule": optax.sgd(1.0), "loss": contrastive, "learn": LEARN}


def noisy(keys, pixels):
    return pixels + jax.vmap(lambda key: jax.random.uniform(key, pixels.shape[1:], maxval=40))(keys)


def stepper(**changes):
    """A compiled step, and a function that makes its first state (a step consumes the state it is given)."""
    said = FIRST | {k: v for k, v in changes.items() if k in FIRST}
    recipe = TrainConfig(batch_size=8, **{k: v for k, v in changes.items() if k not in FIRST})
    step = make_step(MICRO, recipe, said["learn"], said["rule"], said["loss"], noisy, all_devices(), 3)
    return step, lambda params=MICRO.params: init_state(params, said["learn"], said["rule"], bool(recipe.ema_decay))


@pytest.fixture(scope="module")
def first():
    return stepper()


def after(step, state, steps):
    for _ in range(steps):
        state, told = step(state, BATCH)
    return state, float(told["loss"])


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.mark.parametrize(("direction", "wanted"), [(-1, np.log(100)), (1, 3.6)])
def test_the_logit_scale_never_exceeds_a_hundred(direction, wanted):
    step, start = stepper(loss=lambda images, texts, params, agree, counted: direction * params["logit_scale"])
    state, told = step(start({**MICRO.params, "logit_scale": np.float32(4.6)}), BATCH)
    assert float(state.params["logit_scale"]) == pytest.approx(wanted)
    assert float(told["logit_scale"]) == pytest.approx(wanted)


def test_the_loss_sees_the_whole_batch():
    seen = []

    def loss(images, texts, params, agree, counted):
        seen.append((images.shape, texts.shape, params["logit_scale"].shape, counted.shape))
        return contrastive(images, texts, params, agree, counted)

    step, start = stepper(loss=loss)
    jax.eval_shape(step, start(), BATCH)
    assert seen == [((8, 8), (8, 8), (), (8, 8))]


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
    state, told = step(start(), batch_in(blocks))
    return float(told["loss"]), {n: np.asarray(MICRO.params[n] - p) for n, p in state.params.items()}, told


@pytest.fixture(scope="module")
def whole(first):
    return gradient(first)


@pytest.mark.parametrize(
    ("blocks", "asked"),
    [(4, {"micro_batch_size": 2}), (2, {"micro_batch_size": 4}), (2, {}), (1, {"gradient_checkpointing": True})],
)
def test_however_a_batch_is_cut_up_loss_and_gradient_are_the_same(whole, blocks, asked):
    """Cached gradients (GradCache), blocks and rematerialisation change memory, not the step."""
    value, found, _ = gradient(stepper(**asked), blocks)
    assert value == pytest.approx(whole[0], rel=CLOSE)
    for name, wanted in whole[1].items():
        np.testing.assert_allclose(found[name], wanted, atol=CLOSE * max(1, np.abs(wanted).max()), err_msg=name)


def test_plain_accumulation_would_be_another_loss(whole):
    """The test above can fail: the mean loss of four microbatches is not the loss of the batch."""
    assert abs(whole[0] - np.log(2)) > 0.5  # chance among two is ln 2, among eight ln 8


@pytest.mark.slow
def test_bfloat16_is_near_and_its_parameters_are_float32(whole):
    value, found, told = gradient(stepper(precision="bfloat16"))
    assert value == pytest.approx(whole[0], rel=0.02)
    assert value != whole[0]
    assert {x.dtype for x in found.values()} == {np.dtype("float32")}
    assert told["loss"].dtype == jnp.float32


@pytest.mark.slow
def test_dropped_patches_are_not_seen(whole):
    value, found, _ = gradient(stepper(patch_dropout=0.5))
    assert value != pytest.approx(whole[0], rel=CLOSE)
    assert all(np.isfinite(g).all() for g in found.values())


@pytest.mark.slow
def test_soft_targets_are_another_loss(whole):
    assert gradient(stepper(soft_targets=0.5))[0] != pytest.approx(whole[0], rel=1e-3)


@pytest.mark.slow
def test_frozen_parameters_stay_bit_for_bit_and_have_no_moments():
    recipe = TrainConfig(steps=10, batch_size=8, lr=1e-2, freeze=("vision_model.*", "logit_scale"))
    shares = lr_scales(MICRO.params, CONFIG, recipe)
    learn, rule = {name for name, share in shares.items() if share}, optimizer(recipe, shares)
    step, start = stepper(rule=rule, learn=learn)
    state = after(step, start(), 3)[0]
    for name, value in MICRO.params.items():
        still = name == "logit_scale" or name.startswith("vision_model.")
        assert np.array_equal(state.params[name], value) == still, name
    held = {x.shape for x in jax.tree.leaves(state.opt_state)}
    assert MICRO.params["vision_model.embeddings.patch_embedding.weight"].shape not in held


@pytest.mark.slow
def test_the_average_lags_behind():
    step, start = stepper(ema=0.5)
    state = after(step, start(), 1)[0]
    name = "visual_projection.weight"
    middle = (MICRO.params[name] + np.asarray(state.params[name])) / 2
    np.testing.assert_allclose(state.ema_params[name], middle, atol=1e-7)
    assert state.eval_params is state.ema_params


@pytest.mark.slow
def test_lora_changes_nothing_at_first_and_only_the_towers_matrices_later():
    matrices = adapted(MICRO.params, MICRO.params, CONFIG)
    extra = updates(matrices, MICRO.params, 2, 0)
    assert all(np.array_equal(merged({**MICRO.params, **extra})[n], v) for n, v in MICRO.params.items())
    step, start = stepper(learn=set(extra), rule=optax.adam(1e-2))
    state = after(step, start({**MICRO.params, **extra}), 3)[0]
    plain = merged(state.params)
    assert {n for n, v in MICRO.params.items() if not np.array_equal(plain[n], v)} == set(matrices)
    assert any("fc1.weight" in name for name in matrices)
    name = matrices[0]
    assert np.linalg.matrix_rank(np.asarray(plain[name]) - MICRO.params[name], tol=1e-5) == 2


def test_rates_follow_towers_layers_and_names():
    recipe = TrainConfig(lr=1e-3, vision_lr=1e-4, layerwise_lr_decay=0.5, freeze=("text_model.embeddings.*",))
    found = lr_scales(MICRO.params, CONFIG, recipe)
    assert found["visual_projection.weight"] == found["logit_scale"] == 1
    assert found["vision_model.post_layernorm.weight"] == pytest.approx(0.1)
    assert found["vision_model.encoder.layers.0.mlp.fc1.weight"] == pytest.approx(0.05)
    assert found["vision_model.embeddings.class_embedding"] == pytest.approx(0.025)
    assert found["text_model.final_layer_norm.bias"] == 1
    assert found["text_model.encoder.layers.0.mlp.fc1.weight"] == 0.5
    assert found["text_model.embeddings.token_embedding.weight"] == 0
    with pytest.raises(UserError, match="names no tensor"):
        lr_scales(MICRO.params, CONFIG, dataclasses.replace(recipe, freeze=("vision.*",)))
    with pytest.raises(UserError, match="nothing to train"):
        lr_scales(MICRO.params, CONFIG, dataclasses.replace(recipe, freeze=("*",)))


def test_only_matrices_decay():
    params = {"matrix": jnp.ones((2, 2)), "bias": jnp.ones(2), "logit_scale": jnp.ones(())}
    rule = optimizer(TrainConfig(steps=10, batch_size=4, lr=1e-2), {})
    state = rule.init(params)
    for _ in range(2):  # the first step of the warm-up has rate 0
        updates, state = rule.update(jax.tree.map(jnp.zeros_like, params), state, params)
    moved = {name for name, update in updates.items() if (np.asarray(update) != 0).any()}
    assert moved == {"matrix"}

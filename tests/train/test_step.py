"""One step: bounded temperature, determined by seed and step, with the whole batch in the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medclip.model.config import parse_config
from medclip.model.hub import Model
from medclip.model.init import init
from medclip.model.presets import preset_preprocessor
from medclip.train.losses import contrastive
from medclip.train.recipe import Recipe, optimizer
from medclip.train.step import Batch, first_state, make_step

TOWER = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
SPECIAL = {"pad_token_id": 19, "bos_token_id": 18, "eos_token_id": 19}
SAID = {
    "model_type": "clip",
    "vision_config": {"image_size": 8, "patch_size": 4, **TOWER},
    "text_config": {"vocab_size": 20, "max_position_embeddings": 6, **SPECIAL, **TOWER},
    "projection_dim": 8,
}
CONFIG = parse_config(SAID)
MICRO = Model(init(CONFIG, 0), CONFIG, None, preset_preprocessor(8), SAID)
RNG = np.random.default_rng(0)
IDS = np.concatenate([np.full((4, 1), 18), RNG.integers(0, 18, (4, 4)), np.full((4, 1), 19)], axis=1).astype(np.int32)
BATCH = Batch(RNG.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8), IDS, np.ones((4, 6), bool))


FIRST = {"rule": optax.adam(1e-2), "seed": 0, "loss": contrastive}


def noisy(key, pixels):
    return pixels + jax.random.uniform(key, pixels.shape, maxval=40)


def stepper(**changes):
    """A compiled step, and a function that makes its first state (a step consumes the state it is given)."""
    said = FIRST | changes
    step = make_step(MICRO, said["rule"], said["seed"], said["loss"], noisy)
    return step, lambda params=MICRO.params: first_state(params, said["rule"])


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
    step, start = stepper(
        rule=optax.sgd(1.0), loss=lambda images, texts, params, real: direction * params["logit_scale"]
    )
    state, told = step(start({**MICRO.params, "logit_scale": np.float32(4.6)}), BATCH)
    assert float(state.params["logit_scale"]) == pytest.approx(wanted)
    assert float(told["logit_scale"]) == pytest.approx(wanted)


def test_the_loss_sees_the_whole_batch():
    seen = []

    def loss(images, texts, params, real):
        seen.append((images.shape, texts.shape, params["logit_scale"].shape))
        return contrastive(images, texts, params)

    step, start = stepper(loss=loss)
    jax.eval_shape(step, start(), BATCH)
    assert seen == [((4, 8), (4, 8), ())]


def test_a_step_is_determined_by_its_seed(first):
    step, start = first
    one, again = after(step, start(), 2)[0], after(step, start(), 2)[0]
    assert same(one, again)
    other, start = stepper(seed=1)
    assert not same(one.params, after(other, start(), 2)[0].params)


def test_every_step_has_its_own_augmentation(first):
    step, start = first
    losses = {float(step(start()._replace(step=jnp.int32(at)), BATCH)[1]["loss"]) for at in range(5)}
    assert len(losses) == 5


def test_steps_lower_the_loss_of_their_batch(first):
    step, start = first
    assert after(step, start(), 60)[1] < 0.5 * after(step, start(), 1)[1]


def test_only_matrices_decay():
    params = {"matrix": jnp.ones((2, 2)), "bias": jnp.ones(2), "logit_scale": jnp.ones(())}
    rule = optimizer(Recipe("tiny", steps=10, batch=4, lr=1e-2, seed=0))
    state = rule.init(params)
    for _ in range(2):  # the first step of the warm-up has rate 0
        updates, state = rule.update(jax.tree.map(jnp.zeros_like, params), state, params)
    moved = {name for name, update in updates.items() if (np.asarray(update) != 0).any()}
    assert moved == {"matrix"}

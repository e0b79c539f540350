"""One step of training: a batch and a state in, a state and what to log out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from medclip.data.images import scaling
from medclip.encoder import normalise
from medclip.model.hub import Model
from medclip.model.towers import Params, encode_image, encode_text

MAX_LOGIT_SCALE = float(np.log(100))

Loss = Callable[[jax.Array, jax.Array, Params, jax.Array], jax.Array]
Augment = Callable[[jax.Array, jax.Array], jax.Array]


class Batch(NamedTuple):
    """Pixels u8 (b, s, s, 3), ids i32 (c, t), valid bool (c, t), where c >= b.

    Row i < b of all three is pair i. The rows from b on are captions wrong for every picture, or all invalid.
    """

    pixels: np.ndarray
    ids: np.ndarray
    valid: np.ndarray


class State(NamedTuple):
    """All that changes from step to step."""

    params: Params
    moments: Any
    step: jax.Array


def first_state(params: Params, rule: optax.GradientTransformation) -> State:
    """The state before step 0."""
    params = jax.tree.map(lambda p: jnp.array(p, copy=True), params)  # a step consumes its state, not the model
    return State(params, rule.init(params), jnp.zeros((), jnp.int32))


def make_step(
    model: Model, rule: optax.GradientTransformation, seed: int, loss: Loss, augment: Augment
) -> Callable[[State, Batch], tuple[State, dict[str, jax.Array]]]:
    """Compile `step(state, batch) -> (state, {"loss", "logit_scale", "gradient_norm"})`; the state is donated."""
    mean, std = scaling(model.preprocessor)

    def batch_loss(params: Params, pixels: jax.Array, batch: Batch) -> jax.Array:
        images = encode_image(params, normalise(pixels, mean, std), model.config)
        texts = encode_text(params, batch.ids, batch.valid, model.config)
        return loss(images, texts, params, batch.valid.any(axis=1))

    def step(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        pixels = augment(jax.random.fold_in(jax.random.key(seed), state.step), batch.pixels)
        value, gradient = jax.value_and_grad(batch_loss)(state.params, pixels, batch)
        updates, moments = rule.update(gradient, state.moments, state.params)
        params = optax.apply_updates(state.params, updates)
        params["logit_scale"] = jnp.minimum(params["logit_scale"], MAX_LOGIT_SCALE)
        told = {
            "loss": value,
            "logit_scale": params["logit_scale"],
            "gradient_norm": optax.tree.norm(gradient),
        }
        return State(params, moments, state.step + 1), told

    return jax.jit(step, donate_argnums=0)

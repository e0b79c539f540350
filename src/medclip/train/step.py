"""One step of training: a batch and a state in, a state and what to log out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from medclip.encode.encoder import normalize
from medclip.model.checkpoint import Model
from medclip.model.image_processor import mean_std
from medclip.model.packing import PackedText
from medclip.model.towers import Params, image_features, l2_normalize, packed_text_features, project
from medclip.train.config import TrainConfig
from medclip.train.distributed import shardings
from medclip.train.lora import merged
from medclip.train.losses import soft_targets, targets

MAX_LOGIT_SCALE = float(np.log(100))

Loss = Callable[[jax.Array, jax.Array, Params, jax.Array, jax.Array], jax.Array]
Augment = Callable[[jax.Array, jax.Array], jax.Array]


class Batch(NamedTuple):
    """The pairs of a step in n blocks of m, each with the c >= m captions of a block.

    A block's captions beyond m are wrong for every image. A frozen tower has its pools here in place of its input.
    """

    images: np.ndarray
    """Pixels u8 (n, m, s, s, 3), or pools f32 (n, m, w)."""
    texts: PackedText | np.ndarray
    """PackedText captions, or pools f32 (n, c, w)."""
    text_mask: np.ndarray
    """bool (n, c): False where there is no caption."""
    image_ids: np.ndarray
    """i32 (n, m): equal where images of the batch are."""
    caption_ids: np.ndarray
    """i32 (n, c): equal where captions of the batch are, letter case and spacing apart."""
    concepts: np.ndarray
    """i32 (n, m, k): numbers of UMLS concepts, those from `kinds` on being padding; k may be 0."""
    aug_keys: np.ndarray
    """u32 (n, m, 2): what each image's random changes follow from."""


class State(NamedTuple):
    """All that changes from step to step."""

    params: Params
    ema_params: Params
    """Moving average of the parameters; empty without --ema-decay."""
    opt_state: Any
    step: jax.Array

    @property
    def eval_params(self) -> Params:
        """What is measured and kept."""
        return self.ema_params or self.params


def init_state(params: Params, learn: set[str], rule: optax.GradientTransformation, ema: bool) -> State:
    """The state before step 0; `learn` names the tensors that have moments."""
    params = {name: jnp.array(p, copy=True) for name, p in params.items()}  # a step consumes its state, not the model
    moments = rule.init({name: p for name, p in params.items() if name in learn})
    return State(params, jax.tree.map(jnp.array, params) if ema else {}, moments, jnp.zeros((), jnp.int32))


def make_step(
    model: Model,
    recipe: TrainConfig,
    learn: set[str],
    rule: optax.GradientTransformation,
    loss: Loss,
    augment: Augment,
    mesh: Mesh,
    kinds: int = 0,
) -> Callable[[State, Batch], tuple[State, dict[str, jax.Array]]]:
    """Compile `step(state, batch) -> (state, {"loss", "logit_scale", "gradient_norm"})`; the state is donated.

    `learn` names the tensors that are trained, `kinds` is the number of UMLS concepts in use.
    """
    chunks = recipe.batch_size // (recipe.micro_batch_size or recipe.batch_size)

    def batch_loss(trained: Params, still: Params, batch: Batch) -> jax.Array:
        params = trained | still
        towers = _in_precision(merged(params), recipe.precision)
        images = grad_cache_map(
            lambda x: encode_pictures(model, recipe, augment, towers, *x), (batch.images, batch.aug_keys), chunks
        )
        texts = grad_cache_map(lambda x: encode_captions(model, recipe, towers, x), batch.texts, chunks)
        m = images.shape[1]
        agree, counted = targets(
            batch.image_ids.reshape(-1), _pairs_first(batch.caption_ids, m), _pairs_first(batch.text_mask, m)
        )
        if recipe.soft_target_temperature:
            concepts = batch.concepts.reshape(recipe.batch_size, -1)
            agree = soft_targets(agree, counted, concepts, kinds, recipe.soft_target_temperature)
        return loss(images.reshape(recipe.batch_size, -1), _pairs_first(texts, m), params, agree, counted)

    def step(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        trained = {name: p for name, p in state.params.items() if name in learn}
        still = {name: p for name, p in state.params.items() if name not in learn}
        value, gradient = jax.value_and_grad(batch_loss)(trained, still, batch)
        updates, moments = rule.update(gradient, state.opt_state, trained)
        params = still | optax.apply_updates(trained, updates)
        params["logit_scale"] = jnp.minimum(params["logit_scale"], MAX_LOGIT_SCALE)
        average = optax.incremental_update(params, state.ema_params, 1 - recipe.ema_decay) if state.ema_params else {}
        told = {
            "loss": value,
            "logit_scale": params["logit_scale"].reshape(()),  # SigLIP's has shape (1,)
            "gradient_norm": optax.tree.norm(gradient),
        }
        after = State(params, average, moments, state.step + 1)
        return jax.lax.with_sharding_constraint(after, shardings(after, mesh, recipe.fsdp)), told

    return jax.jit(step, donate_argnums=0)


def encode_pictures(
    model: Model, recipe: TrainConfig, augment: Augment, params: Params, images: jax.Array, keys: jax.Array
) -> jax.Array:
    """Unit vectors (n, m, p) of blocks of pixels (n, m, s, s, 3), changed by keys (n, m, 2), or of pools (n, m, w)."""
    n, m = images.shape[:2]
    flat = images.reshape(n * m, *images.shape[2:])
    if flat.ndim == 4:
        mean, std = mean_std(model.preprocessor)
        keys = jax.random.wrap_key_data(keys.reshape(-1, 2))
        pixels = normalize(augment(keys, flat), mean, std)
        flat = image_features(
            params, pixels, model.config, kept_patches(keys, model, recipe), recipe.gradient_checkpointing
        )
    return l2_normalize(project(params, flat, model.config.vision)).reshape(n, m, -1)


def kept_patches(keys: jax.Array, model: Model, recipe: TrainConfig) -> jax.Array | None:
    """Which patches each image shows, i32 (b, k) in order, or None for all."""
    if not recipe.patch_dropout:
        return None
    patches = (model.config.vision.image_size // model.config.vision.patch_size) ** 2
    kept = max(1, round(patches * (1 - recipe.patch_dropout)))
    return jax.vmap(lambda key: jnp.sort(jax.random.permutation(jax.random.fold_in(key, 5), patches)[:kept]))(keys)


def encode_captions(model: Model, recipe: TrainConfig, params: Params, texts: Any) -> jax.Array:
    """Unit vectors (n, c, p) of packed captions, or of pools (n, c, w)."""
    pools = (
        packed_text_features(params, texts, model.config, recipe.gradient_checkpointing)
        if isinstance(texts, PackedText)
        else texts
    )
    return l2_normalize(project(params, pools, model.config.text))


def grad_cache_map(encode: Callable[[Any], jax.Array], arrays: Any, chunks: int) -> jax.Array:
    """`encode` of arrays (n, …), n / chunks blocks at a time, each encoded again in the backward pass.

    The vectors of the whole batch meet in one loss, and only the work of one chunk is ever in memory: the
    cached gradients of Gao et al. 2021 (GradCache), by the transpose of a map over checkpoints.
    """
    if chunks == 1:
        return encode(arrays)
    # every device's blocks lie together: each chunk takes some of each device's
    split = jax.tree.map(lambda x: x.reshape(-1, chunks, *x.shape[1:]).swapaxes(0, 1), arrays)
    found = jax.lax.map(jax.checkpoint(encode), split).swapaxes(0, 1)
    return found.reshape(-1, *found.shape[2:])


def _pairs_first(x: jax.Array, m: int) -> jax.Array:
    """Blocks (n, c, …) as rows: the first m of each block in order, then the rest."""
    rows = [x[:, :m].reshape(-1, *x.shape[2:]), x[:, m:].reshape(-1, *x.shape[2:])]
    return jnp.concatenate(rows)


def _in_precision(params: Params, precision: str) -> Params:
    return {name: p.astype(precision) for name, p in params.items()}

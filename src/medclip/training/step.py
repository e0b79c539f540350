"""One step of training: a batch and a state in, a state and its metrics out."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key, Num, UInt32

from medclip.encode.encoder import normalize
from medclip.model.checkpoint import Model
from medclip.model.packing import PackedText
from medclip.model.towers import (
    Params,
    image_features,
    l2_normalize,
    packed_text_features,
    project,
    token_features,
)
from medclip.require import require
from medclip.training.config import ResolvedTrainConfig
from medclip.training.distributed import shardings
from medclip.training.losses import Foils, Loss, duplicate_aware_mask, is_sigmoid
from medclip.training.optim import merge_lora, num_frozen_layers

if TYPE_CHECKING:
    import optax
else:
    optax = require("optax", extra="train")

MAX_LOGIT_SCALE = float(np.log(100))  # Radford et al. 2021, section 2.5

Metrics = dict[str, jax.Array]


class Batch(NamedTuple):
    """The pairs of a step in n blocks of m, each with k hard negatives; a block has c = m + m k captions.

    Captions beyond m are hard negatives, those of its first pair first. A frozen tower has its features here in place
    of its input.
    """

    images: Any
    """Pixels u8 (n, m, s, s, 3), features f32 (n, m, w), or the tokens f32 (n, m, t, w) that the first trained layer
    gets."""
    texts: Any
    """`PackedText` captions, or features f32 (n, c, w)."""
    foil_mask: Any
    """bool (n, m, k): False where a pair has no hard negative of a kind."""
    image_ids: Any
    """i32 (n, m): equal where images of the batch are."""
    caption_ids: Any
    """i32 (n, m): equal where captions of the batch are, letter case and spacing apart."""
    aug_keys: Any
    """u32 (n, m, 2): the random key of each image's augmentation."""


class State(NamedTuple):
    """All that changes from step to step."""

    params: Params
    ema_params: Params
    """Moving average of the parameters; empty without --ema-decay."""
    opt_state: Any
    step: Any
    """i32 scalar: steps done."""

    @property
    def eval_params(self) -> Params:
        """What is evaluated and saved."""
        return self.ema_params or self.params


TrainStep = Callable[[State, Batch], tuple[State, Metrics]]


def init_state(params: Params, trainable: Set[str], optimizer: optax.GradientTransformation, ema: bool) -> State:
    """The state before step 0; only tensors named in `trainable` have optimizer state."""
    params = {name: jnp.array(p, copy=True) for name, p in params.items()}  # a step consumes its state, not the model
    opt_state = jax.jit(optimizer.init)({name: p for name, p in params.items() if name in trainable})
    return State(params, jax.tree.map(jnp.array, params) if ema else {}, opt_state, jnp.zeros((), jnp.int32))


def make_step(
    model: Model,
    config: ResolvedTrainConfig,
    trainable: Set[str],
    optimizer: optax.GradientTransformation,
    loss: Loss,
    mesh: Mesh,
) -> TrainStep:
    """Compile `step(state, batch) -> (state, {"loss", "logit_scale", "gradient_norm"})`; the state is donated.

    `trainable` names the tensors that are trained.
    """
    chunks, max_scale = config.batch_size // config.micro_batch_size, max_logit_scale(model, config, trainable)
    first_layer = num_frozen_layers(model.config.vision, dict.fromkeys(trainable, 1.0))

    def batch_loss(trainable_params: Params, frozen: Params, batch: Batch) -> jax.Array:
        params = trainable_params | frozen
        towers = {name: p.astype(config.precision) for name, p in merge_lora(params).items()}
        images = grad_cache_map(
            lambda x: encode_images(model, config, towers, x[0], x[1], first_layer),
            (batch.images, batch.aug_keys),
            chunks,
        )
        texts = grad_cache_map(lambda x: encode_captions(model, config, towers, x), batch.texts, chunks)
        images, texts, foils = _pairs(images, texts, batch.foil_mask)
        mask = duplicate_aware_mask(batch.image_ids.reshape(-1), batch.caption_ids.reshape(-1))
        return loss(images, texts, params, mask, foils)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        trainable_params: Any = {name: p for name, p in state.params.items() if name in trainable}
        frozen = {name: p for name, p in state.params.items() if name not in trainable}
        value, gradient = jax.value_and_grad(batch_loss)(trainable_params, frozen, batch)
        updates, opt_state = optimizer.update(gradient, state.opt_state, trainable_params)
        params: Any = optax.apply_updates(trainable_params, updates)
        if max_scale is not None:
            params["logit_scale"] = jnp.minimum(params["logit_scale"], max_scale)
        ema: Any = {}
        if state.ema_params:  # of what is trained alone: a weighted sum of equal numbers is not always that number
            before = {name: state.ema_params[name] for name in params}
            average: Any = optax.incremental_update(params, before, 1 - config.ema_decay)
            ema = frozen | average
        params = frozen | params
        metrics = {
            "loss": value,
            "logit_scale": params["logit_scale"].reshape(()),  # SigLIP's has shape (1,)
            "gradient_norm": optax.tree.norm(gradient),
        }
        after = State(params, ema, opt_state, state.step + 1)
        return jax.lax.with_sharding_constraint(after, shardings(after, mesh, config.fsdp)), metrics

    return jax.jit(step, donate_argnums=0)


def max_logit_scale(model: Model, config: ResolvedTrainConfig, trainable: Set[str]) -> float | None:
    """The bound of a trained logit scale: ln 100 (Radford et al. 2021), or a larger start, which is not cut.

    None where nothing bounds it: a frozen scale stays as it is, and the sigmoid loss has no bound (Zhai et al. 2023).
    """
    if "logit_scale" not in trainable or is_sigmoid(model, config):
        return None
    return max(MAX_LOGIT_SCALE, float(np.max(model.params["logit_scale"])))


def encode_images(
    model: Model,
    config: ResolvedTrainConfig,
    params: Params,
    images: Num[Array, "n m ..."],
    keys: UInt32[Array, "n m 2"],
    first_layer: int = 0,
) -> Float[Array, "n m p"]:
    """Embeddings of blocks of images.

    They are pixels (n, m, s, s, 3), augmented by their keys, tokens (n, m, t, w) that `first_layer` gets, or features
    (n, m, w).
    """
    n, m = images.shape[:2]
    features, remat = images.reshape(n * m, *images.shape[2:]), config.gradient_checkpointing
    if features.ndim > 2:
        image_keys = jax.random.wrap_key_data(keys.reshape(-1, 2))
        patches = sample_patches(image_keys, model, config)
        if features.ndim == 4:
            pixels = normalize(augment(image_keys, features, config), model.image_processor)
            features = image_features(params, pixels, model.config, patches, remat)
        else:
            tokens = features.astype(config.precision)
            features = token_features(params, tokens, model.config, first_layer, patches, remat)
    return l2_normalize(project(params, features, model.config.vision)).reshape(n, m, -1)


def encode_captions(model: Model, config: ResolvedTrainConfig, params: Params, texts: Any) -> Float[Array, "n c p"]:
    """Embeddings of packed captions, or of features (n, c, w)."""
    if isinstance(texts, PackedText):
        texts = packed_text_features(params, texts, model.config, config.gradient_checkpointing)
    return l2_normalize(project(params, texts, model.config.text))


def sample_patches(keys: Key[Array, " b"], model: Model, config: ResolvedTrainConfig) -> Int[Array, "b k"] | None:
    """Which patches of each image are encoded, in order; None for all."""
    if not config.patch_dropout:
        return None
    patches = (model.image_processor.side // model.config.vision.patch_size) ** 2
    k = max(1, round(patches * (1 - config.patch_dropout)))
    return jax.vmap(lambda key: jnp.sort(jax.random.permutation(jax.random.fold_in(key, 5), patches)[:k]))(keys)


def augment(
    keys: Key[Array, " b"], pixels: Num[Array, "b s s 3"], config: ResolvedTrainConfig
) -> Float[Array, "b s s 3"]:
    """Rotate, crop and jitter brightness and contrast as configured; 0-255 in and out.

    An image's change depends on its own key alone. There are no flips: captions say left and right. Validation never
    passes here.
    """
    return jax.vmap(lambda key, image: _augment_image(key, image, config))(keys, pixels.astype(jnp.float32))


def _augment_image(key: jax.Array, pixels: jax.Array, config: ResolvedTrainConfig) -> jax.Array:
    area_key, corner_key, color_key = jax.random.split(key, 3)
    if config.rotation:
        angle = jax.random.uniform(jax.random.fold_in(key, 3), minval=-config.rotation, maxval=config.rotation)
        pixels = _rotate(pixels, jnp.deg2rad(angle))
    if config.min_crop_scale < 1:
        pixels = _crop(area_key, corner_key, pixels, config.min_crop_scale)
    if config.color_jitter:
        contrast, brightness = 1 + config.color_jitter * jax.random.uniform(color_key, (2,), minval=-1.0)
        mean = pixels.mean()
        pixels = jnp.clip((pixels - mean) * contrast + mean * brightness, 0, 255)
    return pixels


def _crop(area_key: jax.Array, corner_key: jax.Array, pixels: jax.Array, min_scale: float) -> jax.Array:
    """A random square of at least `min_scale` of the area, resized to the whole."""
    side = pixels.shape[0]
    fraction = jnp.sqrt(jax.random.uniform(area_key, minval=min_scale, maxval=1.0))
    corner = jax.random.uniform(corner_key, (2,)) * (1 - fraction) * side
    scale = jnp.full((2,), 1 / fraction)
    return jax.image.scale_and_translate(
        pixels, pixels.shape, (0, 1), scale, -corner * scale, method="linear", antialias=False
    )


def _rotate(pixels: jax.Array, angle: jax.Array) -> jax.Array:
    """Rotate about the center; what comes in from outside is black, as around most films."""
    center = (pixels.shape[0] - 1) / 2
    y, x = jnp.meshgrid(*[jnp.arange(n) - center for n in pixels.shape[:2]], indexing="ij")
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    coordinates = [y * cos - x * sin + center, y * sin + x * cos + center]
    rotate_channel = jax.vmap(lambda channel: map_coordinates(channel, coordinates, order=1), in_axes=2, out_axes=2)
    return rotate_channel(pixels)


def grad_cache_map(encode: Callable[[Any], jax.Array], arrays: Any, chunks: int) -> jax.Array:
    """`encode` of arrays (n, …), n / chunks blocks at a time, each encoded again in the backward pass.

    The embeddings of the whole batch meet in one loss, and only the work of one chunk is ever in memory: the
    cached gradients of Gao et al. 2021 (GradCache), by the transpose of a map over checkpoints.
    """
    if chunks == 1:
        return encode(arrays)
    # every device's blocks lie together: each chunk takes some of each device's
    split = jax.tree.map(lambda x: x.reshape(-1, chunks, *x.shape[1:]).swapaxes(0, 1), arrays)
    embeddings = jax.lax.map(jax.checkpoint(encode), split).swapaxes(0, 1)
    return embeddings.reshape(-1, *embeddings.shape[2:])


def _pairs(
    images: Float[Array, "n m p"], texts: Float[Array, "n c p"], foil_mask: Bool[Array, "n m k"]
) -> tuple[Float[Array, "b p"], Float[Array, "b p"], Foils | None]:
    """Embeddings of blocks by pair: images, captions, and hard negatives where there are any."""
    n, m, k = foil_mask.shape
    foils = Foils(texts[:, m:].reshape(n * m, k, -1), foil_mask.reshape(n * m, k)) if k else None
    return images.reshape(n * m, -1), texts[:, :m].reshape(n * m, -1), foils

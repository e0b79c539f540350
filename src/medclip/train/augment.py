"""Training-time changes to pixels, on the device, from one key an image: validation never passes here."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from medclip.train.config import TrainConfig


def augmented(keys: jax.Array, pixels: jax.Array, recipe: TrainConfig) -> jax.Array:
    """What the recipe asks of brightness, contrast, crop, rotation and flip; (b, s, s, 3) in and out, 0-255 f32.

    `keys` (b,): an image's change depends on its own key alone.
    """
    return jax.vmap(lambda key, one: _one(key, one, recipe))(keys, pixels.astype(jnp.float32))


def _one(key: jax.Array, pixels: jax.Array, recipe: TrainConfig) -> jax.Array:
    area_key, place_key, light_key = jax.random.split(key, 3)
    if recipe.rotation:
        angle = jax.random.uniform(jax.random.fold_in(key, 3), minval=-recipe.rotation, maxval=recipe.rotation)
        pixels = _rotated(pixels, jnp.deg2rad(angle))
    if recipe.min_crop_scale < 1:
        pixels = _cropped(area_key, place_key, pixels, recipe.min_crop_scale)
    if recipe.flip:
        pixels = jnp.where(jax.random.bernoulli(jax.random.fold_in(key, 4)), pixels[:, ::-1], pixels)
    contrast, brightness = 1 + 0.2 * jax.random.uniform(light_key, (2,), minval=-1.0)
    mean = pixels.mean()
    return jnp.clip((pixels - mean) * contrast + mean * brightness, 0, 255)


def _cropped(area_key: jax.Array, place_key: jax.Array, pixels: jax.Array, smallest: float) -> jax.Array:
    side = pixels.shape[0]
    part = jnp.sqrt(jax.random.uniform(area_key, minval=smallest, maxval=1.0))
    corner = jax.random.uniform(place_key, (2,)) * (1 - part) * side
    scale = jnp.full((2,), 1 / part)
    return jax.image.scale_and_translate(
        pixels, pixels.shape, (0, 1), scale, -corner * scale, method="linear", antialias=False
    )


def _rotated(pixels: jax.Array, angle: jax.Array) -> jax.Array:
    """About the center; what comes in from outside is black, as around most films."""
    middle = (pixels.shape[0] - 1) / 2
    y, x = jnp.meshgrid(*[jnp.arange(n) - middle for n in pixels.shape[:2]], indexing="ij")
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    places = [y * cos - x * sin + middle, y * sin + x * cos + middle]
    each = jax.vmap(lambda channel: map_coordinates(channel, places, order=1), in_axes=2, out_axes=2)
    return each(pixels)

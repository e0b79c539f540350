"""Training-time changes to pixels, on the device, from a key: validation never passes here.

No flip: captions say left and right, and hearts are on the left.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

SMALLEST_CROP = 0.9  # of the picture's area


def crop_and_jitter(key: jax.Array, pixels: jax.Array) -> jax.Array:
    """A random resized crop and a small change of brightness and contrast; (b, s, s, 3) in and out, 0-255 f32."""
    keys = jax.random.split(key, len(pixels))
    return jax.vmap(_one)(keys, pixels.astype(jnp.float32))


def _one(key: jax.Array, pixels: jax.Array) -> jax.Array:
    area_key, place_key, light_key = jax.random.split(key, 3)
    side = pixels.shape[0]
    part = jnp.sqrt(jax.random.uniform(area_key, minval=SMALLEST_CROP, maxval=1.0))
    corner = jax.random.uniform(place_key, (2,)) * (1 - part) * side
    scale = jnp.full((2,), 1 / part)
    cropped = jax.image.scale_and_translate(
        pixels, pixels.shape, (0, 1), scale, -corner * scale, method="linear", antialias=False
    )
    contrast, brightness = 1 + 0.2 * jax.random.uniform(light_key, (2,), minval=-1.0)
    mean = cropped.mean()
    return jnp.clip((cropped - mean) * contrast + mean * brightness, 0, 255)

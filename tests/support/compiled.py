"""Towers and losses compiled whole, as the package runs them: called as they are, each operation is compiled alone."""

import jax

from medclip.model import positions, towers
from medclip.training import losses

encode_image = jax.jit(towers.encode_image, static_argnames="config")
encode_text = jax.jit(towers.encode_text, static_argnames="config")
image_features = jax.jit(towers.image_features, static_argnames="config")
image_tokens = jax.jit(towers.image_tokens, static_argnames=("config", "num_layers"))
token_features = jax.jit(towers.token_features, static_argnames=("config", "first_layer"))
text_features = jax.jit(towers.text_features, static_argnames="config")
packed_text_features = jax.jit(towers.packed_text_features, static_argnames=("config", "remat"))
resize_positions = jax.jit(positions.resize_positions, static_argnames=("num_class_tokens", "side", "kernel"))

contrastive_loss = jax.jit(losses.contrastive_loss)
sigmoid_loss = jax.jit(losses.sigmoid_loss)
duplicate_aware_mask = jax.jit(losses.duplicate_aware_mask)

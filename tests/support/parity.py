"""Losses and gradients of our towers and of live transformers, for the comparison of `make parity`."""

import io
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from medclip.encode.decode import decode_pixels
from medclip.model.checkpoint import Model, load
from support.compiled import contrastive_loss, encode_image, encode_text, sigmoid_loss
from support.references import (
    CAPTIONS,
    open_torch_model,
    random_images,
    transformers_inputs,
)

CLOSE = 2e-6  # float32 rounding through five layers of unit vectors


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def batch_loss(model: Model, images: np.ndarray, texts: np.ndarray, params: dict) -> jax.Array:
    loss = sigmoid_loss if model.config.logit_bias else contrastive_loss
    return loss(jnp.asarray(images), jnp.asarray(texts), params, jnp.ones((len(images), len(images)), bool))


def gradients(folder: Path, families: tuple[str, str], side: int, seed: int) -> Iterator[tuple[str, np.ndarray, ...]]:
    """Name, our gradient of the loss and torch's, of every tensor of the model in `folder`."""
    import torch

    model, theirs = load(folder), open_torch_model(folder)
    theirs(**transformers_inputs(folder, random_images(side, seed), CAPTIONS), return_loss=True).loss.backward()
    pixels = np.stack([decode_pixels(png(image), model.image_processor) for image in random_images(side, seed)])
    mean, std = model.image_processor.mean, model.image_processor.std
    ids, valid = model.tokenizer.encode(CAPTIONS)

    def loss(params):
        images = encode_image(params, (pixels / 255 - jnp.array(mean)) / jnp.array(std), model.config)
        return batch_loss(model, images, encode_text(params, ids, valid, model.config), params)

    ours = jax.jit(jax.grad(loss))(model.params)
    for tensor in theirs.parameters():  # saved in place of the weights, for the names in memory are others
        tensor.data = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
    theirs.save_pretrained(folder / "gradients")
    for name, wanted in load_file(folder / "gradients" / "model.safetensors").items():
        gradient = np.array(ours[name])
        # torch keeps the padding's row of an embedding as it is; here that is the end of text too
        if "word_embeddings" in name or (
            model.config.text.max_length < model.config.text.max_position_embeddings
            and "text_model.embeddings.position" in name
        ):
            gradient[model.config.text.pad_token_id] = 0
        yield name, gradient, wanted

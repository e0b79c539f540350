"""Our towers give what transformers gives: stored references always, live ones in `make parity`."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from medclip.data.images import mean_std, preprocess
from medclip.encode.encoder import embed_images, embed_texts
from medclip.model.checkpoint import Model, load, save
from medclip.model.towers import encode_image, encode_text, logits
from medclip.train.losses import contrastive, hard_targets, sigmoid
from model.references import (
    CAPTIONS,
    FAMILIES,
    FOLDER,
    opened,
    pictures,
    random_folder,
    transformers_inputs,
    transformers_vectors,
)

CLOSE = 2e-6  # float32 rounding through five layers of unit vectors


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def loss_of(model: Model, images: np.ndarray, texts: np.ndarray, params: dict) -> jax.Array:
    loss = sigmoid if model.config.logit_bias else contrastive
    return loss(jnp.asarray(images), jnp.asarray(texts), params, *hard_targets(len(images), len(texts)))


def assert_same(folder: Path, images: list[np.ndarray], captions: list[str], wanted: dict[str, np.ndarray]) -> None:
    model = load(folder)
    encoded = [png(image) for image in images]
    pixels = np.stack([preprocess(image, model.preprocessor) for image in encoded]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose((pixels / 255 - 0.5) / 0.5, wanted["pixels"], atol=2.01 / 255)
    np.testing.assert_array_equal(model.tokenizer.encode(captions)[0], wanted["ids"])
    ours, texts = embed_images(model, encoded), embed_texts(model, captions)
    np.testing.assert_allclose(ours, wanted["images"], atol=CLOSE)
    np.testing.assert_allclose(texts, wanted["texts"], atol=CLOSE)
    np.testing.assert_allclose(logits(model.params, ours, texts), wanted["logits"], atol=14.3 * 2 * CLOSE)
    np.testing.assert_allclose(loss_of(model, ours, texts, model.params), wanted["loss"], atol=1e-5)


def test_stored_references_of_transformers() -> None:
    with np.load(FOLDER / "references.npz") as stored:
        assert_same(FOLDER, pictures(32, 0), CAPTIONS, dict(stored))


def test_a_model_survives_saving_bit_for_bit(tmp_path: Path) -> None:
    save(load(FOLDER), tmp_path / "once")
    save(load(tmp_path / "once"), tmp_path / "twice")
    for name in ("model.safetensors", "config.json", "tokenizer.json", "preprocessor_config.json"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


@pytest.mark.parity
@pytest.mark.parametrize("families", FAMILIES, ids="+".join)
@pytest.mark.parametrize(
    ("seed", "side", "squeeze", "towers"),
    [
        (1, 28, False, {}),
        (2, 33, True, {"hidden_act": "gelu"}),
        (3, 30, False, {"hidden_act": "quick_gelu", "num_hidden_layers": 1}),
    ],
)
def test_live_transformers(tmp_path: Path, families, seed: int, side: int, squeeze: bool, towers: dict) -> None:
    random_folder(tmp_path, seed, families, side, squeeze, **towers)
    images = pictures(side, seed)
    assert_same(tmp_path, images, CAPTIONS, transformers_vectors(tmp_path, images, CAPTIONS))
    one = transformers_vectors(tmp_path, images[:1], CAPTIONS[1:2])
    assert_same(tmp_path, images[:1], CAPTIONS[1:2], one)


def gradients(folder: Path, families: tuple[str, str], side: int, seed: int) -> Iterator[tuple[str, np.ndarray, ...]]:
    """Name, our gradient of the loss and torch's, of every tensor of the model in `folder`."""
    import torch

    model, theirs = load(folder), opened(folder)
    theirs(**transformers_inputs(folder, pictures(side, seed), CAPTIONS), return_loss=True).loss.backward()
    pixels = np.stack([preprocess(png(image), model.preprocessor) for image in pictures(side, seed)])
    mean, std = mean_std(model.preprocessor)
    ids, valid = model.tokenizer.encode(CAPTIONS)

    def loss(params):
        images = encode_image(params, (pixels / 255 - jnp.array(mean)) / jnp.array(std), model.config)
        return loss_of(model, images, encode_text(params, ids, valid, model.config), params)

    ours = jax.grad(loss)(model.params)
    for tensor in theirs.parameters():  # saved in place of the weights, for the names in memory are others
        tensor.data = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
    theirs.save_pretrained(folder / "gradients")
    for name, wanted in load_file(folder / "gradients" / "model.safetensors").items():
        found = np.array(ours[name])
        # torch keeps the padding's row of an embedding as it is; here that is the end of text too
        if "word_embeddings" in name or (families[1] == "roberta" and "text_model.embeddings.position" in name):
            found[model.config.text.pad_token_id] = 0
        yield name, found, wanted


@pytest.mark.parity
@pytest.mark.parametrize("families", FAMILIES, ids="+".join)
def test_gradients_of_the_loss_are_torchs(tmp_path: Path, families) -> None:
    random_folder(tmp_path, 4, families, 28)
    for name, ours, theirs in gradients(tmp_path, families, 28, 4):
        np.testing.assert_allclose(ours, theirs, atol=1e-4, err_msg=name)


@pytest.mark.parity
@pytest.mark.parametrize("families", FAMILIES, ids="+".join)
def test_what_we_save_opens_in_transformers(tmp_path: Path, families) -> None:
    random_folder(tmp_path / "theirs", 5, families, 28)
    save(load(tmp_path / "theirs"), tmp_path / "ours")
    before, after = (transformers_vectors(tmp_path / at, pictures(28, 5), CAPTIONS) for at in ("theirs", "ours"))
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


@pytest.mark.parity
def test_a_trained_run_opens_in_transformers(run: Path) -> None:
    model = load(run)
    images = pictures(model.config.vision.image_size, 5)
    theirs = transformers_vectors(run / "model", images, CAPTIONS)
    encoded = [png(image) for image in images]
    np.testing.assert_allclose(embed_images(model, encoded), theirs["images"], atol=1e-5)
    np.testing.assert_allclose(embed_texts(model, CAPTIONS), theirs["texts"], atol=1e-5)


@pytest.mark.parity
def test_the_stored_references_are_todays(tmp_path: Path) -> None:
    theirs = transformers_vectors(FOLDER, pictures(32, 0), CAPTIONS)
    with np.load(FOLDER / "references.npz") as stored:
        for name, value in theirs.items():
            np.testing.assert_allclose(stored[name], value, atol=CLOSE)

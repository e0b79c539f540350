"""Our towers give what transformers gives: stored references always, live ones in `make parity`."""

from __future__ import annotations

import io
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from medclip.data.images import fit
from medclip.encoder import embed_images, embed_texts
from medclip.model.hub import load, save
from medclip.train.losses import contrastive
from model.references import CAPTIONS, FOLDER, pictures, random_folder, transformers_vectors

CLOSE = 2e-6  # float32 rounding through five layers of unit vectors


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def assert_same(folder: Path, images: list[np.ndarray], captions: list[str], wanted: dict[str, np.ndarray]) -> None:
    model = load(folder)
    encoded = [png(image) for image in images]
    pixels = np.stack([fit(image, model.preprocessor) for image in encoded]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose((pixels / 255 - 0.5) / 0.5, wanted["pixels"], atol=2.01 / 255)
    np.testing.assert_array_equal(model.tokens.encode(captions)[0], wanted["ids"])
    ours, texts = embed_images(model, encoded), embed_texts(model, captions)
    np.testing.assert_allclose(ours, wanted["images"], atol=CLOSE)
    np.testing.assert_allclose(texts, wanted["texts"], atol=CLOSE)
    scale = model.params["logit_scale"]
    np.testing.assert_allclose(np.exp(scale) * ours @ texts.T, wanted["logits"], atol=14.3 * 2 * CLOSE)
    loss = contrastive(jnp.asarray(ours), jnp.asarray(texts), scale)
    np.testing.assert_allclose(loss, wanted["loss"], atol=1e-5)


def test_stored_references_of_transformers() -> None:
    with np.load(FOLDER / "references.npz") as stored:
        assert_same(FOLDER, pictures(32, 0), CAPTIONS, dict(stored))


def test_a_model_survives_saving_bit_for_bit(tmp_path: Path) -> None:
    save(load(FOLDER), tmp_path / "once")
    save(load(tmp_path / "once"), tmp_path / "twice")
    for name in ("model.safetensors", "config.json", "tokenizer.json", "preprocessor_config.json"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


@pytest.mark.parity
@pytest.mark.parametrize(
    ("seed", "act", "side", "squeeze"), [(1, "quick_gelu", 28, False), (2, "gelu", 33, True), (3, "gelu", 30, False)]
)
def test_live_transformers(tmp_path: Path, seed: int, act: str, side: int, squeeze: bool) -> None:
    random_folder(tmp_path, seed, act, side, squeeze)
    images = pictures(side, seed)
    assert_same(tmp_path, images, CAPTIONS, transformers_vectors(tmp_path, images, CAPTIONS))


@pytest.mark.parity
def test_a_trained_run_opens_in_transformers(run: Path) -> None:
    model = load(run)
    images = pictures(model.config.vision_config.image_size, 5)
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

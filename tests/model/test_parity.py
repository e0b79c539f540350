"""Our towers give what transformers gives: stored references always, live ones in `make parity`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.encode.decode import decode_pixels
from medclip.encode.encoder import embed_images, embed_texts
from medclip.model.checkpoint import load, save
from medclip.model.towers import logits
from support.gallery_stored import resized_by_pillow_13
from support.parity import batch_loss, gradients, png
from support.references import (
    CAPTIONS,
    FAMILIES,
    FOLDER,
    random_folder,
    random_images,
    transformers_outputs,
)

CLOSE = 2e-6  # float32 rounding through five layers of unit vectors


def assert_same(folder: Path, images: list[np.ndarray], captions: list[str], wanted: dict[str, np.ndarray]) -> None:
    model = load(folder)
    encoded = [png(image) for image in images]
    pixels = np.stack([decode_pixels(image, model.image_processor) for image in encoded]).transpose(0, 3, 1, 2)
    np.testing.assert_allclose((pixels / 255 - 0.5) / 0.5, wanted["pixels"], atol=2.01 / 255)
    np.testing.assert_array_equal(model.tokenizer.encode(captions)[0], wanted["ids"])
    ours, texts = embed_images(model, encoded), embed_texts(model, captions)
    np.testing.assert_allclose(ours, wanted["images"], atol=CLOSE)
    np.testing.assert_allclose(texts, wanted["texts"], atol=CLOSE)
    np.testing.assert_allclose(logits(model.params, ours, texts), wanted["logits"], atol=14.3 * 2 * CLOSE)
    np.testing.assert_allclose(batch_loss(model, ours, texts, model.params), wanted["loss"], atol=1e-5)


@resized_by_pillow_13
def test_stored_references_of_transformers() -> None:
    with np.load(FOLDER / "references.npz") as stored:
        assert_same(FOLDER, random_images(32, 0), CAPTIONS, dict(stored))


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
    images = random_images(side, seed)
    assert_same(tmp_path, images, CAPTIONS, transformers_outputs(tmp_path, images, CAPTIONS))
    one = transformers_outputs(tmp_path, images[:1], CAPTIONS[1:2])
    assert_same(tmp_path, images[:1], CAPTIONS[1:2], one)


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
    before, after = (transformers_outputs(tmp_path / at, random_images(28, 5), CAPTIONS) for at in ("theirs", "ours"))
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


@pytest.mark.parity
def test_a_trained_run_opens_in_transformers(run: Path) -> None:
    model = load(run)
    images = random_images(model.config.vision.image_size, 5)
    theirs = transformers_outputs(run / "model", images, CAPTIONS)
    encoded = [png(image) for image in images]
    np.testing.assert_allclose(embed_images(model, encoded), theirs["images"], atol=1e-5)
    np.testing.assert_allclose(embed_texts(model, CAPTIONS), theirs["texts"], atol=1e-5)


@pytest.mark.parity
def test_the_stored_references_are_todays(tmp_path: Path) -> None:
    theirs = transformers_outputs(FOLDER, random_images(32, 0), CAPTIONS)
    with np.load(FOLDER / "references.npz") as stored:
        for name, value in theirs.items():
            np.testing.assert_allclose(stored[name], value, atol=CLOSE)

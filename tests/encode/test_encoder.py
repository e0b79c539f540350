"""A split is embedded in one place: all of it, or some of its rows, in order; what is damaged ends it with a name."""

import dataclasses
import pydoc

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from medclip.data.dataset import Split
from medclip.encode.encoder import embed_images, embed_pixels, embed_split, embed_texts, jax_backend, stream_split
from medclip.errors import UserError, WorkError


@pytest.fixture(scope="module")
def split(data):
    return Split(data, "train")


def test_a_split_is_embedded_as_its_images_and_captions_are(model, split):
    images, texts = embed_split(model, split, "images"), embed_split(model, split, "captions")
    assert images == pytest.approx(embed_images(model, split.column("image")), abs=1e-6)
    assert texts == pytest.approx(embed_texts(model, split.column("caption")), abs=1e-6)
    assert images.dtype == texts.dtype == np.float32


@pytest.mark.parametrize("kind", ["images", "captions"])
def test_some_rows_are_embedded_in_their_order(model, split, kind):
    steps = []
    some = embed_split(model, split, kind, [7, 0, 11], steps.append)
    assert some == pytest.approx(embed_split(jax_backend(model), split, kind)[[7, 0, 11]], abs=1e-6)
    assert sum(steps) == 3


@pytest.mark.parametrize("kind", ["images", "captions"])
def test_batches_of_any_size_give_the_same(model, split, kind, monkeypatch):
    whole = embed_split(model, split, kind)
    for name in ("BATCH_SIZE", "WINDOW"):
        monkeypatch.setattr(f"medclip.encode.encoder.{name}", 4)
    parts = list(stream_split(jax_backend(model), split, kind))
    assert [len(part) for part in parts] == [4, 4, 4, 4, 4, 4, 1]
    assert np.concatenate(parts) == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, 8, 9])
def test_a_few_images_and_texts_cost_a_few(model, split, count, monkeypatch):
    """On a CPU, 64 together take as long for each as 8 images or 16 texts do: padding to 64 would be the cost."""
    rows = {"image": [], "text": []}
    for kind in rows:
        tower = f"medclip.encode.encoder._run_{kind}"
        run = pydoc.locate(tower)
        monkeypatch.setattr(
            tower, lambda *inputs, run=run, counts=rows[kind]: counts.append(len(inputs[1])) or run(*inputs)
        )
    embed_images(model, split.column("image")[:count])
    embed_split(model, split, "images", range(count))
    embed_texts(model, ["CT of the chest"] * count)
    few = {1: [1], 2: [8], 8: [8], 9: [8, 1]}[count]
    assert rows == {"image": [*few, *([8] * len(few))], "text": [1 if count == 1 else 16]}


def test_equal_captions_are_encoded_once(model, split, tower_runs):
    repeated = embed_split(model, split, "captions", [3, 0, 3, 3])
    assert tower_runs["captions"] == 2
    assert np.array_equal(repeated, embed_split(model, split, "captions", [3, 0])[[0, 1, 0, 0]])


def test_no_rows_are_no_embeddings(model, split):
    assert embed_split(model, split, "images", []).shape == embed_images(model, []).shape == (0, 64)
    assert embed_split(model, split, "captions", []).shape == embed_texts(model, []).shape == (0, 64)


def test_an_image_that_cannot_be_read_is_named(model, data, copy):
    folder = copy(data)
    path, image = folder / "validation-00000.arrow", Split(data, "validation").image(4)
    path.write_bytes(path.read_bytes().replace(image, bytes(len(image))))
    damaged = Split(folder, "validation")
    with pytest.raises(WorkError, match=r"the image of ROCO_00004 in split 'validation' of .* is not the one that was"):
        embed_split(model, damaged, "images")
    with pytest.raises(UserError, match=r"images\[1\]: image unreadable"):
        embed_images(model, [damaged.image(3), bytes(len(image))])


def test_weights_that_are_not_finite_are_refused(model, split):
    name = "visual_projection.weight"
    damaged = dataclasses.replace(model, params=model.params | {name: model.params[name] * np.nan})
    with pytest.raises(WorkError, match="not finite"):
        embed_split(damaged, split, "images")


def test_shapes_and_types_of_arrays_are_checked_in_the_tests(model):
    side = model.config.vision.image_size
    for wrong in (np.zeros((2, side, side, 3), np.float32), np.zeros((2, side, side + 1, 3), np.uint8)):
        with pytest.raises(TypeCheckError):
            embed_pixels(model, wrong)

"""Validation counts and masks as training does: repeated images and captions are one."""

import dataclasses

import numpy as np
import pytest

from medclip.data.dataset import Split
from medclip.encode.encoder import embed_images, embed_texts, jax_backend
from medclip.training.config import resolve
from medclip.training.loop import train
from medclip.training.losses import sigmoid_loss
from medclip.training.validation import read_validation_set, validate
from support.handmade_datasets import dataset, row
from support.material import draw_image, image_bytes


@pytest.fixture(scope="module")
def repeats(tmp_path_factory):
    """Eight validation pairs: image 0 in rows 0, 1 and 4, and the captions of rows 2 and 6 equal but for case."""
    images = [image_bytes(draw_image(number)) for number in (0, 0, 1, 2, 0, 3, 4, 5)]
    captions = [f"CT of the chest, finding number {i}" for i in range(8)]
    captions[6] = captions[2].upper().replace(" ", "  ")
    rows = [
        row(i, image=image, caption=caption) for i, (image, caption) in enumerate(zip(images, captions, strict=True))
    ]
    folder = tmp_path_factory.mktemp("repeats") / "data"
    return dataset(folder, {"train": [row(100 + i) for i in range(16)], "validation": rows})


@pytest.fixture(scope="module")
def embeddings(repeats, model):
    split = Split(repeats, "validation")
    images = embed_images(model, [split.image(i) for i in range(8)]).astype(np.float64)
    return images, embed_texts(model, split.column("caption")).astype(np.float64)


SAME_IMAGE, SAME_CAPTION = {0, 1, 4}, {2, 6}


def is_negative(i, j):
    return not any({i, j} <= same for same in (SAME_IMAGE, SAME_CAPTION))


def by_hand(scores, rows):
    """Symmetric InfoNCE of a batch of rows, each against its own candidate and those of other images and captions."""
    total = 0.0
    for i in rows:
        negatives = [j for j in rows if j != i and is_negative(i, j)]
        for line in (scores[i], scores[:, i]):
            total -= line[i] - np.log(np.exp(line[[i, *negatives]]).sum())
    return total / (2 * len(rows))


@pytest.mark.parametrize("batch_size", [8, 4])
def test_the_loss_masks_repeats_as_training_does(repeats, model, embeddings, batch_size):
    images, texts = embeddings
    scores = np.exp(float(model.params["logit_scale"])) * images @ texts.T
    batches = [range(start, start + batch_size) for start in range(0, 8, batch_size)]
    metrics = validate(model, read_validation_set(Split(repeats, "validation"), jax_backend(model)), batch_size).metrics
    assert metrics["validation_loss"] == pytest.approx(np.mean([by_hand(scores, rows) for rows in batches]), rel=1e-5)


def test_the_sigmoid_loss_masks_them_too(repeats, model, embeddings):
    images, texts = embeddings
    scores = np.exp(float(model.params["logit_scale"])) * images @ texts.T - 10
    expected = sum(
        np.log1p(np.exp(-scores[i, j] if i == j else scores[i, j]))
        for i in range(8)
        for j in range(8)
        if i == j or is_negative(i, j)
    )
    bias = {"logit_bias": np.array(-10, np.float32)}
    validation_set = read_validation_set(Split(repeats, "validation"), jax_backend(model))
    metrics = validate(model, validation_set, 8, sigmoid_loss, bias).metrics
    assert metrics["validation_loss"] == pytest.approx(expected / 8, rel=1e-5)


def recall_by_hand(scores, right, k):
    """The share of queries (rows) with a right candidate among the k best."""
    return np.mean([right[i, top].any() for i, top in enumerate(np.argsort(-scores, axis=1)[:, :k])])


def test_recall_is_of_six_images_and_seven_captions(repeats, model, embeddings):
    images, texts = embeddings
    image_rows, text_rows = [0, 2, 3, 5, 6, 7], [0, 1, 2, 3, 4, 5, 7]
    right = np.zeros((6, 7), bool)
    for image, text in [(0, 0), (0, 1), (0, 4), (1, 2), (2, 3), (3, 5), (4, 2), (5, 6)]:
        right[image, text] = True
    scores = images[image_rows] @ texts[text_rows].T
    metrics, _, queries = validate(model, read_validation_set(Split(repeats, "validation"), jax_backend(model)), 8)
    for k in (1, 5):
        expected = np.mean([recall_by_hand(scores, right, k), recall_by_hand(scores.T, right.T, k)])
        assert metrics[f"R@{k}"] == pytest.approx(expected)
    assert metrics["num_candidates"] == 7
    assert queries["image_to_text"].rows.tolist() == image_rows
    assert queries["text_to_image"].rows.tolist() == text_rows


@pytest.mark.parametrize("frozen", [(), ("text_model.*",)], ids=["trained", "frozen"])
def test_foils_are_told_where_their_captions_are_nearer_to_the_image(tmp_path, model, train_config, frozen):
    """Rows 0, 1 and 3 have a foil, by hand; whether the text tower runs or its features were kept."""
    captions = ["CT of the left lung", "right knee, MRI", "a normal chest", "left hip fracture on X-ray"]
    foils = {0: "CT of the right lung", 1: "left knee, MRI", 3: "right hip fracture on X-ray"}
    rows = [row(i, image=image_bytes(draw_image(i)), caption=caption) for i, caption in enumerate(captions)]
    folder = dataset(tmp_path / "data", {"train": [row(100 + i) for i in range(8)], "validation": rows})
    split, config = Split(folder, "validation"), resolve(dataclasses.replace(train_config, freeze=frozen), 8)
    images, texts = embed_images(model, [split.image(i) for i in range(4)]), embed_texts(model, captions)
    other = embed_texts(model, list(foils.values()))
    correct = [images[i] @ texts[i] > images[i] @ foil for i, foil in zip(foils, other, strict=True)]
    scales = {name: 0.0 if frozen and name.startswith("text_model.") else 1.0 for name in model.params}
    validation_set = read_validation_set(split, jax_backend(model), config, scales)
    assert (validation_set.text_features is not None) == bool(frozen)
    assert list(validation_set.foils) == list(foils.values())
    metrics = validate(model, validation_set, 4).metrics
    assert metrics["foil_accuracy"] == pytest.approx(np.mean(correct))
    assert metrics["num_candidates"] == 4


def test_what_another_pair_says_of_the_same_image_is_no_foil(tmp_path, model, train_config):
    """Images 0 and 1 are one, with a finding on each side; image 2 has its own."""
    captions = ["a nodule on the left", "A nodule on the  RIGHT", "a cyst on the left"]
    images = [image_bytes(draw_image(number)) for number in (0, 0, 1)]
    rows = [row(i, image=images[i], caption=caption) for i, caption in enumerate(captions)]
    folder = dataset(tmp_path / "data", {"train": [row(100 + i) for i in range(8)], "validation": rows})
    validation_set = read_validation_set(
        Split(folder, "validation"), jax_backend(model), resolve(train_config, 8), dict.fromkeys(model.params, 1.0)
    )
    assert (list(validation_set.foils), validation_set.foil_rows.tolist()) == (["a cyst on the right"], [2])


@pytest.mark.slow
def test_the_card_counts_them_once(repeats, train_config, tmp_path):
    train(repeats, tmp_path / "run", dataclasses.replace(train_config, steps=1, num_evals=1))
    card = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert "16 training pairs, 8 validation pairs" in card
    assert "6 images, 7 captions. This split also chose the weights." in card

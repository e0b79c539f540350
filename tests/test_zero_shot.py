"""Probabilities of classes by their prompts, as the zero-shot evaluation computes them."""

import numpy as np
import pytest

from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import UserError, WorkError
from medclip.prompts import read_prompts
from medclip.zero_shot import class_embeddings, classify


@pytest.fixture(scope="module")
def embeddings(roco, model):
    return embed_images(model, sorted((roco.folder / "validation" / "radiology" / "images").iterdir())[:3])


def test_probabilities_are_the_softmax_of_scaled_cosines_with_the_mean_of_prompts(model, embeddings):
    classes = ["CT", "ultrasound of the knee", "normal"]
    probabilities = classify(model, embeddings, classes)
    prompts = read_prompts(None, "default", False)
    means = np.stack([embed_texts(model, prompts.affirm(name)).mean(axis=0) for name in classes])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    scaled = np.exp(float(model.params["logit_scale"])) * embeddings @ means.T
    expected = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
    assert probabilities.shape == (3, 3)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


@pytest.mark.parametrize(
    "classes", [["CT"], [], ["CT", " "], ["CT", "ct"], ["a_b", "A b"], [str(n) for n in range(101)]]
)
def test_classes_that_cannot_be_told_apart_are_refused(model, embeddings, classes):
    with pytest.raises(UserError, match="class"):
        classify(model, embeddings, classes)


def test_a_class_is_the_mean_of_its_texts_at_unit_length(model):
    vectors = {"a": [1, 0], "b": [0, 1], "c": [-1, 0]}

    def embed(_, texts):
        return np.array([vectors[text] for text in texts], np.float32)

    expected = np.array([[0.5**0.5, 0.5**0.5], [-1, 0]])
    assert class_embeddings(model, [["a", "b"], ["c"]], embed) == pytest.approx(expected)
    with pytest.raises(WorkError, match="without a direction"):
        class_embeddings(model, [["a", "c"]], embed)


def test_templates_replace_the_prompts(model, embeddings):
    plain, *others = (
        classify(model, embeddings, ["CT", "MRI"], templates=templates)
        for templates in (["a {} of the chest"], ["a {} of the chest", "{}"], ())
    )
    means = embed_texts(model, ["a CT of the chest", "a MRI of the chest"])
    scaled = np.exp(float(model.params["logit_scale"])) * embeddings @ means.T
    np.testing.assert_allclose(plain, np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True), atol=1e-5)
    assert all(np.abs(other - plain).max() > 1e-4 for other in others)
    with pytest.raises(UserError, match="template"):
        classify(model, embeddings, ["CT", "MRI"], templates=["no place for a name"])

"""Which class an image shows, as the evaluation of classes says it."""

import numpy as np
import pytest

from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.prompts import read_prompts
from medclip.zero_shot import classify


@pytest.fixture(scope="module")
def pictures(roco, model):
    return embed_images(model, sorted((roco.folder / "validation" / "radiology" / "images").iterdir())[:3])


def test_probabilities_are_the_softmax_of_scaled_cosines_with_the_mean_of_prompts(model, pictures):
    classes = ["CT", "ultrasound of the knee", "normal"]
    found = classify(model, pictures, classes)
    said = read_prompts(None, "default", False)
    means = np.stack([embed_texts(model, said.of(name)).mean(axis=0) for name in classes])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    scaled = np.exp(float(model.params["logit_scale"])) * pictures @ means.T
    expected = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
    assert found.shape == (3, 3)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1)


@pytest.mark.parametrize("classes", [["CT"], [], ["CT", " "], ["CT", "ct"], [str(n) for n in range(101)]])
def test_what_are_no_classes_is_one_sentence(model, pictures, classes):
    with pytest.raises(UserError, match="class"):
        classify(model, pictures, classes)

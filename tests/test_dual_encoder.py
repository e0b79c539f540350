"""A model in a few calls: every form of an image and of a text, one or many, gives the embedding of its file."""

import dataclasses
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import medclip
from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import UserError
from medclip.model.adapt import with_context_length
from medclip.zero_shot import classify
from support.material import draw_image, image_bytes

TEXTS = ["CT of the chest", "MRI of the left knee", ""]


@pytest.fixture(scope="module")
def encoder(run):
    return medclip.load(run)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three images, lossless."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        (folder / f"{number}.png").write_bytes(image_bytes(draw_image(number), "PNG"))
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def embeddings(model, files):
    return embed_images(model, files)


def pil(path):
    return Image.open(io.BytesIO(path.read_bytes()))


FORMS = {
    "Path": lambda path: path,
    "str": str,
    "bytes": lambda path: path.read_bytes(),
    "PIL": pil,
    "array": lambda path: np.asarray(pil(path)),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_image_of_any_form_is_one_vector(encoder, files, embeddings, form):
    vector = encoder.encode_image(FORMS[form](files[1]))
    assert vector.shape == (encoder.dim,) and vector.dtype == np.float32
    assert vector == pytest.approx(embeddings[1], abs=1e-6)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_list_or_an_iterator_of_images_is_a_row_each(encoder, files, embeddings, form):
    images = [FORMS[form](path) for path in files]
    assert encoder.encode_image(images) == pytest.approx(embeddings, abs=1e-6)
    assert encoder.encode_image(iter(images), batch_size=2) == pytest.approx(embeddings, abs=1e-6)


def test_forms_may_be_mixed_and_colors_and_gray_too(encoder, files, embeddings):
    gray = np.asarray(pil(files[1]))
    assert gray.ndim == 2
    images = [str(files[0]), np.repeat(gray[..., None], 3, axis=2), gray[..., None], pil(files[2])]
    assert encoder.encode_image(images) == pytest.approx(embeddings[[0, 1, 1, 2]], abs=1e-6)


def test_an_array_of_four_axes_is_a_batch(encoder):
    batch = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), np.uint8)
    assert encoder.encode_image(batch) == pytest.approx(encoder.encode_image(list(batch)), abs=1e-6)


def test_no_images_and_no_texts_are_no_rows(encoder):
    assert encoder.encode_image([]).shape == encoder.encode_text(iter([])).shape == (0, encoder.dim)
    assert encoder.similarity([], TEXTS).shape == (0, 3)


def test_one_text_is_one_vector_and_a_list_a_row_each(encoder, model):
    embeddings = embed_texts(model, TEXTS)
    assert encoder.encode_text("CT of the chest") == pytest.approx(embeddings[0], abs=1e-6)
    assert encoder.encode_text("CT of the chest").shape == (encoder.dim,)
    assert encoder.encode_text(TEXTS) == pytest.approx(embeddings, abs=1e-6)
    assert encoder.encode_text(iter(TEXTS), batch_size=2) == pytest.approx(embeddings, abs=1e-6)


def test_similarity_is_the_cosine(encoder, files, embeddings):
    cosines = embeddings @ encoder.encode_text(TEXTS).T
    assert encoder.similarity(files, TEXTS) == pytest.approx(cosines, abs=1e-6)
    assert encoder.similarity(files[0], TEXTS) == pytest.approx(cosines[0], abs=1e-6)
    assert float(encoder.similarity(files[0], TEXTS[1])) == pytest.approx(cosines[0, 1], abs=1e-6)


def test_zero_shot_is_that_of_the_evaluation_or_of_the_given_templates(encoder, model, files, embeddings):
    labels = ["chest", "left knee", "brain"]
    assert encoder.zero_shot(files, labels) == pytest.approx(classify(model, embeddings, labels), abs=1e-6)
    assert encoder.zero_shot(files[0], labels) == pytest.approx(encoder.zero_shot(files, labels)[0], abs=1e-6)
    texts = encoder.encode_text([f"CT of the {label}" for label in labels])
    scaled = np.exp(float(model.params["logit_scale"])) * (embeddings @ texts.T).astype(np.float64)
    softmax = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
    probabilities = encoder.zero_shot(files, labels, templates="CT of the {}")
    assert probabilities == pytest.approx(softmax, abs=1e-5) and not np.allclose(
        probabilities, encoder.zero_shot(files, labels), atol=1e-4
    )


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (["0.png", "absent.png"], r"^0\.png: image missing"),
        ([image_bytes(draw_image(0), "PNG"), b"no image"], r"images\[1\]: image unreadable"),
        ([np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.float32)], r"images\[1\]: image array of float32 \(4, 4\)"),
        (np.zeros((3, 8, 8), np.uint8), r"images\[0\]: image array of uint8 \(3, 8, 8\)"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(encoder, images, sentence):
    with pytest.raises(UserError, match=sentence):
        encoder.encode_image(images)


def test_an_item_of_another_type_is_named(encoder, files):
    with pytest.raises(TypeError, match=r"images\[1\] is int"):
        encoder.encode_image(iter([files[0], 3]))
    with pytest.raises(TypeError, match=r"texts\[1\] is NoneType"):
        encoder.encode_text(["chest", None])
    with pytest.raises(TypeError, match="labels is a single string"):
        encoder.zero_shot(files, "chest")


def test_what_cannot_be_asked_is_one_sentence(encoder, files):
    with pytest.raises(UserError, match="batch_size must be at least 1"):
        encoder.encode_image(files, batch_size=0)
    with pytest.raises(UserError, match=r"must hold \{\} once"):
        encoder.zero_shot(files, ["a", "b"], templates=["CT of the {}", "CT"])


def test_its_repr_is_one_line_of_what_it_is(encoder, run):
    assert "\n" not in repr(encoder)
    assert str(run / "model") in repr(encoder) and "32 px" in repr(encoder) and "64 dimensions" in repr(encoder)


def test_its_repr_counts_the_tokens_that_it_reads(encoder):
    shorter = with_context_length(encoder.model, 12)  # keeps the positions of more
    assert ", 12 tokens" in repr(dataclasses.replace(encoder, model=shorter))


def test_it_stands_for_its_folder(encoder, run):
    assert medclip.load(encoder).folder == encoder.folder == run / "model"


def test_a_single_item_is_refused_where_a_list_is_meant(model, files):
    for image in (str(files[0]), files[0], files[0].read_bytes(), pil(files[0])):
        with pytest.raises(TypeError, match=r"single image|parameter 'images'"):  # beartype may be the first to refuse
            embed_images(model, image)
    with pytest.raises(TypeError, match="single string"):
        embed_texts(model, "chest x-ray")


def test_the_package_alone_imports_neither_jax_nor_a_stage():
    program = (
        "import sys, medclip; dir(medclip); "
        "print([name for name in sys.modules if name.split('.')[0] in ('jax', 'numpy', 'pyarrow', 'PIL')])"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out == "[]\n"


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'embed'"):
        medclip.embed  # noqa: B018

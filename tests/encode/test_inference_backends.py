"""What runs an exported model gives the vectors that JAX gives; without an export there is a sentence."""

import numpy as np
import pytest

from medclip.encode.encoder import embed_captions, embed_pixels, embed_texts, jax_backend
from medclip.encode.inference_backends import open_backend
from medclip.errors import UserError
from medclip.model.checkpoint import load
from medclip.model.convert import record_export
from medclip.model.export import export_onnx
from support.material import draw_image
from support.references import CAPTIONS, random_folder


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_model_that_was_not_exported_is_told_how(run, name):
    with pytest.raises(UserError, match=r"medclip export .* --to onnx"):
        open_backend(name, run)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("damaged", ["image_encoder.onnx", "text_encoder.onnx", "export.json"])
def test_a_damaged_export_is_not_opened(copy, run, name, damaged):
    folder = copy(run / "model")
    for kind in ("image", "text"):
        (folder / f"{kind}_encoder.onnx").write_bytes(b"an encoder")
    record_export(folder, form="onnx", opset=20)
    path = folder / damaged
    path.write_bytes(path.read_bytes().replace(b"20", b"21").replace(b"an enc", b"an end"))
    with pytest.raises(UserError, match=r"encoder.onnx is absent, or not as it was written: medclip export"):
        open_backend(name, folder)


def test_jax_needs_no_export(run, model):
    backend = open_backend("jax", run)
    assert np.array_equal(embed_captions(backend, CAPTIONS), embed_captions(jax_backend(model), CAPTIONS))


@pytest.mark.parity
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("families", [("clip", "clip"), ("siglip", "siglip")], ids="+".join)
@pytest.mark.filterwarnings("ignore")  # the exporter warns of itself
def test_an_engine_gives_the_vectors_of_jax(tmp_path, families, name):
    pytest.importorskip(name)
    random_folder(tmp_path / "model", 6, families, 28)
    export_onnx(tmp_path / "model", tmp_path / "onnx")
    model, backend = load(tmp_path / "model"), open_backend(name, tmp_path / "onnx")
    pixels = np.stack([np.asarray(draw_image(n, (32, 32)).resize((28, 28)).convert("RGB")) for n in range(5)])
    images = backend.project(backend.image_features(pixels), model.config.vision)
    np.testing.assert_allclose(images, embed_pixels(model, pixels), atol=2e-6)
    np.testing.assert_allclose(embed_captions(backend, CAPTIONS), embed_texts(model, CAPTIONS), atol=2e-6)

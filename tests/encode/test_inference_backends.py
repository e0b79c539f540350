"""Other libraries give the features of JAX; the fastest is chosen by measurement, remembered and named."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from medclip.atomic_io import read_json
from medclip.encode import inference_backends
from medclip.encode.encoder import Backend, jax_backend
from medclip.encode.inference_backends import fastest_backend, make_backend, open_backend
from medclip.errors import UserError
from medclip.search.embed import embed
from support.gallery import TEXTS
from support.gallery_stored import stored_model

LAYOUTS = (
    "openai-clip-b32", "siglip-b16", "siglip2-so400m-timm", "metaclip2", "clipa", "xlm-roberta-b32", "biomedclip",
    "dinov2-registers", "dinov2-giant", "dinov3-s16", "vit-in21k", "roberta-pooler", "minilm", "mpnet",
)  # fmt: skip


@pytest.fixture
def alone(monkeypatch) -> None:
    """No library but JAX is installed."""
    for package in ("onnx", "onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, package, None)


@pytest.fixture
def libraries(monkeypatch, tmp_path) -> None:
    """ONNX Runtime and OpenVINO are installed, and nothing is remembered yet."""
    for package in ("onnx", "onnxruntime", "openvino"):
        module = ModuleType(package)
        module.__spec__ = ModuleSpec(package, None)
        monkeypatch.setitem(sys.modules, package, module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def simulate(monkeypatch, seconds: dict[str, float], differences: dict[str, float] | None = None) -> list[str]:
    """Backends that take so long for a batch and differ from JAX by so much; the list of those that were made.

    One without seconds cannot run the model.
    """
    made, clock = [], SimpleNamespace(now=0.0)
    monkeypatch.setattr(inference_backends, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def make(name, model, use_cache=False):
        def features(*arrays):
            if name not in seconds:
                raise UserError("this model has no ONNX graph.")
            clock.now += seconds[name]
            return np.full((len(arrays[0]), 2), (differences or {}).get(name, 0), np.float32)

        made.append(name)
        return Backend(name, model, features, features, lambda features, tower: features)

    monkeypatch.setattr(inference_backends, "make_backend", make)
    return made


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "openvino-bf16"])
def test_a_library_that_is_not_installed_is_named_with_its_remedy(alone, run, name):
    library = name.removesuffix("-bf16")
    with pytest.raises(UserError, match=f"{library} is not installed: pip install .*{library}"):
        open_backend(name, run)


def test_the_fastest_is_jax_where_nothing_else_is_installed(alone, run, data, tmp_path):
    embed(run, data, tmp_path / "out", "validation", max_samples=2, kinds=["captions"], backend="auto")
    assert read_json(tmp_path / "out" / "embedding.json", "a folder of embeddings")["backend"] == "jax"


def test_the_fastest_is_measured_once_for_each_model(libraries, model, monkeypatch, capsys):
    made = simulate(monkeypatch, {"jax": 0.02, "onnxruntime": 0.001, "openvino": 0.03})
    assert fastest_backend(model, "a") == "onnxruntime"
    assert "backend onnxruntime, the fastest here in float32 (pairs/s: jax " in capsys.readouterr().err
    assert sorted(made) == ["jax", "onnxruntime", "openvino"]
    made = simulate(monkeypatch, {"jax": 0.001, "onnxruntime": 0.02, "openvino": 0.03})
    assert fastest_backend(model, "a") == "onnxruntime"
    assert made == []
    assert fastest_backend(model, "b") == "jax"


def test_one_that_differs_is_left_out(libraries, model, monkeypatch, capsys):
    simulate(monkeypatch, {"jax": 0.03, "onnxruntime": 0.01, "openvino": 0.02}, {"onnxruntime": 1e-3, "openvino": 1e-6})
    assert fastest_backend(model, "a") == "openvino"
    assert "warning: onnxruntime is left out: it differs from jax by 1.0e-03." in capsys.readouterr().err


def test_one_that_cannot_run_the_model_is_left_out(libraries, model, monkeypatch, capsys):
    simulate(monkeypatch, {"jax": 0.02, "onnxruntime": 0.01})
    assert fastest_backend(model, "a") == "onnxruntime"
    assert "warning: openvino is left out: this model has no ONNX graph." in capsys.readouterr().err


def test_a_damaged_memory_is_measured_again(libraries, model, monkeypatch, tmp_path):
    simulate(monkeypatch, {"jax": 0.02, "onnxruntime": 0.02, "openvino": 0.01})
    assert fastest_backend(model, "a") == "openvino"
    (file,) = (tmp_path / "cache").rglob("backends/*")
    for damage in (b"\xff\xfe", b"tensorflow\n", b""):
        file.write_bytes(damage)
        assert fastest_backend(model, "a") == "openvino"


def assert_same_features(backend, model, **tolerance):
    side = model.image_processor.side
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    ids, valid = model.tokenizer.encode(list(TEXTS))
    ours = jax_backend(model)
    np.testing.assert_allclose(backend.image_features(pixels), ours.image_features(pixels), **tolerance)
    np.testing.assert_allclose(backend.text_features(ids, valid), ours.text_features(ids, valid), **tolerance)


@pytest.mark.parity
@pytest.mark.parametrize("layout", LAYOUTS)
def test_onnx_runtime_gives_the_features_of_jax(tmp_path, layout):
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    model = stored_model(layout, tmp_path)
    assert_same_features(make_backend("onnxruntime", model), model, atol=1e-5, rtol=0)


@pytest.mark.parity
@pytest.mark.parametrize("layout", ["openai-clip-b32", "dinov2-registers", "mpnet"])
def test_openvino_gives_the_features_of_jax(tmp_path, layout):
    for package in ("onnx", "openvino"):
        pytest.importorskip(package)
    model = stored_model(layout, tmp_path)
    assert_same_features(make_backend("openvino", model), model, atol=1e-5, rtol=0)
    assert sys.modules["openvino_telemetry"] is None  # nothing is sent
    try:
        rounded = make_backend("openvino-bf16", model)
        assert_same_features(rounded, model, atol=0.3, rtol=0)
    except UserError as error:
        assert "no bfloat16 on this processor" in str(error)
    else:
        with pytest.raises(AssertionError, match="Not equal"):
            assert_same_features(rounded, model, atol=1e-5, rtol=0)


@pytest.mark.parity
def test_captions_of_every_length_have_the_features_of_jax(tmp_path):
    pytest.importorskip("onnxruntime")
    model = stored_model("minilm", tmp_path)
    ids, valid = model.tokenizer.encode(["a nodule", "CT"])
    backend, ours = make_backend("onnxruntime", model), jax_backend(model)
    for length in (8, 16, ids.shape[1]):
        arrays = ids[:, :length], valid[:, :length]
        np.testing.assert_allclose(backend.text_features(*arrays), ours.text_features(*arrays), atol=1e-5)

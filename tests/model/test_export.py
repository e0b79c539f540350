"""Models leave in other forms, checked; pushing sends a model folder and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.encode.encoder import embed_images, embed_texts
from medclip.errors import UserError, WorkError
from medclip.model import export
from medclip.model.checkpoint import load, save
from medclip.model.export import export_onnx, push
from medclip.model.open_clip.to_open_clip import export_open_clip
from medclip.verify import verify
from support.gallery import write_images
from support.gallery_stored import stored_model
from support.model_folders import assert_same_embeddings, dual_encoder
from support.references import (
    CAPTIONS,
    FAMILIES,
    FOLDER,
    random_folder,
    random_images,
    transformers_inputs,
    transformers_outputs,
)


@pytest.mark.parity
@pytest.mark.parametrize("families", FAMILIES, ids="+".join)
def test_onnx_gives_the_vectors_of_transformers_at_any_batch_size_and_length(tmp_path: Path, families) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    random_folder(tmp_path / "model", 6, families, 28)
    assert max(export_onnx(tmp_path / "model", tmp_path / "onnx").values()) < 2e-6
    images = random_images(28, 0)
    theirs = transformers_outputs(tmp_path / "model", images, CAPTIONS)
    pixels = transformers_inputs(tmp_path / "model", images, CAPTIONS)["pixel_values"].numpy()
    image_encoder, text_encoder = (
        onnxruntime.InferenceSession(tmp_path / "onnx" / f"{kind}_encoder.onnx") for kind in ("image", "text")
    )
    (ours,) = image_encoder.run(None, {"pixel_values": pixels})
    np.testing.assert_allclose(ours, theirs["images"], atol=2e-6)
    ids, valid = load(tmp_path / "model").tokenizer.encode([CAPTIONS[1]] * 9)
    length = ids.shape[1] if families[1] == "siglip" else 8  # SigLIP reads padding
    given = {"input_ids": ids[:, :length].astype(np.int64), "attention_mask": valid[:, :length].astype(np.int64)}
    (ours,) = text_encoder.run(None, given)
    np.testing.assert_allclose(ours, np.repeat(theirs["texts"][1:2], 9, axis=0), atol=2e-6)


@pytest.mark.parity
@pytest.mark.parametrize("layout", ["biomedclip", "siglip-timm", "minilm"])
def test_onnx_of_what_transformers_does_not_open(tmp_path: Path, layout: str) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    save(stored_model(layout, tmp_path), tmp_path / "saved")
    assert max(export_onnx(tmp_path / "saved", tmp_path / "onnx").values()) < 2e-6


@pytest.mark.parity
def test_a_run_is_exported_and_verified(tmp_path: Path, run: Path) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    assert max(export_onnx(run, tmp_path / "onnx").values()) < 2e-6
    assert verify(tmp_path / "onnx").findings == ()


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(3))
def test_clip_in_open_clips_layout_gives_the_same_embeddings_there(tmp_path: Path, seed: int) -> None:
    from support.gallery_open_clip_peer import embed_open_clip

    acts = ["quick_gelu", "gelu", "gelu_pytorch_tanh"]
    random_folder(
        tmp_path / "clip", seed, ("clip", "clip"), 28, hidden_act=acts[seed], layer_norm_eps=10.0 ** -(seed + 4)
    )
    export_open_clip(tmp_path / "clip", tmp_path / "model")
    files = write_images(tmp_path / "images")[:3]
    model, theirs = load(tmp_path / "clip"), embed_open_clip(tmp_path, files, CAPTIONS)
    np.testing.assert_allclose(embed_images(model, files), theirs["images"], atol=2e-6)
    np.testing.assert_allclose(embed_texts(model, CAPTIONS), theirs["texts"], atol=2e-6)


def test_clip_in_open_clips_layout_is_the_same_model(tmp_path: Path) -> None:
    pytest.importorskip("ftfy")
    export_open_clip(FOLDER, tmp_path / "model")
    assert_same_embeddings(load(FOLDER), load(tmp_path / "model"))


@pytest.mark.parametrize(("vision", "text"), [("vit", "bert"), ("dinov2", "roberta")])
def test_what_open_clip_has_no_layout_for_is_refused(tmp_path: Path, vision: str, text: str) -> None:
    save(dual_encoder(vision, text), tmp_path / "joined")
    with pytest.raises(UserError, match="cannot be written in open_clip's layout"):
        export_open_clip(tmp_path / "joined", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parity
def test_an_export_that_differs_is_not_called_whole(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    monkeypatch.setattr(export, "MAX_DIFFERENCE", -1)
    with pytest.raises(WorkError, match="differ"):
        export_onnx(run, tmp_path / "onnx")
    assert not (tmp_path / "onnx" / "export.json").exists()


def test_pushing_sends_the_folder_to_a_private_repository(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []

    class Hub:
        def create_repo(self, name, **arguments):
            sent.append((name, arguments))

        def upload_folder(self, **arguments):
            sent.append(arguments)
            return "https://hub/me/it"

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert push(run, "me/it") == "https://hub/me/it"
    assert sent[0] == ("me/it", {"private": True, "exist_ok": True})
    assert sent[1]["folder_path"] == run / "model"
    assert not any("metrics" in pattern for pattern in sent[1]["allow_patterns"])


def test_a_model_that_is_damaged_is_not_pushed(run: Path, copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", pytest.fail)
    folder = copy(run)
    weights = folder / "model" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        push(folder, "me/it")


def test_a_hub_that_refuses_is_a_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hub:
        def create_repo(self, name, **arguments):
            raise OSError("no network here\nand a trace")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    with pytest.raises(WorkError, match=r"no network here \(HF_TOKEN"):
        push(run, "me/it")

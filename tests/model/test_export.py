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
from support.gallery import write_images
from support.model_folders import assert_same_embeddings, dual_encoder
from support.references import CAPTIONS, FAMILIES, FOLDER, random_folder


@pytest.mark.parity
@pytest.mark.parametrize("families", FAMILIES, ids="+".join)
@pytest.mark.filterwarnings("ignore")  # the exporter warns of itself
def test_onnx_gives_our_vectors_at_any_batch_size(tmp_path: Path, families) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    random_folder(tmp_path / "model", 6, families, 28)
    differences = export_onnx(tmp_path / "model", tmp_path / "onnx")
    assert max(differences.values()) < 2e-6
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "text_encoder.onnx")
    model = load(tmp_path / "model")
    ids, valid = model.tokenizer.encode(CAPTIONS * 3)
    given = {"input_ids": ids.astype(np.int64), "attention_mask": valid.astype(np.int64)}
    given = {entry.name: given[entry.name] for entry in session.get_inputs()}
    assert session.run(None, given)[0].shape == (9, model.config.projection_dim)


@pytest.mark.parity
@pytest.mark.parametrize("layout", ["custom-text", "siglip-timm", "biomedclip"])
@pytest.mark.filterwarnings("ignore")
def test_onnx_of_open_clips_folders(tmp_path: Path, layout: str) -> None:
    pytest.importorskip("onnxruntime")
    from support.gallery_open_clip import LAYOUTS
    from support.gallery_open_clip_peer import published_names

    next(each for each in LAYOUTS if each.name == layout).build(tmp_path)
    with published_names():
        assert max(export_onnx(tmp_path / "model", tmp_path / "onnx").values()) < 2e-6


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
@pytest.mark.filterwarnings("ignore")
def test_an_export_that_differs_is_not_called_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    random_folder(tmp_path / "model", 6, ("clip", "clip"), 28)
    monkeypatch.setattr(export, "encode_text", lambda params, ids, valid, config: np.ones((len(ids), 24)))
    with pytest.raises(WorkError, match="differ"):
        export_onnx(tmp_path / "model", tmp_path / "onnx")
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


def test_a_hub_that_refuses_is_a_sentence(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hub:
        def create_repo(self, name, **arguments):
            raise OSError("no network here\nand a trace")

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    with pytest.raises(WorkError, match=r"no network here \(HF_TOKEN"):
        push(run, "me/it")

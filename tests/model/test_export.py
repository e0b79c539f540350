"""Models leave in other forms, checked; pushing sends a model folder and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medclip.errors import WorkError
from medclip.model import export
from medclip.model.checkpoint import load
from medclip.model.export import export_onnx, push
from support.references import CAPTIONS, FAMILIES, random_folder


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

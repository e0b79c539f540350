"""A model whose weights are a pickle or Flax's is the same model as safetensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ml_dtypes
import msgpack
import numpy as np
import pytest
from safetensors.numpy import load_file

from medclip.errors import UserError
from medclip.model.adapt import join_towers
from medclip.model.checkpoint import load
from medclip.model.convert import export_safetensors
from medclip.model.export import push
from support.model_folders import (
    assert_same_embeddings,
    dual_encoder,
    flax_array,
    flax_tree,
    hybrid_folder,
    open_clip_folder,
    save_tower,
)
from support.references import FOLDER
from support.torch_files import Storage, dump, tensor, write_state_dict, write_zip


def as_bin(folder: Path, file: str = "model.safetensors", name: str = "pytorch_model.bin") -> Path:
    write_state_dict(folder / name, load_file(folder / file))
    (folder / file).unlink()
    return folder


def clip_folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "model", ignore=shutil.ignore_patterns("*.npz")))


@pytest.mark.parametrize("layout", ["clip", "hybrid", "open_clip"])
def test_a_dual_encoder_is_the_same(tmp_path: Path, layout: str) -> None:
    if layout == "clip":
        folder = as_bin(clip_folder(tmp_path))
    elif layout == "hybrid":
        folder = hybrid_folder(dual_encoder("clip_vision_model", "bert"), tmp_path / "model")
    else:
        folder = open_clip_folder(load(FOLDER), tmp_path / "model")
        as_bin(folder, "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    export_safetensors(folder, tmp_path / "out")
    assert_same_embeddings(load(folder), load(tmp_path / "out"))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "README.md" in names and names & {"model.safetensors", "open_clip_model.safetensors"}
    with pytest.raises(UserError, match="already finished"):
        export_safetensors(folder, tmp_path / "out")


def test_tied_weights_and_heads_of_a_tower_stay(tmp_path: Path) -> None:
    """The masked language model that BERT was published as, whose output is the table of its tokens."""
    model = dual_encoder("vit", "bert")
    folder = save_tower(model, "text", tmp_path / "text", prefix="bert.")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    tied = tensors["bert.embeddings.word_embeddings.weight"]
    tensors.pop("bert.embeddings.word_embeddings.weight")
    storages = {str(i): value.tobytes() for i, value in enumerate(tensors.values())} | {"tied": tied.tobytes()}
    content = {
        name: tensor(Storage("Float", str(i), v.size), 0, v.shape, tuple(s // 4 for s in v.strides))
        for i, (name, v) in enumerate(tensors.items())
    }
    for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"):
        content[name] = tensor(Storage("Float", "tied", tied.size), 0, tied.shape, (tied.shape[1], 1))
    write_zip(folder / "pytorch_model.bin", dump(content), storages)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text("{}")
    modules = [{"path": "", "type": "models.Transformer"}, {"path": "1_Pooling", "type": "models.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    export_safetensors(folder, tmp_path / "out")
    written = load_file(tmp_path / "out/model.safetensors")
    assert written.keys() == content.keys()
    np.testing.assert_array_equal(written["cls.predictions.decoder.weight"], tied)
    small, out = {str(path.relative_to(folder)) for path in folder.rglob("*.json")}, tmp_path / "out"
    assert small | {"export.json"} == {str(path.relative_to(out)) for path in out.rglob("*.json")}
    joined = join_towers(FOLDER, tmp_path / "out")
    np.testing.assert_array_equal(joined.params["text_model.embeddings.word_embeddings.weight"], tied)


def test_a_tower_keeps_its_type(tmp_path: Path) -> None:
    model = dual_encoder("vit", "bert")
    folder = save_tower(model, "vision", tmp_path / "vision")
    tower = {n.removeprefix("vision_model."): v for n, v in model.params.items() if n.startswith("vision_model.")}
    (folder / "model.safetensors").unlink()
    tree = flax_tree(tower, lambda value: flax_array(value.astype(ml_dtypes.bfloat16)))
    (folder / "flax_model.msgpack").write_bytes(msgpack.packb(tree))
    export_safetensors(folder, tmp_path / "out")
    written = load_file(tmp_path / "out/model.safetensors")
    for name, value in tower.items():
        assert written[name].dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(written[name], np.asarray(value).astype(ml_dtypes.bfloat16))


def test_pushing_a_pickle_sends_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    class Hub:
        def create_repo(self, name, **arguments):
            pass

        def upload_folder(self, folder_path, **arguments):
            sent.extend(path.name for path in Path(folder_path).iterdir())
            return "https://hub/me/it"

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    push(as_bin(clip_folder(tmp_path)), "me/it")
    assert "model.safetensors" in sent and "pytorch_model.bin" not in sent


def test_a_tokenizer_of_another_folder_goes_into_the_new_one(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    export_safetensors(folder, tmp_path / "out", tokenizer=FOLDER)
    assert_same_embeddings(load(FOLDER), load(tmp_path / "out"))
    tower = save_tower(dual_encoder("vit", "bert"), "text", tmp_path / "tower")
    with pytest.raises(UserError, match=r"--tokenizer .* is a single tower"):
        export_safetensors(tower, tmp_path / "other", tokenizer=FOLDER)

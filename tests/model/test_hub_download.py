"""Models of the Hub: what is fetched of a repository, in which order, and what the cache gives without the Hub."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from medclip.errors import UserError
from medclip.model.adapt import join_towers
from medclip.model.checkpoint import load, model_folder, model_hash
from support.hub import Hub
from support.model_folders import assert_same_embeddings, dual_encoder, hybrid_folder, open_clip_folder, save_tower
from support.references import FOLDER
from support.torch_files import write_state_dict

NAME = "lab/clip"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "model", ignore=shutil.ignore_patterns("*.npz")))


def to_bin(folder: Path) -> dict[str, np.ndarray]:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    write_state_dict(folder / "pytorch_model.bin", tensors)
    return tensors


def weights_of(hub: Hub) -> list[str]:
    return [file for file in hub.fetched if not file.endswith((".json", ".txt", ".md"))]


def test_one_form_of_the_weights_comes_last(hub: Hub, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    write_state_dict(folder / "pytorch_model.bin", tensors)
    for name in ("flax_model.msgpack", "tf_model.h5", "onnx/model.onnx", "onnx/config.json", "image.png", "README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"---\n---\n")
    hub.add(NAME, folder)
    assert_same_embeddings(load(FOLDER), load(f"hf-hub:{NAME}"))
    assert weights_of(hub) == ["main:model.safetensors"] == hub.fetched[-1:]
    assert "main:config.json" in hub.fetched and "main:README.md" in hub.fetched
    assert not [file for file in hub.fetched if "onnx" in file]


def test_shards_come_through_their_index(hub: Hub, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in {*files.values(), "model-00003-of-00003.safetensors"}:
        save_file({name: tensors[name] for name in tensors if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    hub.add(NAME, folder)
    assert_same_embeddings(load(FOLDER), load(NAME))
    assert sorted(weights_of(hub)) == [f"main:model-0000{i}-of-00002.safetensors" for i in (1, 2)]


@pytest.mark.parametrize(
    ("file", "change", "word"),
    [
        ("config.json", {"model_type": "blip-2"}, "blip-2"),
        ("config.json", {"model_type": "convnext"}, "convnext"),
        ("config.json", {"model_type": "bert"}, "a text tower alone: give it to medclip train as --text-model"),
        ("config.json", {"model_type": "dinov2"}, "as --vision-model, with a --text-model"),
        ("config.json", {"vision_config": {"model_type": "swin"}}, "swin"),
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "quantized weights (gptq)"),
        ("tokenizer.json", {"model": 3}, "tokenizer"),
    ],
)
def test_what_would_not_open_is_refused_before_its_weights(
    hub: Hub, folder: Path, file: str, change: dict, word: str
) -> None:
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | change))
    hub.add(NAME, folder)
    with pytest.raises(UserError, match=re.escape(word)):
        load(NAME)
    assert weights_of(hub) == []


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"], "adapter of PEFT"),
        (["config.json", "onnx/model.onnx"], "holds ONNX files"),
        (["config.json", "tf_model.h5"], "holds TensorFlow files"),
        (["model.pt", "README.md"], "holds model.pt without the config.json"),
    ],
)
@pytest.mark.parametrize("local", [True, False])
def test_the_refusal_of_a_folder_of_something_else_names_what_it_holds(
    hub: Hub, folder: Path, tmp_path: Path, local: bool, files: list[str], words: str
) -> None:
    other = tmp_path / "other"
    for file in files:
        (other / file).parent.mkdir(parents=True, exist_ok=True)
        (other / file).write_bytes((folder / file).read_bytes() if (folder / file).exists() else b"{}")
    hub.add(NAME, other)
    with pytest.raises(UserError, match=re.escape(words)):
        load(other if local else NAME)
    assert weights_of(hub) == []


def test_the_bots_conversion_is_read_in_place_of_a_pickle(
    hub: Hub, folder: Path, offline: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    tensors = to_bin(folder)
    hub.add(NAME, folder)
    save_file({name: np.asarray(value * 3) for name, value in tensors.items()}, folder / "model.safetensors")
    hub.add(NAME, folder, "refs/pr/1", author="stranger")
    save_file(tensors, folder / "model.safetensors")
    hub.add(NAME, folder, "refs/pr/2")
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    hub.add(NAME, folder, "refs/pr/3")  # of another config
    hub.authors[NAME] = {5: "SFconvertbot", **hub.authors[NAME]}  # closed, its branch deleted
    assert_same_embeddings(load(FOLDER), load(NAME))
    assert weights_of(hub) == ["refs/pr/2:model.safetensors"]
    assert "read from model.safetensors of refs/pr/2" in caplog.text
    assert model_hash(NAME) == model_hash(folder)
    offline()
    assert_same_embeddings(load(FOLDER), load(NAME))


@pytest.mark.parametrize(
    ("files", "weights"),
    [
        ({"model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors"}, "model.safetensors"),
        ({"pytorch_model.bin", "open_clip_model.safetensors"}, "open_clip_model.safetensors"),
        ({"pytorch_model.bin", "open_clip_pytorch_model.bin"}, "pytorch_model.bin"),
    ],
)
def test_of_both_layouts_the_one_with_safetensors_comes(
    hub: Hub, tmp_path: Path, files: set[str], weights: str
) -> None:
    folder = open_clip_folder(load(FOLDER), tmp_path / "both")
    theirs, ours = load_file(folder / "open_clip_model.safetensors"), load_file(FOLDER / "model.safetensors")
    (folder / "open_clip_model.safetensors").unlink()
    for file in files:
        tensors = theirs if file.startswith("open_clip") else ours
        (save_file if file.endswith(".safetensors") else lambda t, path: write_state_dict(path, t))(
            tensors, folder / file
        )
    for file in ("config.json", "preprocessor_config.json"):
        shutil.copy(FOLDER / file, folder)
    hub.add(NAME, folder)
    assert ("model_cfg" in load(NAME).raw_config) == weights.startswith("open_clip")
    assert weights_of(hub) == [f"main:{weights}"]


def test_of_a_repository_of_timm_the_weights_of_open_clip_come(hub: Hub, tmp_path: Path) -> None:
    folder = open_clip_folder(load(FOLDER), tmp_path / "open_clip")
    (folder / "config.json").write_text(json.dumps({"architecture": "vit_base_patch16_clip_224", "num_classes": 0}))
    (folder / "model.safetensors").write_bytes(b"timm's image tower")
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"the same as a pickle")
    hub.add(NAME, folder)
    assert load(NAME).config == load(folder).config
    assert weights_of(hub) == ["main:open_clip_model.safetensors"]


@pytest.mark.parametrize("converted", ["nothing", "another pickle", "a stranger's"])
def test_without_a_conversion_the_pickle_is_read(
    hub: Hub, folder: Path, converted: str, caplog: pytest.LogCaptureFixture
) -> None:
    tensors = to_bin(folder)
    hub.add(NAME, folder)
    save_file({name: np.asarray(value * 3) for name, value in tensors.items()}, folder / "model.safetensors")
    if converted == "another pickle":
        write_state_dict(folder / "pytorch_model.bin", {"a": np.ones(2, np.float32)})
        hub.add(NAME, folder, "refs/pr/1")
    elif converted == "a stranger's":
        hub.add(NAME, folder, "refs/pr/1", author="stranger")
    assert_same_embeddings(load(FOLDER), load(NAME))
    assert weights_of(hub) == ["main:pytorch_model.bin"]
    assert "read from pytorch_model.bin" in caplog.text


def test_a_revision_is_that_revision(hub: Hub, folder: Path) -> None:
    hub.add(NAME, folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: np.asarray(value * 2) for name, value in tensors.items()}, folder / "model.safetensors")
    hub.add(NAME, folder, "v2")
    np.testing.assert_array_equal(load(model_folder(NAME, "v2")).params["logit_scale"], tensors["logit_scale"] * 2)
    np.testing.assert_array_equal(load(NAME).params["logit_scale"], tensors["logit_scale"])
    with pytest.raises(UserError, match="v3"):
        load(model_folder(NAME, "v3"))


def test_a_name_may_end_with_its_revision(hub: Hub, folder: Path, offline: Callable[[], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    hub.add(NAME, folder)
    save_file({name: np.asarray(value * 2) for name, value in tensors.items()}, folder / "model.safetensors")
    hub.add(NAME, folder, "v2")
    for name in (f"{NAME}@v2", f"hf-hub:{NAME}@v2"):
        np.testing.assert_array_equal(load(name).params["logit_scale"], tensors["logit_scale"] * 2)
    offline()
    np.testing.assert_array_equal(load(f"{NAME}@v2").params["logit_scale"], tensors["logit_scale"] * 2)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        load(NAME)


@pytest.mark.parametrize("name", ["lab/-clip", "lab/a clip", "lab/clip..v2", "lab/" + "x" * 200])
def test_a_name_that_no_repository_has_is_a_sentence(hub: Hub, name: str, offline: Callable[[], None]) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match="neither a folder here nor a model"):
            load(name)
        offline()


def test_a_command_warns_once(hub: Hub, folder: Path, medclip, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "preprocessor_config.json").unlink()
    hub.add(NAME, folder)
    for _ in range(2):
        caplog.clear()
        assert medclip("info", NAME)[0] == 0
        assert caplog.text.count("has no preprocessor_config.json") == 1


def test_flax_weights_come_before_a_pickle(hub: Hub, tmp_path: Path) -> None:
    folder = hybrid_folder(dual_encoder("clip_vision_model", "bert"), tmp_path / "2021")
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    hub.add(NAME, folder)
    assert_same_embeddings(load(folder), load(NAME))
    assert weights_of(hub) == ["main:flax_model.msgpack"]


def sentence_folder(tmp_path: Path, tower: str, *kinds: str) -> Path:
    """A text tower as sentence-transformers lays it out; `tower` is the folder of its files."""
    folder = save_tower(dual_encoder("vit", "bert"), "text", tmp_path / "text")
    if tower:
        inner = folder.rename(tmp_path / "inner")
        folder.mkdir()
        inner.rename(folder / tower)
    paths = [tower, *(f"{i + 1}_{kind}" for i, kind in enumerate(kinds))]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"}
               for path, kind in zip(paths, ("Transformer", *kinds), strict=True)]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    for path in (*paths[1:], "9_Other"):
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    return folder


@pytest.mark.parametrize("tower", ["", "0_Transformer"])
def test_the_modules_of_sentence_transformers_come_too(hub: Hub, tmp_path: Path, tower: str) -> None:
    folder = sentence_folder(tmp_path, tower, "Pooling", "Normalize")
    hub.add(NAME, folder)
    joined = join_towers(FOLDER, NAME)
    np.testing.assert_array_equal(
        joined.params["text_model.embeddings.word_embeddings.weight"],
        join_towers(FOLDER, folder).params["text_model.embeddings.word_embeddings.weight"],
    )
    assert weights_of(hub) == [f"main:{Path(tower) / 'model.safetensors'}"]
    assert "main:1_Pooling/config.json" in hub.fetched and "main:9_Other/config.json" not in hub.fetched


def test_a_module_that_is_not_computed_is_refused_before_the_weights(hub: Hub, tmp_path: Path) -> None:
    hub.add(NAME, sentence_folder(tmp_path, "", "Pooling", "Dense"))
    with pytest.raises(UserError, match="Dense"):
        join_towers(FOLDER, NAME)
    assert weights_of(hub) == []


def test_towers_of_the_hub_join(hub: Hub, tmp_path: Path) -> None:
    model = dual_encoder("vit", "bert")
    hub.add("lab/vit", save_tower(model, "vision", tmp_path / "vision"))
    hub.add("lab/bert", save_tower(model, "text", tmp_path / "text"))
    joined = join_towers("hf-hub:lab/vit", "hf-hub:lab/bert")
    np.testing.assert_array_equal(
        joined.params["text_model.pooler.dense.weight"], model.params["text_model.pooler.dense.weight"]
    )


def test_cxr_bert_comes_from_the_hub_by_its_own_type(hub: Hub, tmp_path: Path) -> None:
    folder = save_tower(dual_encoder("vit", "bert"), "text", tmp_path / "text", "bert.")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "model_type": "cxr-bert", "projection_size": 128}))
    hub.add(NAME, folder)
    assert join_towers(FOLDER, NAME).raw_config["text_config"]["model_type"] == "bert"


def test_a_tower_that_is_not_computed_is_refused_before_its_weights_come(hub: Hub, tmp_path: Path) -> None:
    folder = save_tower(dual_encoder("vit", "bert"), "text", tmp_path / "text")
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "model_type": "distilbert"}))
    hub.add(NAME, folder)
    with pytest.raises(UserError, match="'distilbert', since it pools no token"):
        join_towers(FOLDER, NAME)
    assert weights_of(hub) == []


def test_the_cache_is_read_without_the_hub(hub: Hub, folder: Path, offline: Callable[[], None]) -> None:
    hub.add(NAME, folder)
    first = model_folder(NAME)
    assert (first / "config.json").is_symlink()
    offline()
    assert model_folder(NAME) == first
    assert_same_embeddings(load(FOLDER), load(NAME))


@pytest.mark.slow
def test_a_hub_that_is_down_leaves_the_cache(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, folder)
    first = model_folder(NAME)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert model_folder(NAME) == first
    with pytest.raises(UserError, match="HF_HUB_OFFLINE=1 reads the cache alone"):
        model_folder("lab/other")


def test_a_cache_with_a_pull_request_alone_is_read_and_named(
    hub: Hub, folder: Path, offline: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    hub.add(NAME, folder, "refs/pr/4")
    load(model_folder(NAME, "refs/pr/4"))
    assert caplog.text == ""
    offline()
    assert_same_embeddings(load(FOLDER), load(NAME))
    assert "refs/pr/4" in caplog.text


def test_a_cache_without_weights_is_not_a_model(hub: Hub, folder: Path, offline: Callable[[], None]) -> None:
    hub.add(NAME, folder)
    weights = model_folder(NAME) / "model.safetensors"
    weights.unlink()
    offline()
    with pytest.raises(UserError, match="lab/clip"):
        load(NAME)


def test_a_gated_repository_names_the_token(hub: Hub, folder: Path) -> None:
    hub.add(NAME, folder)
    hub.gated.add(NAME)
    with pytest.raises(UserError, match=r"lab/clip.*HF_TOKEN"):
        load(NAME)
    with pytest.raises(UserError, match=r"lab/absent.*HF_TOKEN"):
        load("lab/absent")


def test_a_tokenizer_of_another_repository_comes_without_its_weights(
    hub: Hub, folder: Path, tmp_path: Path, offline: Callable[[], None]
) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(tmp_path / name)
    hub.add("lab/another", FOLDER)
    assert_same_embeddings(load(FOLDER), load(folder, tokenizer="hf-hub:lab/another"))
    assert not [file for file in weights_of(hub) if file.startswith("main:model")]
    offline()
    assert_same_embeddings(load(FOLDER), load(folder, tokenizer="lab/another"))

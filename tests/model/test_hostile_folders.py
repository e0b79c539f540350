"""Hostile folders get one sentence each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from support.model_folders import assert_refused, rewrite_config, rewrite_tensors, write_safetensors
from support.references import FOLDER


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "model"))


def test_every_fault_of_the_tensors_is_named_at_once(folder: Path) -> None:
    def spoil(tensors):
        tensors["stranger"] = np.zeros(3, np.float32)
        del tensors["logit_scale"]
        tensors["text_projection.weight"] = np.zeros((2, 2), np.float32)

    rewrite_tensors(folder, spoil)
    assert_refused(folder, "missing logit_scale", "unexpected stranger", "text_projection.weight has shape (2, 2)")


def test_a_nan_is_named(folder: Path) -> None:
    rewrite_tensors(folder, lambda tensors: tensors["visual_projection.weight"].__setitem__((0, 0), np.nan))
    assert_refused(folder, "visual_projection.weight is not finite")


def test_a_truncated_file_is_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert_refused(folder, "model.safetensors is damaged")


@pytest.mark.parametrize(
    ("part", "fields", "word"),
    [
        ("text_config", {"hidden_size": 10**6, "vocab_size": 10**6}, "has shape"),  # 10^12 parameters
        ("vision_config", {"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ("vision_config", {"image_size": -1}, "image_size is -1"),
        ("text_config", {"hidden_act": "swish"}, "hidden_act 'swish'"),
        ("text_config", {"num_attention_heads": 5}, "not a multiple"),
        ("text_config", {"hidden_size": "32"}, "hidden_size is '32'"),
        ("text_config", {"position_embedding_type": "relative_key"}, "relative_key"),
        ("vision_config", {"model_type": "resnet"}, "'resnet'"),
    ],
)
def test_a_config_that_no_model_has_is_refused(folder: Path, part: str, fields: dict, word: str) -> None:
    rewrite_config(folder, part, **fields)
    assert_refused(folder, word)


@pytest.mark.parametrize("raw", [[], {"model_type": "clip", "vision_config": "x"}, {"model_type": "clip"}])
def test_a_config_of_another_shape_is_refused(folder: Path, raw: object) -> None:
    (folder / "config.json").write_text(json.dumps(raw))
    assert_refused(folder, "config")


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    assert_refused(folder, "leads out of its folder")


@pytest.mark.parametrize("place", ["../../x", "/etc/passwd"])
def test_an_index_that_names_a_file_elsewhere_is_refused(folder: Path, place: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"logit_scale": place}}))
    (folder.parent.parent / "x").touch()
    assert_refused(folder, "model.safetensors.index.json: weight_map.logit_scale", "not the plain name of a file")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth", "flax_model.msgpack"])
def test_a_file_that_its_name_belies_is_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    assert_refused(folder, name, "damaged")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("global_step9/mp_rank_00_model_states.pt", "zero_to_fp32.py"),
        ("pytorch_model_fsdp_0/__0_0.distcp", "accelerate merge-weights"),
    ],
)
def test_a_checkpoint_of_many_devices_says_how_it_is_put_together(folder: Path, name: str, words: str) -> None:
    (folder / name).parent.mkdir()
    (folder / "model.safetensors").rename(folder / name)
    assert_refused(folder, "has no weights", words)


def test_a_folder_of_checkpoints_names_them(tmp_path: Path) -> None:
    for step in (500, 1000):
        shutil.copytree(FOLDER, tmp_path / f"run/checkpoint-{step}")
    assert_refused(tmp_path / "run", "give one of them (checkpoint-500, checkpoint-1000)")


def test_a_git_lfs_pointer_is_named(folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 605247071\n"
    (folder / "model.safetensors").write_text(pointer)
    assert_refused(folder, "model.safetensors is Git LFS's pointer", "git lfs pull")


def test_a_folder_without_weights_says_what_was_looked_for(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert_refused(folder, "has no weights", "model.safetensors, flax_model.msgpack, pytorch_model.bin")


def test_faults_of_every_kind_are_named_however_many_there_are(folder: Path) -> None:
    def spoil(tensors):
        for name in list(tensors):
            if name.startswith("text_model.encoder"):
                tensors[f"bert.{name}"] = tensors.pop(name)
        tensors["visual_projection.weight"] = np.zeros((3, 3), np.float32)
        tensors["text_projection.weight"] = tensors["text_projection.weight"].astype(np.int64)

    rewrite_tensors(folder, spoil)
    assert_refused(
        folder,
        "missing text_model.encoder.layers.0",
        "more; unexpected bert.text_model.encoder.layers.0",
        "visual_projection.weight has shape (3, 3)",
        "text_projection.weight holds int64",
    )


def test_a_prefix_of_every_name_of_another_model_is_named(folder: Path) -> None:
    def spoil(tensors):
        del tensors["logit_scale"]
        for name in list(tensors):
            tensors[f"clip.model.{name}"] = tensors.pop(name)

    rewrite_tensors(folder, spoil)
    assert_refused(folder, "every name begins with 'clip.model.'")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("visual_projection.weight", ml_dtypes.float8_e4m3fn),
        ("visual_projection.weight", np.int8),
        ("text_model.encoder.layers.0.mlp.fc1.qweight", np.int32),  # GPTQ
        ("text_model.encoder.layers.0.mlp.fc1.SCB", np.float32),  # bitsandbytes
    ],
)
def test_quantized_weights_are_refused_in_one_sentence(folder: Path, name: str, dtype: type) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = np.zeros((24, 32)).astype(dtype)
    write_safetensors(tensors, folder / "model.safetensors")
    assert_refused(folder, "holds quantized weights", name)


def test_a_name_that_is_nothing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused(tmp_path / "absent", "absent does not exist")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert_refused(Path("nobody/nothing-of-this-name"), "nobody/nothing-of-this-name", "HF_HUB_OFFLINE")

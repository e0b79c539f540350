"""The identity of a model: what moves an embedding moves it; what only looks different does not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import medclip
from medclip.errors import UserError
from medclip.model.checkpoint import load, model_hash, save
from medclip.model.convert import export_safetensors
from support.references import FOLDER


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "model"))


def edit(path: Path, *keys: str, value: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    assert inner.get(keys[-1]) != value
    inner[keys[-1]] = value
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "keys", "value"),
    [
        ("config.json", ("text_config", "eos_token_id"), 17),
        ("config.json", ("vision_config", "layer_norm_eps"), 2e-5),
        ("config.json", ("text_config", "hidden_act"), "gelu"),
        ("preprocessor_config.json", ("image_mean",), [0.48145466, 0.4578275, 0.408]),
        ("preprocessor_config.json", ("resample",), 2),
        ("tokenizer_config.json", ("model_max_length",), 5),
        ("tokenizer.json", ("normalizer",), None),
    ],
)
def test_every_setting_that_moves_an_embedding_is_part_of_the_identity(folder, file, keys, value):
    before = model_hash(folder)
    edit(folder / file, *keys, value=value)
    assert model_hash(folder) != before


def test_one_bit_of_a_vocabulary_is_part_of_the_identity(folder):
    before, path = model_hash(folder), folder / "merges.txt"
    path.write_bytes(b"#version: 0.2\na b\n")
    first = model_hash(folder)
    path.write_bytes(b"#version: 0.2\na c\n")
    assert len({before, first, model_hash(folder)}) == 3


def test_layout_of_json_card_and_calibration_are_not(folder):
    before = model_hash(folder)
    for name in ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(dict(reversed(content.items())), indent=7), encoding="utf-8")
    (folder / "README.md").write_text("another card")
    (folder / "calibration.json").write_text("{}")
    assert model_hash(folder) == before


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_numbers_and_line_ends_are_not(folder, ending):
    lines = [b"#version: 0.2", b"a b", b"a c"]
    (folder / "merges.txt").write_bytes(b"\n".join(lines))
    edit(folder / "config.json", "text_config", "dropout", value=0.5)
    edit(folder / "config.json", "text_config", "dropout", value=0)
    before = model_hash(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["dropout"] = 0.0
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "merges.txt").write_bytes(b"".join(line + ending for line in lines))
    assert model_hash(folder) == before


def test_a_model_that_is_saved_again_is_the_same_one(folder, tmp_path):
    save(load(folder), tmp_path / "once")
    save(load(tmp_path / "once"), tmp_path / "twice")
    assert model_hash(tmp_path / "once") == model_hash(tmp_path / "twice")


def test_a_damaged_file_is_named(folder):
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer_config\.json is damaged"):
        model_hash(folder)


def test_an_index_does_not_answer_with_a_model_of_another_config(medclip, index_folder, copy, run):
    other = copy(run / "model")
    edit(other / "preprocessor_config.json", "image_mean", value=[0.5, 0.5, 0.25])
    code, _, err = medclip("search", "--index", index_folder, "--model", other, "a chest")
    assert code == 2 and "another model" in err


@pytest.mark.parametrize("form", ["a run", "an export"])
@pytest.mark.parametrize("damage", ["a flipped bit", "an absent file"])
def test_a_folder_that_is_not_as_it_was_written_is_no_model(run, copy, tmp_path, form, damage):
    if form == "an export":
        export_safetensors(str(run), folder := tmp_path / "out")
    else:
        folder = copy(run) / "model"
    if damage == "an absent file":
        (folder / "tokenizer_config.json").unlink()
    else:
        weights = bytearray((folder / "model.safetensors").read_bytes())
        weights[-2] ^= 1
        (folder / "model.safetensors").write_bytes(weights)
    for open_model in (model_hash, medclip.load):
        with pytest.raises(UserError, match=r"absent, though it was written|is not as it was written") as error:
            open_model(folder)
    assert f"medclip verify {folder.parent if form == 'a run' else folder} names" in str(error.value)

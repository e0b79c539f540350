"""A manifest from elsewhere names plain files beside it: none is read or written in another folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from medclip.data.dataset import Split, read_dataset
from medclip.data.export import export_data
from medclip.data.leakage import decontaminate
from medclip.data.paths import parse_path
from medclip.data.sources.labeled_sets import find_labeled_set
from medclip.errors import UserError
from medclip.model.sentence_modules import read_modules
from medclip.model.weights.weight_files import shard_names
from medclip.search.embed import read_image_embeddings
from medclip.search.manifest import read_manifest
from support.made_indexes import make_index, random_units

HOSTILE = (
    "../x",
    "/tmp/x",
    "..",
    ".",
    "",
    "a/b",
    "a\\..\\b",
    "x\0",
    "x\n",
    ".hidden",
    "C:x",
    None,
    3,
    ["x"],
    {"a": "x"},
)
REFUSAL = "not the plain name of a file"


def rewrite(path: Path, change) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("name", [*HOSTILE, "train-00000.arrow.exe", "other.arrow", "validation-00000.arrow"])
def test_a_shard_of_a_dataset(data, copy, name) -> None:
    folder = copy(data)
    rewrite(folder / "dataset.json", lambda d: d["splits"]["train"]["shards"][0].update(file=name))
    with pytest.raises(UserError, match=REFUSAL) as error:
        read_dataset(folder)
    assert "dataset.json: the file of a shard" in str(error.value)


@pytest.mark.parametrize("name", [name for name in HOSTILE if isinstance(name, str)])
@pytest.mark.parametrize("command", [lambda d, out: export_data(d, out, "tar"), decontaminate])
def test_a_split_of_a_dataset_names_the_files_of_other_commands(data, copy, tmp_path, name, command) -> None:
    folder = copy(data)
    rewrite(folder / "dataset.json", lambda d: d["splits"].update({name: d["splits"]["validation"]}))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=REFUSAL):
        command(folder, tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("value", [None, 3, [], "x", {}, {"shards": None}, {"shards": {}}, {"shards": ["x"]}])
def test_a_split_of_another_kind(data, copy, value) -> None:
    folder = copy(data)
    rewrite(folder / "dataset.json", lambda d: d["splits"].update(train=value))
    with pytest.raises(UserError, match="lists no shards of split 'train'"):
        read_dataset(folder)


@pytest.mark.parametrize("name", ["../../stolen.arrow", "/stolen.arrow"])
def test_a_dataset_behind_a_url_writes_its_own_cache_folder_alone(data, tmp_path, monkeypatch, name) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    dataset = json.loads((data / "dataset.json").read_text())
    dataset["splits"]["train"]["shards"] = [{"file": name if name[0] == "." else f"{tmp_path}{name}", "pairs": 25}]
    url = parse_path("memory://bucket/data")
    (url / "dataset.json").write_text(json.dumps(dataset))
    (url / "stolen.arrow").write_bytes(b"ARROW1")
    with pytest.raises(UserError, match=REFUSAL):
        Split(url, "train")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["dataset.json"]


@pytest.mark.parametrize("name", [*HOSTILE, "1", "²²²²²", "00000x"])
def test_a_segment_of_an_index(tmp_path, name) -> None:
    folder = make_index(tmp_path / "index", random_units(3))
    rewrite(folder / "index.json", lambda d: d["segments"][0].update(name=name))
    with pytest.raises(UserError, match=REFUSAL):
        read_manifest(folder)


@pytest.mark.parametrize("name", [*HOSTILE, "texts.npy", "images.npz"])
def test_the_files_of_embeddings(data, tmp_path, name) -> None:
    rows = Split(data, "validation")
    origin = {"model_sha256": "0", "data_sha256": rows.digest, "files": {"images": name}}
    (tmp_path / "embedding.json").write_text(json.dumps(origin))
    np.save(tmp_path / "images.npy", np.zeros((2, 2)))
    with pytest.raises(UserError, match=REFUSAL):
        read_image_embeddings(tmp_path, "0", rows)


@pytest.mark.parametrize("origin", [[], 3, "x", {"files": 3}, {"files": ["images"]}])
def test_an_origin_of_embeddings_of_another_kind(data, tmp_path, origin) -> None:
    rows = Split(data, "validation")
    origin = origin | {"model_sha256": "0", "data_sha256": rows.digest} if isinstance(origin, dict) else origin
    (tmp_path / "embedding.json").write_text(json.dumps(origin))
    with pytest.raises(UserError, match=r"embedding\.json is not an object|holds no embeddings of images"):
        read_image_embeddings(tmp_path, "0", rows)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_shard_of_weights(tmp_path, name) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"logit_scale": name}}))
    with pytest.raises(UserError, match=REFUSAL):
        shard_names(index)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name])
def test_a_module_of_sentence_transformers(tmp_path, name) -> None:
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "models.Transformer", "path": name}]))
    with pytest.raises(UserError, match=rf"{REFUSAL}|not a list of modules"):
        read_modules(tmp_path)


def test_an_image_of_a_labeled_set(tmp_path) -> None:
    (tmp_path / "secret.png").write_bytes(b"not yours")
    folder = tmp_path / "nih"
    folder.mkdir()
    (folder / "Data_Entry_2017.csv").write_text(
        "Image Index,Finding Labels,Patient ID\n../../secret.png,Mass,1\n../../../etc/passwd,Mass,2\n"
    )
    opened = find_labeled_set(folder)
    assert opened is not None
    assert [(row.image, row.flaw) for row in opened.images] == [(b"", "image outside the folder")] * 2

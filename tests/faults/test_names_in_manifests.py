"""A manifest from elsewhere names plain files beside it: none is read or written in another folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from medclip.atomic_io import with_checksum, write_with_checksum
from medclip.data.dataset import Split, read_dataset
from medclip.data.export import export_data
from medclip.data.leakage import decontaminate
from medclip.data.paths import parse_path
from medclip.data.sources.labeled_sets import find_labeled_set
from medclip.errors import UserError
from medclip.model.checkpoint import read_checksums
from medclip.model.sentence_modules import read_modules
from medclip.model.weights.weight_files import shard_names
from medclip.search.embed import read_image_embeddings
from medclip.search.manifest import read_manifest
from medclip.search.reader import IndexReader
from medclip.verify import verify
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
    write_with_checksum(path, content)


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
    (url / "dataset.json").write_text(json.dumps(with_checksum(dataset)))
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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"added": "2026-W48-3"}, "is not written as a day"),
        ({"added": "20261125"}, "is not written as a day"),
        ({"first_row_id": -1}, "not an id each"),
        ({"first_row_id": 1}, "not an id each"),
        ({"num_rows": -3}, "num_pairs"),
    ],
)
def test_rows_and_days_of_a_segment(tmp_path, change, words) -> None:
    folder = make_index(tmp_path / "index", random_units(3))
    rewrite(folder / "index.json", lambda d: d["segments"][0].update(change))
    with pytest.raises(UserError, match=words):
        read_manifest(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"deleted": [0, 0], "num_pairs": 1},
        *({"deleted": [row], "num_pairs": 2, "next_row_id": 9} for row in (-1, 3, 9)),
        {"next_row_id": 2**63},
        {"vector_store": "milvus://h:99999"},
        {"vector_store": "milvus://[:::::]:19530"},
    ],
)
def test_row_ids_and_server_of_an_index(tmp_path, change) -> None:
    folder = make_index(tmp_path / "index", random_units(3))
    rewrite(folder / "index.json", lambda d: d.update(change))
    with pytest.raises(UserError, match="is damaged"):
        read_manifest(folder)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "\ud800", "loop"])
def test_a_model_of_an_index_that_can_be_none(tmp_path, name) -> None:
    folder = make_index(tmp_path / "index", random_units(3))
    (folder / "loop").symlink_to("loop")
    rewrite(folder / "index.json", lambda d: d.update(model=name))
    with pytest.raises(UserError, match="say where it is with --model"):
        IndexReader(folder).model_path()


@pytest.mark.parametrize("absent", [{"license": None}, {"labels": None}, {"labels": [("organ", None)]}, {"hash": None}])
def test_a_row_of_an_index_without_a_value(tmp_path, absent) -> None:
    folder = make_index(tmp_path / "index", random_units(3), metadata=lambda row: absent if row == 1 else {})
    with pytest.raises(UserError, match=f"has a pair without {min(absent)}"):
        IndexReader(folder)


def test_a_manifest_of_a_run_or_of_embeddings_without_hashes(data, tmp_path) -> None:
    for hashes in ({}, {"sha256": ["x"]}, {"sha256": None}):
        write_with_checksum(tmp_path / "checksums.json", hashes)
        assert read_checksums(tmp_path) == {}
        rows = Split(data, "validation")
        origin = {
            "model_sha256": "0",
            "data_sha256": rows.digest,
            "files": {"images": "images.npy"},
            "embedding_dim": 2,
        }
        np.save(tmp_path / "images.npy", np.full((len(rows), 2), 0.5**0.5, np.float32))
        write_with_checksum(tmp_path / "embedding.json", origin | hashes)
        assert read_image_embeddings(tmp_path, "0", rows)[0].shape == (len(rows), 2)


def test_files_of_a_dataset_that_can_be_none_are_named(data, copy) -> None:
    folder = copy(data)
    rewrite(folder / "dataset.json", lambda d: d["sha256"].update({"\ud800": "0", "x" * 300: "0"}))
    rewrite(folder / "dataset.json", lambda d: d["splits"]["train"]["shards"].append({"file": "a\0b", "pairs": 1}))
    (folder / "cache").mkdir(exist_ok=True)
    (folder / "cache" / f"train-99999-{'0' * 16}-{'0' * 16}.pixels").write_bytes(b"x")
    (folder / "cache" / f"train-8-{'0' * 16}-{'0' * 16}.pixels").symlink_to("nothing")
    named = {finding.file for finding in verify(folder).findings}
    assert named >= {"\ud800", "x" * 300, "a\0b", f"cache/train-99999-{'0' * 16}-{'0' * 16}.pixels"}


def test_a_dataset_of_others_without_facts_is_exported(data, copy, tmp_path) -> None:
    folder = copy(data)
    rewrite(folder / "dataset.json", lambda d: [d.pop(name) for name in ("notice", "shorter_side", "caption_rules")])
    assert export_data(folder, tmp_path / "out", "tar") == {"train": 1, "validation": 1}
    rewrite(folder / "dataset.json", lambda d: d.update(caption_rules=[1]))
    with pytest.raises(UserError, match="caption_rules is absent or of a wrong type"):
        read_dataset(folder)

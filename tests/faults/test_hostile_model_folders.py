"""A model folder with any file or field damaged opens as it is, or ends in one sentence that names what is wrong."""

import base64
import json
import os
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from medclip.errors import UserError, WorkError
from medclip.model.adapt import join_towers
from medclip.model.checkpoint import Model, load
from medclip.model.sentence_modules import read_modules
from support.gallery_stored import restore
from support.hostile_folders import HOSTILE_BYTES, hostile_fields, json_files
from support.references import FOLDER
from support.vocabularies import charsmap

LAYOUTS = ("clip-transformers-5", "openai-clip-b32", "siglip-b16", "siglip2-b16", "join-transformers-5", "biomedclip",
           "clipa", "minilm", "mpnet")  # fmt: skip
SECONDS = 120.0  # of one folder on a busy machine; a folder that opens takes half of one


def open_model(folder: Path) -> Model:
    """The model; a text tower is joined with the image tower of the tests' CLIP."""
    return join_towers(FOLDER, folder, 24) if (folder / "modules.json").exists() else load(folder)


def sentence_of(folder: Path, opener=load) -> str:
    """The error of a folder, "" where it opens and encodes."""
    start, message = time.monotonic(), ""
    try:
        opener(folder).tokenizer.encode(["CT of the chest", "", "胸部 \U0010ffff"])
    except UserError as error:
        message = str(error)
    assert time.monotonic() - start < SECONDS
    assert message == "" or (
        message.endswith(".") and "\n" not in message and len(message) < 1000 and "Traceback" not in message
    )
    return message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "model"))


@pytest.mark.parametrize("fault", HOSTILE_BYTES)
@pytest.mark.parametrize("file", [path.name for path in json_files(FOLDER)])
def test_bytes_that_are_no_config(folder: Path, file: str, fault: str) -> None:
    (folder / file).write_bytes(HOSTILE_BYTES[fault])
    message = sentence_of(folder)
    assert file in message


@pytest.mark.parametrize("file", [path.name for path in json_files(FOLDER) if path.name != "config.json"])
@pytest.mark.parametrize("kind", ["folder", "link to itself", "link to nothing", "pipe", "far too large"])
def test_a_name_that_is_no_file_does_not_count_as_absent(folder: Path, file: str, kind: str) -> None:
    path = folder / file
    path.unlink()
    match kind:
        case "folder":
            path.mkdir()
        case "link to itself" | "link to nothing":
            path.symlink_to(file if kind == "link to itself" else "nothing")
        case "pipe":
            os.mkfifo(path)
        case _:
            path.touch()
            os.truncate(path, 2**40)
    message = sentence_of(folder)
    assert file in message or (file == "tokenizer.json" and "has no tokenizer" in message)


@pytest.mark.parametrize(
    ("file", "content"),
    [("vocab.txt", b""), ("vocab.txt", b"\xff\n"), ("vocab.txt", b"[CLS]\n[SEP]\n"), ("vocab.json", b"[]"),
     ("vocab.json", b'{"a": -1}'), ("vocab.json", b'{"a": "x"}'), ("merges.txt", b"\xff"), ("merges.txt", b"x y z\n"),
     ("merges.txt", b"never seen\n"), ("spiece.model", b""), ("spiece.model", b"\n\xff\xff\xff\xff\xff\x7f")],
)  # fmt: skip
def test_the_older_files_of_a_vocabulary(folder: Path, file: str, content: bytes) -> None:
    (folder / "tokenizer.json").unlink()
    kind = {"vocab.txt": "BertTokenizer", "spiece.model": "SiglipTokenizer"}.get(file, "CLIPTokenizer")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    (folder / "vocab.json").write_text('{"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2}')
    (folder / "merges.txt").write_text("")
    if file in ("vocab.txt", "spiece.model"):
        (folder / "vocab.json").unlink()
    (folder / file).write_bytes(content)
    assert file in sentence_of(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw.update(added_tokens={"a": 1}), "added_tokens is \"{'a': 1}\", not a list"),
        (lambda raw: raw.update(normalizer=[]), "normalizer is '[]', not an object"),
        (lambda raw: raw.update(padding=3), "padding is '3', not an object"),
        (lambda raw: raw.update(model=[]), "model is '[]', not an object"),
        (lambda raw: raw["model"].update(type=3), "model.type is '3', not text"),
        (lambda raw: raw["model"].update(vocab=3), "model.vocab is '3', not an object or a list"),
        (lambda raw: raw["model"]["vocab"].update(odd=-1), "model.vocab has \"('odd', -1)\""),
        (lambda raw: raw["model"]["vocab"].update(odd=True), "model.vocab has \"('odd', True)\""),
        (lambda raw: raw["model"].update(vocab=[["a", float("nan")]]), "model.vocab has \"['a', nan]\""),
        (lambda raw: raw["model"].update(merges=["a b c"]), "model.merges has 'a b c'"),
        (lambda raw: raw["model"].update(merges=[[1, 2]]), "model.merges has '[1, 2]'"),
        (lambda raw: raw["added_tokens"].append({"id": 1e308, "content": "x"}), "tokenizer.json: the id of an added"),
    ],
)
def test_a_field_of_tokenizer_json_is_named(folder: Path, change, words: str) -> None:
    raw = json.loads((folder / "tokenizer.json").read_text())
    change(raw)
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    message = sentence_of(folder)
    assert "tokenizer.json: " in message
    assert words in message


@pytest.mark.parametrize(
    ("length", "room"), [(1, False), (2, True), (1e30, True), (0, False), (-1, False), (True, False)]
)
def test_a_length_of_captions(folder: Path, length: float, room: bool) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": length}))
    assert ("tokenizer_config.json: model_max_length" in sentence_of(folder)) != room


@pytest.mark.parametrize("pooling", [3, None, {}, [[]], ["mean", "cls"], "x", {"mean": 1}])
def test_a_pooling_of_sentence_transformers(folder: Path, pooling) -> None:
    types = [("", "models.Transformer"), ("1_Pooling", "models.Pooling")]
    (folder / "modules.json").write_text(json.dumps([{"path": path, "type": kind} for path, kind in types]))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": pooling}))
    if pooling:
        assert "pooling" in sentence_of(folder, read_modules_alone)


def read_modules_alone(folder: Path):
    read_modules(folder)
    return load(folder)


def assert_hostile_fields_are_named(folder: Path, opener, cases) -> None:
    for file, way, value, content in cases:
        path = folder / file
        whole = path.read_bytes()
        path.write_text(content)
        try:
            message = sentence_of(folder, opener)
        except Exception as error:
            raise AssertionError(f"{file}: {way} = {str(value)[:40]}") from error
        finally:
            path.write_bytes(whole)
        names = (str(folder), "config.json")
        assert message == "" or any(name in message for name in names), (file, way, value, message)


def hostile_cases(folder: Path, count: int) -> list:
    cases = [
        (path.relative_to(folder), *case)
        for path in json_files(folder)
        for case in hostile_fields(json.loads(path.read_text(encoding="utf-8")))
    ]
    return random.Random(0).sample(cases, min(count, len(cases)))


@pytest.mark.slow
def test_hostile_fields(folder: Path) -> None:
    assert_hostile_fields_are_named(folder, load, hostile_cases(folder, 60))


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_hostile_fields_of_published_layouts(tmp_path: Path, name: str) -> None:
    restore(name, tmp_path)
    folder = tmp_path / name / "model"
    assert_hostile_fields_are_named(folder, open_model, hostile_cases(folder, 500))


@pytest.mark.parametrize("name", ["module." * 200_000 + "x", "a." * 200_000])
def test_a_long_name_of_a_tensor_takes_a_moment(folder: Path, name: str) -> None:
    save_file({name: np.zeros(1, np.float32)}, folder / "model.safetensors")
    start = time.process_time()
    assert "does not fit its config" in sentence_of(folder)
    assert time.process_time() - start < SECONDS / 4


def test_a_tokenizer_that_fails_on_a_text_is_one_sentence(folder: Path) -> None:
    """Its charsmap is cut short, so that the library panics where it replaces a z."""
    blob = charsmap({"q": "xx", "z": "y"}).removesuffix(b"xx\0y\0") + b"\0"
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(blob).decode()}
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    tokenizer = load(folder).tokenizer
    tokenizer.encode(["CT of the chest"])
    with pytest.raises(WorkError, match="the model's tokenizer fails on a text"):
        tokenizer.encode(["CT of the chest", "a z"])

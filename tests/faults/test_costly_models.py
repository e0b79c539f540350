"""A model folder that would take hours, all memory or a file from elsewhere is refused as it is opened."""

import base64
import json
import os
import shutil
from pathlib import Path

import pytest

from medclip.errors import UserError
from medclip.model.checkpoint import load, model_folder, tokenizer_folder
from medclip.model.config import parse_text
from medclip.model.image_processor import check_input, parse_image_processor
from medclip.model.tokenizer.quick_expressions import is_quick
from support.model_folders import dual_encoder
from support.references import FOLDER
from support.vocabularies import charsmap

DOUBLE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
EVERYWHERE = {"type": "Replace", "pattern": {"Regex": ""}, "content": "x"}
CAPTION = {"Sequence": {"id": "A", "type_id": 0}}


def sequence(part: str, *steps: dict) -> dict:
    return {"type": "Sequence", part: list(steps)}


def within_each_other(depth: int) -> dict:
    return sequence("normalizers", within_each_other(depth - 1)) if depth else {"type": "NFC"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose tokenizer.json is taken as it is."""
    folder = Path(shutil.copytree(FOLDER, tmp_path / "model"))
    path = folder / "tokenizer_config.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"normalizer": sequence("normalizers", *[DOUBLE] * 40)}, "normalizer makes up to 1e+12 characters of one"),
        ({"normalizer": sequence("normalizers", *[EVERYWHERE] * 10)}, "normalizer makes up to 1e+03 characters of one"),
        ({"normalizer": DOUBLE | {"content": "a" * 1001}}, "characters of one"),
        ({"normalizer": {"type": "Prepend", "prepend": "a" * 1001}}, "normalizer adds more than 1000"),
        ({"normalizer": sequence("normalizers", *[{"type": "NFC"}] * 101)}, "normalizer has more than 100 steps"),
        ({"normalizer": within_each_other(7)}, "normalizer is no step, or has steps deeper than 5"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap({"q": "x" * 300}))
                         .decode()}}, "replaces characters by more than 256 bytes"),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}},
         "pre_tokenizer has the expression '(a+)+$'"),
        ({"post_processor": {"type": "TemplateProcessing", "single": [CAPTION] * 2}}, "post_processor adds more than"),
        ({"post_processor": sequence("processors", {"type": "TemplateProcessing", "single": [CAPTION] * 9})},
         "post_processor adds more than"),
    ],
)  # fmt: skip
def test_a_step_of_a_tokenizer(folder: Path, change: dict, words: str) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError) as error:
        load(folder)
    assert str(path) in str(error.value) and words in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"), [("max_input_chars_per_word", 10**9), ("max_input_chars_per_word", "x"), ("dropout", 0.1)]
)
def test_a_model_of_a_tokenizer(folder: Path, field: str, value: object) -> None:
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"model": raw["model"] | {field: value}}))
    with pytest.raises(UserError, match=rf"tokenizer\.json: model\.{field}"):
        load(folder)


CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"


@pytest.mark.parametrize(
    "expression",
    [
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
        r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",  # CLIP
        r" ?[^(\s|[.,!?…。，、।۔،])]+",  # BLOOM
        rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{REST}",
        r"\s+", " {2,}", r"\d", r"[0-9]", r"\p{N}{1,3}", r"\w+|[^\w\s]+", "[一-龥ぁ-ゟァ-ヿ]+", "(?:ab)+c",
    ],
)  # fmt: skip
def test_an_expression_of_a_published_tokenizer_is_taken(expression: str) -> None:
    assert is_quick(expression)


@pytest.mark.parametrize(
    "expression",
    ["(a+)+$", "(a|a)*b", "(?:.*)*x", "(?<=a{1,50})b", r"(a*)\1b", "a{100000}", "a*a*b", "(a?a?)*b",
     "a?" * 30 + "a" * 30, "(?:a|a)" * 20, "a{1,100}" * 3, "(a", "a)", "a++", r"\k<x>", "[a", "\\", "(?=a+)a+b",
     "x" * 2000, "|".join(["a+"] * 9), "(?#x)", r"(?<n>a)\g<n>", "(" * 50 + ")" * 50, "a{2,}a{2,}"],
)  # fmt: skip
def test_an_expression_that_goes_back_and_back_is_refused(expression: str) -> None:
    assert not is_quick(expression)


@pytest.mark.parametrize("name", ["README.md", "vocab.txt", "preprocessor_config.json", "merges.txt", "any.model"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [("link", "leads out of its folder"), ("pipe", "is not a file that can be read"), ("hole", "bytes, where"),
     ("device", "is not a file that can be read"), ("nothing", "is not a file that can be read")],
)  # fmt: skip
def test_a_small_file_that_is_none(folder: Path, tmp_path: Path, name: str, kind: str, words: str) -> None:
    path = folder / name
    path.unlink(missing_ok=True)
    (tmp_path / "secret").write_text("{}")
    match kind:
        case "link":
            path.symlink_to(tmp_path / "secret")
        case "device" | "nothing":
            path.symlink_to("/dev/zero" if kind == "device" else "nothing")
        case "pipe":
            os.mkfifo(path)
        case _:
            path.touch()
            os.truncate(path, 2**36)
    for opener in (model_folder, tokenizer_folder):
        with pytest.raises(UserError, match=words) as error:
            opener(folder)
        assert str(path) in str(error.value)


def test_a_module_behind_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.json").write_text('{"pooling_mode": "mean"}')
    (folder / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    (folder / "modules.json").write_text(json.dumps([{"path": "1_Pooling", "type": "models.Pooling"}]))
    with pytest.raises(UserError, match="1_Pooling leads out of its folder"):
        model_folder(folder)


def test_an_image_or_a_text_whose_attention_takes_gigabytes() -> None:
    vision = dual_encoder("dinov2", "bert").config.vision
    taken = parse_image_processor({"size": {"shortest_edge": 512}, "crop_size": 512})  # 64² patches of 8
    check_input(taken, vision, "x.json")
    with pytest.raises(UserError, match=r"crop_size makes images of 520 px: over 4,096 patches of 8 px"):
        check_input(parse_image_processor({"size": {"shortest_edge": 520}, "crop_size": 520}), vision, "x.json")
    with pytest.raises(UserError, match="max_position_embeddings is 9000"):
        parse_text({"model_type": "bert", "max_position_embeddings": 9000})

"""open_clip's tokenizers clean, cut and pad a caption as open_clip does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medclip.errors import UserError
from medclip.model.tokenizer.open_clip_tokenizer import (
    clean_canonicalize,
    clean_lower,
    clean_whitespace,
    load_open_clip_tokenizer,
)
from medclip.model.tokenizer.text_tokenizer import TextTokenizer, save_tokenizer
from support.vocabularies import text_config, token_names, write_bert, write_clip

HF = {"hf_tokenizer_name": "of this folder"}


def load(folder: Path, text_cfg: dict[str, Any], **tower: Any) -> TextTokenizer:
    kind = "bert" if "hf_model_name" in text_cfg else "open_clip_text"
    config = text_config(kind, pad_token_id=0, **{"max_position_embeddings": 80, **tower})
    return load_open_clip_tokenizer(folder, config, {"model_cfg": {"text_cfg": text_cfg}})


@pytest.mark.parametrize(
    ("caption", "whitespace", "lower", "canonical"),
    [
        (" CT\tof  the\nChest ", "CT of the Chest", "ct of the chest", "ct of the chest"),
        ("T2_FLAIR (axial).", "T2_FLAIR (axial).", "t2_flair (axial).", "t2 flair axial"),
    ],
)
def test_plain_ascii_is_cleaned_without_ftfy(caption: str, whitespace: str, lower: str, canonical: str) -> None:
    assert [f(caption) for f in (clean_whitespace, clean_lower, clean_canonicalize)] == [whitespace, lower, canonical]


def test_mojibake_entities_and_curly_quotes_are_mended() -> None:
    assert (
        clean_whitespace("Ã©chographie &amp;lt; 5 mm, the patientâ€™s “x”") == 'échographie < 5 mm, the patient\'s "x"'
    )
    assert clean_lower("ΤΣ") == "τς"  # Python's lower case, which knows the end of a word


def test_the_own_tokenizer_pads_with_zeros_and_ends_with_its_end(tmp_path: Path) -> None:
    tokenizer = load(write_clip(tmp_path), {"context_length": 6})
    end = tokenizer.tokenizer.token_to_id("<end_of_text>")
    ids, valid = tokenizer.encode(["The THE", "the " * 40])
    assert ids[0].tolist()[3:] == [end, 0, 0] and valid[0].tolist() == [True] * 4 + [False] * 2
    assert ids[1, -1] == end and valid[1].all()
    assert token_names(tokenizer, "the") == ["<start_of_text>", "the</w>", "<end_of_text>"]


def test_only_open_clips_own_special_tokens_are_special(tmp_path: Path) -> None:
    tokenizer = load(write_clip(tmp_path), {})
    assert token_names(tokenizer, "the<end_of_text>the") == [
        "<start_of_text>", "the</w>", "<end_of_text>", "the</w>", "<end_of_text>",
    ]  # fmt: skip
    assert "<end_of_text>" not in token_names(tokenizer, "the<|endoftext|>")[:-1]
    assert "<end_of_text>" not in token_names(tokenizer, "!<end_of_text>")[:-1]  # its "<" belongs to the punctuation


@pytest.mark.parametrize("clean", ["lower", "whitespace"])
def test_letter_case_is_the_cleanings(tmp_path: Path, clean: str) -> None:
    names = token_names(load(write_clip(tmp_path), {"tokenizer_kwargs": {"clean": clean}}), "THE")
    assert names[1:-1] == (["the</w>"] if clean == "lower" else ["T", "H", "E</w>"])


def test_the_context_length_is_the_configs_or_77(tmp_path: Path) -> None:
    folder, tower = write_bert(tmp_path), {"max_position_embeddings": 512}
    hf = {**HF, "hf_model_name": "bert"}
    assert load(folder, hf, **tower).context_length == 77
    assert load(folder, {**hf, "context_length": 256}, **tower).context_length == 256
    for length in (513, 2, -1, "77", True):
        with pytest.raises(UserError, match="context_length is"):
            load(folder, {**hf, "context_length": length}, **tower)


def test_padding_of_a_hugging_face_tower_is_its_id_wherever_it_is(tmp_path: Path) -> None:
    tokenizer = load(write_bert(tmp_path), {**HF, "hf_model_name": "bert", "context_length": 6})
    ids, valid = tokenizer.encode(["the [PAD] the"])
    assert ids[0, 2] == 0 and valid[0].tolist() == [True, True, False, True, True, False]


def test_a_separator_that_is_stripped_is_a_zero(tmp_path: Path) -> None:
    kwargs = {"tokenizer_kwargs": {"strip_sep_token": True}}
    ids, _ = load(write_bert(tmp_path), {**HF, **kwargs, "context_length": 5}).encode(["the"])
    assert ids[0].tolist()[0] == 2 and ids[0].tolist()[2:] == [0, 0, 0]


def test_keyword_arguments_win_over_the_tokenizers_config(tmp_path: Path) -> None:
    folder = write_bert(tmp_path, do_lower_case=True)
    kwargs = {"tokenizer_kwargs": {"do_lower_case": False, "use_fast": True}}
    assert token_names(load(folder, {**HF, **kwargs}), "Axial") == ["[CLS]", "Axial", "[SEP]"]


@pytest.mark.parametrize(
    ("text_cfg", "word"),
    [
        ({"tokenizer_kwargs": {"clean": "upper"}}, "clean 'upper'"),
        ({"tokenizer_kwargs": {"clean": ["lower"]}}, "clean"),
        ({"tokenizer_kwargs": {"reduction_mask": "syntax"}}, "reduction_mask"),
        ({**HF, "tokenizer_kwargs": {"language": "eng"}}, "language"),
        ({**HF, "tokenizer_kwargs": {"strip_sep_token": "yes"}}, "strip_sep_token"),
        ({**HF, "tokenizer_kwargs": [1]}, "tokenizer_kwargs is not an object"),
        ({**HF, "tokenizer_mode": "clips"}, "tokenizer_mode 'clips'"),
    ],
)
def test_what_changes_ids_and_is_not_known_is_named(tmp_path: Path, text_cfg: dict, word: str) -> None:
    with pytest.raises(UserError, match=word):
        load(write_clip(tmp_path), text_cfg)


def test_another_vocabulary_than_clips_is_refused_for_the_own_tokenizer(tmp_path: Path) -> None:
    write_clip(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(UserError, match="does not hold CLIP's vocabulary"):
        load(tmp_path, {})


@pytest.mark.parametrize("text_cfg", [{}, {"tokenizer_kwargs": {"clean": "canonicalize"}}])
def test_what_is_saved_gives_the_same_ids(tmp_path: Path, text_cfg: dict) -> None:
    tokenizer = load(write_clip(tmp_path), text_cfg)
    captions = ["The chest: 5 mm!", "the<end_of_text>the", "x" * 200]
    save_tokenizer(tokenizer, tmp_path / "saved")
    for ours, theirs in zip(
        load(tmp_path / "saved", text_cfg).encode(captions), tokenizer.encode(captions), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)

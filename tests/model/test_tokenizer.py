"""What the files of a folder say of a tokenizer is what happens to a caption."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from medclip.encode.encoder import embed_texts
from medclip.errors import UserError
from medclip.model.adapt import join_towers, with_context_length
from medclip.model.checkpoint import load, save
from medclip.model.packing import pack
from medclip.model.tokenizer.text_tokenizer import load_tokenizer, save_tokenizer, with_length
from support.compiled import encode_text, packed_text_features, text_features
from support.model_folders import assert_same_embeddings, dual_encoder, rewrite_config, save_tower
from support.references import CAPTIONS, FOLDER
from support.vocabularies import (
    charsmap,
    sentencepiece_model,
    text_config,
    token_names,
    write_bert,
    write_clip,
    write_json,
    write_roberta,
    write_siglip,
)


def tokens_of(folder: Path, caption: str, kind: str = "bert") -> list[str | None]:
    return token_names(load_tokenizer(folder, text_config(kind, pad_token_id=1)), caption)


def test_a_long_caption_keeps_its_special_tokens(tmp_path: Path) -> None:
    ids, valid = load_tokenizer(write_bert(tmp_path), text_config()).encode(["chest " * 500, ""])
    assert (ids[0, 0], ids[0, -1]) == (2, 3) and valid[0].all()
    assert ids[1, :3].tolist() == [2, 3, 0] and valid[1].sum() == 2


def test_a_word_of_a_command_line_that_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_bert(tmp_path), text_config())
    with pytest.raises(UserError, match="a text is not Unicode"):
        tokenizer.encode(["chest", "\udcff"])
    with pytest.raises(TypeError):
        tokenizer.encode([5])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({}, ["a", "##b", "e", "[UNK]"]),  # lower case and no accents, as where no file says anything
        ({"do_lower_case": True}, ["a", "##b", "e", "[UNK]"]),
        ({"do_lower_case": False}, ["A", "##b", "é", "[UNK]"]),
        ({"do_lower_case": False, "strip_accents": True}, ["A", "##b", "e", "[UNK]"]),
        ({"do_lower_case": True, "strip_accents": False}, ["a", "##b", "é", "[UNK]"]),
    ],
)
def test_berts_config_wins_over_what_tokenizer_json_says(tmp_path: Path, config: dict, tokens: list[str]) -> None:
    caption, framed = "Ab é 肺", ["[CLS]", *tokens, "[SEP]"]
    assert tokens_of(write_bert(tmp_path / "slow", **config), caption) == framed
    # a tokenizer.json of the other kind, with its class named
    other = write_bert(tmp_path / "other", do_lower_case=not config.get("do_lower_case", True))
    save_tokenizer(load_tokenizer(other, text_config()), tmp_path / "fast")
    write_json(tmp_path / "fast", tokenizer_config=config | {"tokenizer_class": "BertTokenizerFast"})
    assert tokens_of(tmp_path / "fast", caption) == framed


def test_chinese_characters_are_words_unless_the_config_says_otherwise(tmp_path: Path) -> None:
    assert tokens_of(write_bert(tmp_path / "a"), "a肺b") == ["[CLS]", "a", "[UNK]", "b", "[SEP]"]
    assert tokens_of(write_bert(tmp_path / "b", tokenize_chinese_chars=False), "a肺b") == ["[CLS]", "[UNK]", "[SEP]"]


def test_tokenizer_json_is_taken_as_it_is_by_the_class_of_its_own(tmp_path: Path) -> None:
    save_tokenizer(load_tokenizer(write_bert(tmp_path, do_lower_case=False), text_config()), tmp_path / "saved")
    rewrite = {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True, "pad_token": "[PAD]"}
    write_json(tmp_path / "saved", tokenizer_config=rewrite)
    assert tokens_of(tmp_path / "saved", "Axial") == ["[CLS]", "Axial", "[SEP]"]


def test_a_class_that_is_not_known_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_tokenizer(load_tokenizer(write_bert(tmp_path), text_config()), tmp_path / "saved")
    write_json(tmp_path / "saved", tokenizer_config={"tokenizer_class": "XLNetTokenizer", "pad_token": "[PAD]"})
    with caplog.at_level(logging.WARNING, "medclip.model"):
        assert tokens_of(tmp_path / "saved", "chest") == ["[CLS]", "chest", "[SEP]"]
    assert "XLNetTokenizer is not known" in caplog.text
    (tmp_path / "saved" / "tokenizer.json").unlink()
    shutil.copy(tmp_path / "vocab.txt", tmp_path / "saved")
    with pytest.raises(UserError, match=r"XLNetTokenizer without a tokenizer\.json"):
        tokens_of(tmp_path / "saved", "chest")


@pytest.mark.parametrize(
    ("write", "caption", "tokens"),
    [
        (write_bert, "a [MASK][SEP] [mask]", ["[CLS]", "a", "[MASK]", "[SEP]", "[UNK]", "m", "##a", "##s"]),
        (write_clip, "the<|endoftext|>the", ["<|startoftext|>", "the</w>", "<|endoftext|>", "the</w>"]),
        (write_roberta, "the</s>the", ["<s>", "the", "</s>", "the", "</s>"]),
        (write_siglip, "CT</s>lung, x", ["▁ct", "</s>", "l", "u", "n", "g", "▁", "x", "</s>"]),
    ],
)
def test_a_special_token_in_a_caption_is_that_token(tmp_path: Path, write, caption: str, tokens: list[str]) -> None:
    kind = {"write_clip": "clip_text_model", "write_siglip": "siglip_text_model"}.get(write.__name__, "bert")
    assert tokens_of(write(tmp_path), caption, kind)[: len(tokens)] == tokens


def test_a_special_token_is_text_where_the_config_splits_it(tmp_path: Path) -> None:
    folder = write_bert(tmp_path, split_special_tokens=True)
    tokenizer = load_tokenizer(folder, text_config())
    for each in (tokenizer, with_length(tokenizer, 9)):
        assert token_names(each, "[SEP]") == ["[CLS]", "[UNK]", "s", "##e", "##p", "[UNK]", "[SEP]"]
    save_tokenizer(tokenizer, tmp_path / "saved")
    assert tokens_of(tmp_path / "saved", "[SEP]")[1:3] == ["[UNK]", "s"]


def test_added_tokens_of_old_files_are_whole(tmp_path: Path) -> None:
    size = len((write_bert(tmp_path) / "vocab.txt").read_text().splitlines())
    write_json(tmp_path, added_tokens={"x-ray": size})
    assert tokens_of(tmp_path, "the X-Ray") == ["[CLS]", "the", "x-ray", "[SEP]"]


def test_siglip_reads_spiece_model_alone(tmp_path: Path) -> None:
    folder = write_siglip(tmp_path)
    config = text_config("siglip_text_model", pad_token_id=1)
    tokenizer = load_tokenizer(folder, config)
    # no case, no ASCII punctuation, one space before each word, an end that is also padding
    ids, valid = tokenizer.encode(["  CT: of\tLUNG-x! "])
    assert token_names(tokenizer, "  CT: of\tLUNG-x! ") == ["▁", "▁ct", "▁", "o", "f", "▁lung", "x", "</s>"]
    assert ids.shape == (1, 64) and (ids[0][~valid[0]] == 1).all()
    assert token_names(tokenizer, "肺疾 ct") == ["▁", "<unk>", "▁ct", "</s>"]
    assert token_names(tokenizer, "") == ["</s>"] == token_names(tokenizer, "...")
    assert token_names(tokenizer, "ct</s>") == ["▁ct", "</s>"]  # the end is not added twice
    assert tokens_of(write_siglip(tmp_path / "case", do_lower_case=False), "X", "siglip_text_model")[:2] == ["▁", "X"]
    save_tokenizer(tokenizer, tmp_path / "saved")
    assert not (tmp_path / "saved" / "tokenizer.json").exists()
    np.testing.assert_array_equal(
        load_tokenizer(tmp_path / "saved", config).encode(CAPTIONS)[0], tokenizer.encode(CAPTIONS)[0]
    )


def test_sentencepieces_own_normalization_takes_the_longest_match(tmp_path: Path) -> None:
    folder = write_siglip(tmp_path, charsmap({"▁": " ", "ﬁ": "fi", "ﬁx": "ct", "\u0301": ""}))
    # a charsmap that makes a space of ▁ leaves one before the caption
    assert tokens_of(folder, "  ct", "siglip_text_model") == ["▁ct", "</s>"]
    assert tokens_of(folder, "ﬁa ﬁx e\u0301\u0327a", "siglip_text_model") == [
        "▁", "fi", "a", "▁ct", "▁", "e", "<unk>", "a", "</s>",
    ]  # fmt: skip


def test_full_width_letters_make_no_special_token(tmp_path: Path) -> None:
    folder = write_siglip(tmp_path, charsmap({"▁": " ", "＜": "<", "／": "/", "ｓ": "s", "＞": ">"}))
    assert tokens_of(folder, "＜／ｓ＞", "siglip_text_model") == ["▁", "<unk>", "s", ">", "</s>"]


def test_the_pieces_of_camembert_have_its_own_ids(tmp_path: Path) -> None:
    # camembert-base: <s> is 5, </s> is 6, as five tokens of fairseq's go before all pieces but the first
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("▁le", -2.0, 1), ("▁thorax", -2.0, 1)]
    (tmp_path / "sentencepiece.bpe.model").write_bytes(sentencepiece_model(pieces))
    write_json(tmp_path, config={"model_type": "camembert"})
    ids, valid = load_tokenizer(tmp_path, text_config("camembert", pad_token_id=1)).encode(["le thorax gauche"])
    assert ids[0][valid[0]].tolist() == [5, 7, 8, 3, 6] and (ids[0][~valid[0]] == 1).all()


def test_a_length_without_a_limit_is_the_towers(tmp_path: Path) -> None:
    for i, length in enumerate((10**30, 1e30, None)):
        folder = write_bert(tmp_path / str(i), model_max_length=length)
        assert load_tokenizer(folder, text_config()).context_length == 64
    assert load_tokenizer(write_bert(tmp_path / "own", model_max_length=40), text_config()).context_length == 40


def test_captions_are_padded_and_cut_on_the_side_that_is_named(tmp_path: Path) -> None:
    folder = write_bert(tmp_path, padding_side="left", truncation_side="left", model_max_length=6)
    tokenizer = load_tokenizer(folder, text_config())
    for each in (tokenizer, with_length(with_length(tokenizer, 9), 6)):
        ids, valid = each.encode(["the chest", "a b c d e f"])
        assert ids[0].tolist()[:2] == [0, 0] and valid[0].tolist() == [False, False, True, True, True, True]
        assert token_names(each, "a b c d e f") == ["[CLS]", "c", "d", "e", "f", "[SEP]"]
    save_tokenizer(tokenizer, tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved", text_config()).encode(["the"])[1][0].tolist() == [False] * 3 + [True] * 3


def left_padded(tmp_path: Path, text: str):
    save(dual_encoder("vit", text), tmp_path / "left")
    raw = json.loads((tmp_path / "left/tokenizer_config.json").read_text())
    write_json(tmp_path / "left", tokenizer_config=raw | {"padding_side": "left"})
    return load(tmp_path / "left")


@pytest.mark.parametrize("text", ["bert", "roberta"])
def test_captions_padded_on_the_left_are_embedded_whole(tmp_path: Path, text: str) -> None:
    model = left_padded(tmp_path, text)
    captions = ["CT of the chest", "T2"]
    ids, valid = model.tokenizer.encode(captions)
    assert not valid[:, 0].any() and valid[:, -1].all()
    wanted = encode_text(model.params, ids, valid, model.config)
    np.testing.assert_allclose(embed_texts(model, captions), wanted, atol=2e-6)


def test_padding_on_the_left_that_would_be_pooled_is_refused(tmp_path: Path) -> None:
    """Padding repeats the end-of-text token, of which CLIP pools the first."""
    with pytest.raises(UserError, match=r"tokenizer_config\.json: padding_side is left.* set padding_side to right"):
        left_padded(tmp_path, "clip_text_model")


def test_packed_captions_padded_on_the_left_keep_their_positions(tmp_path: Path) -> None:
    import dataclasses

    model = left_padded(tmp_path, "bert")
    text = model.config.text
    ids, valid = (x[None] for x in model.tokenizer.encode(["CT of the chest", "T2", "arrow"]))
    with pytest.raises(UserError, match="padding_side right"):  # whose first token would be padding
        pack(ids, valid, text)
    mean = dataclasses.replace(text, family=dataclasses.replace(text.family, pool="mean", head=""))
    config = dataclasses.replace(model.config, text=mean)
    wanted = text_features(model.params, ids[0], valid[0], config)
    features = packed_text_features(model.params, pack(ids, valid, mean), config)
    np.testing.assert_allclose(features[0], wanted, atol=2e-6)


def test_a_tokenizer_may_come_from_another_folder(tmp_path: Path) -> None:
    for name in ("alone", "model"):
        shutil.copytree(FOLDER, tmp_path / name)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).unlink()
    (tmp_path / "alone" / "config.json").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer.* --tokenizer MODEL"):
        load(tmp_path / "model")
    model = load(tmp_path / "model", tokenizer=tmp_path / "alone")
    assert_same_embeddings(load(FOLDER), model)
    save(model, tmp_path / "saved")
    assert_same_embeddings(load(FOLDER), load(tmp_path / "saved"))
    with pytest.raises(UserError, match="has no tokenizer"):
        load(tmp_path / "model", tokenizer=tmp_path)


def test_a_join_may_take_the_tokenizer_of_another_folder(tmp_path: Path) -> None:
    whole = dual_encoder("vit", "bert")
    text, vision = save_tower(whole, "text", tmp_path / "text"), save_tower(whole, "vision", tmp_path / "vision")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (text / name).unlink()
    model = join_towers(vision, text, tokenizer=FOLDER)
    np.testing.assert_array_equal(model.tokenizer.encode(CAPTIONS)[0], load(FOLDER).tokenizer.encode(CAPTIONS)[0])


def test_the_tokenizer_of_medclip_roco_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="allenai/scibert_scivocab_uncased has the 31090 tokens"):
        load_tokenizer(tmp_path, text_config(vocab_size=31090))


def test_more_tokens_than_the_tower_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="room for 10"):
        load_tokenizer(write_bert(tmp_path), text_config(vocab_size=10))


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ([], "is not an object"),
        ({"do_lower_case": "no"}, "do_lower_case is 'no', not true or false"),
        ({"strip_accents": 1}, "strip_accents is '1'"),
        ({"padding_side": "top"}, "padding_side is 'top', not left or right"),
        ({"truncation_side": ["left"]}, "truncation_side"),
        ({"model_max_length": -5}, "model_max_length is '-5', not a number of tokens"),
        ({"model_max_length": "512"}, "model_max_length is '512'"),
        ({"model_max_length": float("nan")}, "model_max_length"),
        ({"tokenizer_class": 3}, "tokenizer_class is 3"),
        ({"pad_token": 3}, "pad_token is '3', not a token"),
        ({"pad_token": {"content": None}}, "pad_token"),
        ({"pad_token": {"content": "[PAD]", "lstrip": "yes"}}, "pad_token"),
        ({"added_tokens_decoder": []}, None),  # nothing to add
        ({"added_tokens_decoder": [1]}, "added_tokens_decoder is '[1]', not an object"),
        ({"added_tokens_decoder": {"-1": {"content": "x"}}}, "id of an added token is '-1'"),
        ({"added_tokens_decoder": {"5": "x"}}, "an added token is 'x'"),
        ({"extra_special_tokens": "x"}, "extra_special_tokens is 'x', not a list"),
        ({"extra_ids": 10**12, "tokenizer_class": "T5Tokenizer"}, "extra_ids"),
    ],
)
def test_a_config_that_no_tokenizer_has_is_one_sentence(tmp_path: Path, config: object, word: str | None) -> None:
    folder = write_bert(tmp_path)
    write_json(folder, tokenizer_config=config)
    if word is None:
        load_tokenizer(folder, text_config())
        return
    with pytest.raises(UserError) as refusal:
        load_tokenizer(folder, text_config())
    assert word in str(refusal.value)


@pytest.mark.parametrize(
    "content",
    [
        b"{", b"[]", b'{"model": 3}', b'{"model": {"type": "BPE", "vocab": {"a": "b"}, "merges": ["x"]}}',
        b'{"model": {"type": "Unigram", "vocab": [["a", "b"]]}}', b'{"added_tokens": 3}', b'{"added_tokens": [3]}',
        b'{"model": {"type": "WordPiece", "vocab": {"a": -1}}}', b'{"padding": 3}', b"\xff\xfe",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["BertTokenizer", "CLIPTokenizer", "XLMRobertaTokenizer", "PreTrainedTokenizerFast"])
def test_a_damaged_tokenizer_json_is_one_sentence(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    write_json(tmp_path, tokenizer_config={"tokenizer_class": name})
    with pytest.raises(UserError):
        load_tokenizer(tmp_path, text_config())


def test_a_vocabulary_of_another_kind_than_the_class_takes_is_named(tmp_path: Path) -> None:
    write_json(write_clip(tmp_path), tokenizer_config={"tokenizer_class": "BertTokenizer"})
    with pytest.raises(UserError, match=r"no vocabulary of the kind \(WordPiece\)"):
        load_tokenizer(tmp_path, text_config())
    shutil.copy(FOLDER / "tokenizer.json", tmp_path)
    with pytest.raises(UserError, match="BertTokenizer does not take the BPE vocabulary"):
        load_tokenizer(tmp_path, text_config())


def test_another_context_length_is_written_in_both_layouts(tmp_path: Path) -> None:
    model = with_context_length(load(FOLDER), 30)
    save(model, tmp_path / "longer")
    again = load(tmp_path / "longer")
    assert (again.tokenizer.context_length, again.config.text.max_position_embeddings) == (30, 30)
    rewrite_config(tmp_path / "longer", "text_config", eos_token_id=2)
    assert json.loads((tmp_path / "longer/tokenizer_config.json").read_text())["model_max_length"] == 30

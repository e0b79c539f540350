"""SentencePiece's files are read as what they are, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import normalizers

from medclip.errors import UserError
from medclip.model.tokenizer.sentencepiece_model import PieceKind, parse_charsmap, read_sentencepiece
from support.vocabularies import PIECES, charsmap, sentencepiece_model


def write(folder: Path, content: bytes) -> Path:
    path = folder / "spiece.model"
    path.write_bytes(content)
    return path


def test_pieces_and_settings_come_back(tmp_path: Path) -> None:
    model = read_sentencepiece(write(tmp_path, sentencepiece_model(PIECES, charsmap({"ﬁ": "fi"}), {3: 2, 35: 1})))
    assert [(p.text, p.score, p.kind) for p in model.pieces] == PIECES
    assert (model.is_bpe, model.byte_fallback, model.unknown_id) == (True, True, 2)
    assert (model.add_dummy_prefix, model.remove_extra_whitespaces) == (True, True)  # as where nothing is said


def test_merges_are_every_split_of_a_normal_piece_best_first(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0, 2), ("</s>", 0.0, 3), ("ab", -1.0, 1), ("abc", -0.5, 1), ("a", -2.0, 1), ("b", -2.0, 1),
              ("c", -2.0, 1), ("bc", -3.0, 1)]  # fmt: skip
    model = read_sentencepiece(write(tmp_path, sentencepiece_model(pieces, trainer={3: 2})))
    assert model.merges() == [("a", "bc"), ("ab", "c"), ("a", "b"), ("b", "c")]
    assert model.pieces[1].kind is PieceKind.CONTROL


@pytest.mark.parametrize("text", ["ﬁx ﬁ", "e\u0301", "①②", "plain ASCII", "", "\ud83d"])
def test_a_charsmap_is_that_of_the_library(text: str) -> None:
    blob = charsmap({"ﬁ": "fi", "e\u0301": "é", "①": "1", "②": "(2)"})
    parsed = parse_charsmap(blob)
    assert parsed is not None
    text = text.encode(errors="replace").decode()
    assert parsed.apply(text) == normalizers.Precompiled(blob).normalize_str(text)


def test_what_follows_a_combining_mark_is_not_lost() -> None:
    parsed = parse_charsmap(charsmap({"e\u0301": "é"}))
    assert parsed is not None
    assert parsed.apply("e\u0301\u0327 e\u0327") == "é\u0327 e\u0327"  # the library drops the cedilla


WHOLE = sentencepiece_model(PIECES, charsmap({"ﬁ": "fi"}))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "unknown piece"),
        (WHOLE[:-7], "not a SentencePiece model"),
        (b"\xff" * 40, "more than 64 bits"),
        (b"{}", "not a SentencePiece model"),
        (sentencepiece_model([(t, s, 9) for t, s, _ in PIECES]), "9 is not a valid PieceKind"),
        (sentencepiece_model([*PIECES, ("<unk2>", 0.0, 2)]), "exactly one unknown piece"),
        (sentencepiece_model(PIECES, b"\xff\xff\xff\x7fabc"), "charsmap is damaged"),
        (sentencepiece_model(PIECES, charsmap({"ﬁ": "x" * 257})), "replaces characters by more than 256 bytes"),
        (sentencepiece_model([*PIECES, ("x" * 1001, 0.0, 1)]), "a piece of 1,001 bytes"),
        (sentencepiece_model(PIECES, trainer={3: 4}), "kind that is not supported"),
        (sentencepiece_model(PIECES, trainer={24: 1}), "kind that is not supported"),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes, word: str) -> None:
    with pytest.raises(UserError, match=word):
        read_sentencepiece(write(tmp_path, content))


def test_a_hostile_charsmap_ends(tmp_path: Path) -> None:
    for filler in (0, 0xFF, 0x80000000, 0x100, 0xFFFFFFFF):
        blob = (64).to_bytes(4, "little") + filler.to_bytes(4, "little") * 16 + b"x\0"
        parsed = parse_charsmap(blob)
        assert parsed is not None
        parsed.apply("any text, ﬁ ÿ")

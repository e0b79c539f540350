"""The tokens of a folder's tokenizer, from whichever of its files holds them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tokenizers import models

from medclip.atomic_io import read_optional
from medclip.errors import UserError
from medclip.model.tokenizer.sentencepiece_model import SentencePieceModel, read_sentencepiece

JSON_FILE, SIGLIP_FILE = "tokenizer.json", "spiece.model"
TOKENIZER_FILES = (JSON_FILE, "vocab.txt", "vocab.json", SIGLIP_FILE, "sentencepiece.bpe.model")
"""One of these for a tokenizer."""
START, END = "<|startoftext|>", "<|endoftext|>"
ModelKind = Literal["WordPiece", "BPE", "Unigram"]
_CLASS_OF_SENTENCEPIECE = {SIGLIP_FILE: "SiglipTokenizer", "sentencepiece.bpe.model": "XLMRobertaTokenizer"}


@dataclass(frozen=True)
class Vocabulary:
    """Tokens, and what else a SentencePiece model or tokenizer.json holds that depends on them."""

    ids: dict[str, int] = field(default_factory=dict)
    """By token (WordPiece, BPE)."""
    merges: list[tuple[str, str]] = field(default_factory=list)
    """Of BPE, best first."""
    scores: list[tuple[str, float]] = field(default_factory=list)
    """Tokens with their log probabilities, by id (Unigram)."""
    charsmap: bytes = b""
    """SentencePiece's compiled replacements of characters."""
    sentencepiece: SentencePieceModel | None = None


def read_vocabulary(folder: Path, raw: Mapping[str, Any], kind: ModelKind) -> Vocabulary:
    """The vocabulary of tokenizer.json (`raw`, {} where there is none), else of the older files of that kind of model.

    Raises UserError where there is none of that kind.
    """
    if raw:
        return _json_vocabulary(folder, raw, kind)
    if kind == "WordPiece" and (folder / "vocab.txt").is_file():
        return Vocabulary(_read_vocab_txt(folder))
    if kind == "BPE" and _has_bpe_files(folder):
        try:
            return Vocabulary(*models.BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
        except Exception as error:  # the library's own
            raise UserError(f"{folder / 'vocab.json'} and merges.txt do not hold a vocabulary: {error}.") from None
    if kind == "Unigram" and (path := _sentencepiece_file(folder)):
        model = read_sentencepiece(path)
        scores = [(piece.text, piece.score) for piece in model.pieces]
        return Vocabulary(scores=scores, charsmap=model.charsmap, sentencepiece=model)
    raise UserError(f"{folder} has no vocabulary of the kind ({kind}) that its tokenizer_class takes.")


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer of any kind."""
    return (folder / JSON_FILE).is_file() or bool(class_of_files(folder))


def class_of_files(folder: Path) -> str:
    """The tokenizer class whose files a folder holds, "" where it holds none."""
    if (folder / "vocab.txt").is_file():
        return "BertTokenizer" if "[CLS]" in _read_vocab_txt(folder) else "MPNetTokenizer"
    if _has_bpe_files(folder):
        return (
            "CLIPTokenizer" if START in read_optional(folder / "vocab.json", "a model folder") else "RobertaTokenizer"
        )
    path = _sentencepiece_file(folder)
    return _CLASS_OF_SENTENCEPIECE[path.name] if path else ""


def _read_vocab_txt(folder: Path) -> dict[str, int]:
    try:
        return models.WordPiece.read_file(str(folder / "vocab.txt"))
    except Exception as error:  # the library's own
        raise UserError(f"{folder / 'vocab.txt'} does not hold a vocabulary: {error}.") from None


def _has_bpe_files(folder: Path) -> bool:
    return (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()


def _sentencepiece_file(folder: Path) -> Path | None:
    return next((folder / name for name in _CLASS_OF_SENTENCEPIECE if (folder / name).is_file()), None)


def _json_vocabulary(folder: Path, raw: Mapping[str, Any], kind: ModelKind) -> Vocabulary:
    model = raw.get("model")
    tokens = model.get("vocab") if isinstance(model, Mapping) else None
    if not isinstance(model, Mapping) or not isinstance(tokens, list if kind == "Unigram" else dict):
        raise UserError(f"{folder / JSON_FILE} has no vocabulary of the kind ({kind}) that its tokenizer_class takes.")
    if kind == "Unigram":
        normalizer = raw.get("normalizer") or {}
        parts = normalizer.get("normalizers") or [normalizer]
        charsmaps = [part["precompiled_charsmap"] for part in parts if part.get("type") == "Precompiled"]
        scores = [(str(token), float(score)) for token, score in tokens]
        return Vocabulary(scores=scores, charsmap=base64.b64decode(charsmaps[0]) if charsmaps else b"")
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges") or [])
    return Vocabulary(dict(tokens), [(left, right) for left, right in pairs])

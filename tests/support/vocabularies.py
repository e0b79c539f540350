"""Tokenizer folders with vocabularies small enough to know every id, in the files of each kind."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medclip.model.config import TextConfig, parse_text
from medclip.model.tokenizer.text_tokenizer import TextTokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:()-'é"
NORMAL, UNKNOWN, CONTROL = 1, 2, 3


def text_config(kind: str = "bert", **fields: Any) -> TextConfig:
    """A tower with room for every vocabulary here and 64 tokens."""
    return parse_text({"model_type": kind, "vocab_size": 2000, "max_position_embeddings": 64, **fields})


def write_json(folder: Path, **files: Any) -> None:
    """NAME=value as NAME.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")


def write_bert(folder: Path, **config: Any) -> Path:
    """vocab.txt, and tokenizer_config.json where something is to say."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *LETTERS.upper(), "chest", "Axial", "the"]
    pieces += [f"##{letter}" for letter in LETTERS]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(pieces)) + "\n", encoding="utf-8")
    write_json(folder, config={"model_type": "bert"}, **({"tokenizer_config": config} if config else {}))
    return folder


def byte_letters() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def write_clip(folder: Path, **config: Any) -> Path:
    """vocab.json and merges.txt."""
    letters = byte_letters()
    pieces = [*letters, *(f"{x}</w>" for x in letters), "th", "the</w>", "<|startoftext|>", "<|endoftext|>"]
    write_json(folder, vocab={piece: i for i, piece in enumerate(pieces)}, config={"model_type": "clip"})
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\n")
    write_json(folder, **({"tokenizer_config": config} if config else {}))
    return folder


def write_roberta(folder: Path, **config: Any) -> Path:
    """vocab.json and merges.txt."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *byte_letters(), "th", "the", "<mask>"]
    write_json(folder, vocab={piece: i for i, piece in enumerate(pieces)}, config={"model_type": "roberta"})
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e\n")
    write_json(folder, **({"tokenizer_config": config} if config else {}))
    return folder


PIECES = [("<pad>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN), ("▁", -3.0, NORMAL),
          ("▁ct", -2.0, NORMAL), ("▁lung", -2.0, NORMAL), ("fi", -4.0, NORMAL), (">", -9.0, NORMAL),
          *((letter, -6.0, NORMAL) for letter in "abcdefghijklmnopqrstuvwxyzX")]  # fmt: skip


def write_siglip(folder: Path, charsmap: bytes = b"", **config: Any) -> Path:
    """spiece.model, as every SigLIP that transformers 5 saves."""
    write_json(folder, config={"model_type": "siglip"}, **({"tokenizer_config": config} if config else {}))
    (folder / "spiece.model").write_bytes(sentencepiece_model(PIECES, charsmap))
    return folder


def sentencepiece_model(
    pieces: Sequence[tuple[str, float, int]], charsmap: bytes = b"", trainer: Mapping[int, int] | None = None
) -> bytes:
    """The protocol buffer of a Unigram model; `trainer` are numbers of its trainer_spec."""

    def field(number: int, value: bytes | int) -> bytes:
        if isinstance(value, int):
            return _varint(number << 3) + _varint(value)
        return _varint(number << 3 | 2) + _varint(len(value)) + value

    out = b""
    for text, score, kind in pieces:
        out += field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + field(3, kind))
    out += field(2, b"".join(field(number, value) for number, value in (trainer or {}).items()))
    return out + field(3, field(1, b"by hand") + (field(2, charsmap) if charsmap else b""))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def charsmap(rules: Mapping[str, str]) -> bytes:
    """SentencePiece's compiled charsmap of a few rules: a double array in the layout of darts-clone."""
    texts, units, free = b"", {0: 0}, [256]

    def place(node: int, entries: Mapping[bytes, int]) -> None:
        """Give the children of a node 256 places of their own, each at its byte."""
        base, free[0] = free[0], free[0] + 256
        units[node] |= (node ^ base) << 10
        for first in sorted({key[0] for key in entries if key}):
            child = base ^ first
            rest = {key[1:]: value for key, value in entries.items() if key and key[0] == first}
            units[child] = first | (1 << 8 if b"" in rest else 0)
            place(child, rest)
        if b"" in entries and node:
            units[base] = 1 << 31 | entries[b""]

    entries = {}
    for rule, text in rules.items():
        entries[rule.encode()] = len(texts)
        texts += text.encode() + b"\0"
    place(0, entries)
    array = [units.get(i, 1 << 31 | 0xFF) for i in range(free[0])]
    trie = struct.pack(f"<{len(array)}I", *array)
    return struct.pack("<I", len(trie)) + trie + texts


def token_names(tokenizer: TextTokenizer, caption: str) -> list[str | None]:
    """The tokens of a caption, without padding."""
    ids, valid = tokenizer.encode([caption])
    return [tokenizer.tokenizer.id_to_token(int(i)) for i in ids[0][valid[0]]]

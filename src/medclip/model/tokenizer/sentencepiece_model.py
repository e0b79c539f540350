"""SentencePiece's `.model` files (`spiece.model`, `sentencepiece.bpe.model`) as values, without the library.

The file is a protocol buffer, `sentencepiece_model.proto`; the field numbers below are its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medclip.errors import UserError

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_UNIGRAM, _BPE = 1, 2
_MAX_PIECE_BYTES = 1000
_MAX_MATCH_BYTES = _MAX_REPLACEMENT_BYTES = 256  # of a charsmap; NFKC's have 18 and 33 at most
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
Field = int | bytes


class PieceKind(IntEnum):
    """What a piece stands for."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Piece(NamedTuple):
    """An entry of the vocabulary; its id is its position."""

    text: str
    score: float
    kind: PieceKind


@dataclass(frozen=True)
class SentencePieceModel:
    """A vocabulary with the way of normalizing text that it was trained with."""

    pieces: tuple[Piece, ...]
    is_bpe: bool
    """Whether pieces are merged by score (BPE), rather than chosen as the likeliest sequence (Unigram)."""
    unknown_id: int
    byte_fallback: bool
    charsmap: bytes
    """Compiled replacements of characters (NFKC and more); empty: none."""
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool

    def merges(self) -> list[tuple[str, str]]:
        """The merges of BPE, best first: every way to split a normal piece into two others, by its score."""
        ranks = {piece.text: (-piece.score, i) for i, piece in enumerate(self.pieces) if piece.kind == PieceKind.NORMAL}
        splits = ((rank, text[:i], text[i:]) for text, rank in ranks.items() for i in range(1, len(text)))
        return [(left, right) for _, left, right in sorted(s for s in splits if s[1] in ranks and s[2] in ranks)]


@dataclass(frozen=True)
class Charsmap:
    """SentencePiece's replacements of characters: a double array over UTF-8 (Aoe 1989), and the texts it leads to.

    The library `tokenizers` has them too, by whole graphemes, which loses what a combining mark follows.
    """

    units: np.ndarray
    """u32, darts-clone's layout: label, leaf flag and offset in one number."""
    texts: bytes

    def apply(self, text: str) -> str:
        """The text with the longest match at each place replaced."""
        data, out, at = text.encode(errors="replace"), bytearray(), 0
        while at < len(data):
            size, replacement = self._longest(data, at)
            out += replacement
            at += size
        return out.decode()

    def _longest(self, data: bytes, start: int) -> tuple[int, bytes]:
        """Length of the longest match and what replaces it; a character that has none stays."""
        size = 1 + sum(data[start] >= first for first in (0xC0, 0xE0, 0xF0))
        replacement, node = data[start : start + size], _offset(self._unit(0))
        for at in range(start, min(len(data), start + _MAX_MATCH_BYTES)):
            node ^= data[at]
            unit = self._unit(node)
            if unit & 0x800000FF != data[at]:
                break
            node ^= _offset(unit)
            if unit >> 8 & 1:
                text = self._unit(node) & 0x7FFFFFFF
                size, replacement = at + 1 - start, self.texts[text : self.texts.find(b"\0", text)]
        return size, replacement

    def _unit(self, node: int) -> int:
        return int(self.units[node]) if node < len(self.units) else 0x80000000


def parse_charsmap(blob: bytes) -> Charsmap | None:
    """A compiled charsmap; None where it is empty. ValueError where it is damaged."""
    if not blob:
        return None
    size = int.from_bytes(blob[:4], "little")
    if len(blob) < 4 or size % 4 or not 4 <= size <= len(blob) - 4 or not blob.endswith(b"\0"):
        raise ValueError("its charsmap is damaged")
    if max(map(len, blob[4 + size :].split(b"\0"))) > _MAX_REPLACEMENT_BYTES:
        raise ValueError(f"its charsmap replaces characters by more than {_MAX_REPLACEMENT_BYTES} bytes")
    return Charsmap(np.frombuffer(blob, "<u4", size // 4, 4), blob[4 + size :])


def _offset(unit: int) -> int:
    return unit >> 10 << ((unit & 1 << 9) >> 6)


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """The model in a file. Raises UserError where it is damaged or of a kind that is not supported."""
    try:
        fields = list(_fields(path.read_bytes()))
        trainer, normalizer = (dict(_fields(_last_bytes(fields, number))) for number in (_TRAINER, _NORMALIZER))
        pieces = tuple(_piece(value) for number, value in fields if number == _PIECES)
        charsmap = normalizer.get(2, b"")
        kinds = [piece.kind for piece in pieces]
        if kinds.count(PieceKind.UNKNOWN) != 1 or not isinstance(charsmap, bytes):
            raise ValueError("it does not have exactly one unknown piece")
        parse_charsmap(charsmap)
    except (ValueError, IndexError, TypeError, struct.error) as error:
        raise UserError(f"{path} is not a SentencePiece model: {error}.") from None
    kind = trainer.get(3, _UNIGRAM)
    # 24: treat_whitespace_as_suffix; 5 of the normalizer: escape_whitespaces
    if kind not in (_UNIGRAM, _BPE) or trainer.get(24, 0) or not normalizer.get(5, 1):
        raise UserError(f"{path} is a SentencePiece model of a kind that is not supported; Unigram and BPE are.")
    return SentencePieceModel(
        pieces,
        is_bpe=kind == _BPE,
        unknown_id=kinds.index(PieceKind.UNKNOWN),
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=charsmap,
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
    )


def _piece(message: Field) -> Piece:
    if not isinstance(message, bytes):
        raise ValueError("a piece is a number")
    fields = dict(_fields(message))
    text, score = fields.get(1, b""), fields.get(2, b"\0\0\0\0")
    if not (isinstance(text, bytes) and isinstance(score, bytes)):
        raise ValueError("a piece has no text or no score")
    if len(text) > _MAX_PIECE_BYTES:  # BPE looks at each part of a piece, and a model's own have some 50
        raise ValueError(f"a piece of {len(text):,} bytes")
    return Piece(text.decode(), struct.unpack("<f", score)[0], PieceKind(fields.get(3, PieceKind.NORMAL)))


def _last_bytes(fields: list[tuple[int, Field]], number: int) -> bytes:
    values = [value for n, value in fields if n == number and isinstance(value, bytes)]
    return values[-1] if values else b""


def _fields(message: bytes) -> Iterator[tuple[int, Field]]:
    """The numbers and values of a message's fields; fixed-size numbers as their bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at + size > len(message):
            raise ValueError(f"it ends within a field at byte {at}")
        yield number, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A base-128 number and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError(f"a number of more than 64 bits at byte {at}")

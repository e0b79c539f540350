"""What an Arrow file says of its record batches, read before any is: whether they are compressed.

A compressed batch of 200 kB can unpack to all the memory there is. The file ends with a footer, a FlatBuffer
(`File.fbs` of Apache Arrow), which lists where the metadata of each batch lies (`Message.fbs`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

_MAGIC = b"ARROW1"
_DICTIONARIES, _BATCHES = 2, 3  # fields of a footer
_HEADER, _COMPRESSION = 2, 3  # of a message, and of the record batch in its header
_BLOCK = struct.Struct("<qi4xq")
_MAX_BLOCKS = 1_000_000


def has_compressed_batches(file: Any) -> bool:
    """Whether a file, which can be sought in, holds compressed record batches. ValueError where it is damaged."""
    try:
        return any(map(_is_compressed, _batch_messages(file)))
    except (struct.error, IndexError) as error:
        raise ValueError(f"its footer is damaged: {error}") from None


def _batch_messages(file: Any) -> Iterator[bytes]:
    """The metadata of each record batch and dictionary."""
    size = file.seek(0, 2)
    file.seek(max(size - 10, 0))
    (footer_size,), magic = struct.unpack("<i", file.read(4)), file.read(6)
    if magic != _MAGIC or not 0 < footer_size <= size - 10:
        raise ValueError("it is not an Arrow file")
    file.seek(size - 10 - footer_size)
    footer = file.read(footer_size)
    root = _at(footer, "<I", 0)
    for number in (_DICTIONARIES, _BATCHES):
        if not (vector := _field(footer, root, number)):
            continue
        vector += _at(footer, "<I", vector)
        if (count := _at(footer, "<I", vector)) > _MAX_BLOCKS:
            raise ValueError(f"it claims {count:,} batches")
        for block in range(count):
            offset, metadata_size, _ = _BLOCK.unpack_from(footer, vector + 4 + block * _BLOCK.size)
            if not 0 <= offset <= size or not 8 < metadata_size <= size:
                raise ValueError("its footer points elsewhere")
            file.seek(offset)
            message = file.read(metadata_size)
            yield message[8 if message[:4] == b"\xff\xff\xff\xff" else 4 :]


def _is_compressed(message: bytes) -> bool:
    root = _at(message, "<I", 0)
    header = _field(message, root, _HEADER)
    header += _at(message, "<I", header)
    kind = _at(message, "<B", _field(message, root, 1))
    if kind == 2 and (data := _field(message, header, 1)):  # a dictionary, which holds a record batch
        header = data + _at(message, "<I", data)
    return bool(_field(message, header, _COMPRESSION))


def _field(buffer: bytes, table: int, number: int) -> int:
    """Where a field of a FlatBuffer's table lies; 0 where the table lacks it."""
    vtable = table - _at(buffer, "<i", table)
    entry = 4 + 2 * number
    offset = _at(buffer, "<H", vtable + entry) if entry < _at(buffer, "<H", vtable) else 0
    return table + offset if offset else 0


def _at(buffer: bytes, form: str, place: int) -> int:
    if place < 0:
        raise ValueError("its footer points elsewhere")
    return struct.unpack_from(form, buffer, place)[0]

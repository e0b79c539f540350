"""Arrow and .npy files, checked as they are opened: a damaged one would be a crash or a wrong number."""

from __future__ import annotations

import os
import zlib
from functools import reduce
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from medclip.atomic_io import check_file, sha256
from medclip.data.arrow_messages import has_compressed_batches

_OPTIONAL = "attribution"
EMBEDDINGS_MANIFEST = "embedding.json"
"""What `medclip embed` writes beside its files of embeddings: their origin and hashes."""
NORM_TOLERANCE = 1e-3
CHUNK_ROWS = 65_536


class DamageError(ValueError):
    """A file that does not hold what it should. The message follows the file's name: "is cut"."""


def open_table(
    path: Path, schema: pa.Schema | None = None, num_rows: int | None = None, digest: str | None = None
) -> pa.Table:
    """An Arrow IPC file, memory-mapped: every offset and text checked; where given, also its columns, rows and hash.

    FileNotFoundError where it is absent, DamageError where it is damaged, or of columns that are given lacks a value.
    """
    try:
        check_file(path)
        source = pa.memory_map(os.fsencode(path))
        if has_compressed_batches(source):  # which unpack to any size; medclip writes none
            raise DamageError("is compressed, which no file of medclip is")
        reader = pa.ipc.open_file(source)
        if foreign := next((field for field in reader.schema if not _is_written(field.type)), None):
            raise DamageError(f"has a column of {str(foreign.type)[:80]}, which no file of medclip has")
        table = reader.read_all()
        table.validate(full=True)
    except (FileNotFoundError, DamageError):
        raise
    except (pa.ArrowException, ValueError, OSError, MemoryError) as error:
        raise DamageError(f"is not a whole Arrow file ({_first_line(error)})") from None
    if schema is not None and not table.schema.equals(schema):
        raise DamageError("has other columns than medclip writes")
    if schema is not None and (incomplete := _incomplete_column(table)):
        raise DamageError(f"has a pair without {incomplete}")
    if num_rows is not None and len(table) != num_rows:
        raise DamageError(f"has {len(table)} rows, which disagrees with the {num_rows} recorded")
    check_hash(path, digest)
    return table


def _is_written(type: pa.DataType) -> bool:
    """Whether values of a type lie in the file, each for itself: a dictionary or a view has one of them many times."""
    if pa.types.is_map(type):
        return _is_written(type.key_type) and _is_written(type.item_type)
    if pa.types.is_list(type):
        return _is_written(type.value_type)
    is_text = pa.types.is_string(type) or pa.types.is_binary(type)
    is_text |= pa.types.is_fixed_size_binary(type) and type.byte_width > 0
    return is_text or pa.types.is_boolean(type) or pa.types.is_integer(type) or pa.types.is_floating(type)


def _incomplete_column(table: pa.Table) -> str | None:
    """A column in which a value is absent that is not optional."""
    for name, column in zip(table.column_names, table.columns, strict=True):
        items = [chunk.items for chunk in column.chunks] if pa.types.is_map(column.type) else []
        is_optional = name == _OPTIONAL or pa.types.is_list(column.type)  # an absent list says what an empty one does
        if not is_optional and any(array.null_count for array in (*column.chunks, *items)):
            return name
    return None


def columns_crc32(table: pa.Table) -> int:
    """CRC-32 of a table as it lies in its file, but for the images, which have hashes of their own."""
    chunks = chain.from_iterable(column.chunks for column in table.drop_columns("image").columns)
    buffers = chain.from_iterable(chunk.buffers() for chunk in chunks)
    return reduce(lambda value, buffer: zlib.crc32(buffer, value), filter(None, buffers), 0)


def check_hash(path: Path, digest: str | None) -> None:
    """DamageError where a file has another SHA-256 than `digest`, if that is recorded."""
    if digest is not None and sha256(path) != digest:
        raise DamageError("is not the file whose hash is recorded")


def open_array(path: Path, dtype: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A .npy file, memory-mapped. FileNotFoundError where it is absent, DamageError where its type or shape differ."""
    try:
        check_file(path)
        array = np.lib.format.open_memmap(path, mode="r")  # no pickles, no archives
    except FileNotFoundError:
        raise
    except Exception as error:  # the header is a Python literal, and what a damaged one raises has many types
        raise DamageError(f"is not a whole .npy file ({_first_line(error)})") from None
    if array.dtype != np.dtype(dtype) or (shape is not None and array.shape != shape):
        recorded = f"{np.dtype(dtype)} of shape {shape}" if shape else str(np.dtype(dtype))
        raise DamageError(f"holds {array.dtype} of shape {array.shape}, which disagrees with the recorded {recorded}")
    return array


def damaged_rows(embeddings: Float[np.ndarray, "n p"]) -> list[int]:
    """The rows that are not unit vectors: a number is not finite, or the length is off by NORM_TOLERANCE."""
    rows: list[int] = []
    for start in range(0, len(embeddings), CHUNK_ROWS):
        chunk = np.asarray(embeddings[start : start + CHUNK_ROWS])
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.einsum("np,np->n", chunk, chunk)
        rows += (start + np.flatnonzero(~(np.abs(squares - 1) <= 2 * NORM_TOLERANCE))).tolist()
    return rows


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__

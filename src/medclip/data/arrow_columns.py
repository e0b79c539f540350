"""Arrow arrays of Python values. `pyarrow.array` imports pandas first: 0.3 s and 50 MB in every process that writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

MAX_OFFSET = 2**31 - 1  # an offset has 32 bits


def to_table(columns: Mapping[str, Sequence[str] | np.ndarray]) -> pa.Table:
    """Columns of texts, and of numbers as numpy holds them, as a table."""
    types = (pa.from_numpy_dtype(v.dtype) if isinstance(v, np.ndarray) else pa.string() for v in columns.values())
    return pa.Table.from_arrays(list(map(to_array, columns.values(), types)), list(columns))


def to_array(values: Sequence[Any] | np.ndarray, type: pa.DataType) -> pa.Array:
    """Values of a type; None is an absent one. ValueError where they are too large for one array."""
    absent = np.array([value is None for value in values], bool)
    valid = pa.py_buffer(np.packbits(~absent, bitorder="little")) if absent.any() else None
    if pa.types.is_map(type):
        offsets, items = _flatten(values)
        parts = [to_array([item[i] for item in items], part) for i, part in enumerate((type.key_type, type.item_type))]
        entries = pa.StructArray.from_arrays(parts, fields=[type.key_field, type.item_field])
        return pa.Array.from_buffers(type, len(values), [valid, offsets], children=[entries])
    if pa.types.is_list(type):
        offsets, items = _flatten(values)
        return pa.Array.from_buffers(type, len(values), [valid, offsets], children=[to_array(items, type.value_type)])
    if pa.types.is_string(type) or pa.types.is_binary(type):
        texts = pa.types.is_string(type)
        content = [b"" if value is None else value.encode() if texts else value for value in values]
        return pa.Array.from_buffers(type, len(values), [valid, _offsets(content), pa.py_buffer(b"".join(content))])
    if pa.types.is_boolean(type):
        bits = pa.py_buffer(np.packbits(np.array(values, bool), bitorder="little"))  # None is False
        return pa.Array.from_buffers(type, len(values), [valid, bits])
    numbers = np.array([0 if value is None else value for value in values], type.to_pandas_dtype())
    return pa.Array.from_buffers(type, len(values), [valid, pa.py_buffer(numbers)])


def _flatten(values: Sequence[Any] | np.ndarray) -> tuple[pa.Buffer, list[Any]]:
    lists = [() if value is None else value for value in values]
    return _offsets(lists), list(chain.from_iterable(lists))


def _offsets(values: Sequence[Any]) -> pa.Buffer:
    """Where each value begins, and the end."""
    offsets = np.cumsum([0, *map(len, values)])
    if offsets[-1] > MAX_OFFSET:
        raise ValueError(f"{offsets[-1]:,} bytes or items are too many for one Arrow array")
    return pa.py_buffer(offsets.astype(np.int32))

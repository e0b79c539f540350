"""Rows of a table file as dicts: CSV, TSV, JSON lines, Parquet, Arrow."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medclip.data.paths import AnyPath
from medclip.errors import UserError

Row = dict[str, Any]
ROWS_AT_A_TIME = 256
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def read_rows(path: AnyPath) -> Iterator[Row]:
    """Every row of a table, in file order, as its suffix says.

    Texts such as "NA", "None" and "null" stay texts. Raises UserError for a file that is not whole, naming the row
    where that can be known.
    """
    return _READERS[path.suffix.lower()](path)


def count_rows(path: AnyPath) -> int | None:
    """Rows of a Parquet file, which may be fewer than its pairs; None for another table or where it cannot be read."""
    try:
        with _binary(path) as file:
            return int(pq.read_metadata(file).num_rows) if path.suffix.lower() == ".parquet" else None
    except (OSError, pa.ArrowException):
        return None


def _separated(path: AnyPath) -> Iterator[Row]:
    csv.field_size_limit(2**24)  # a radiology report can exceed the 128 kB that Python allows
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, delimiter=delimiter, strict=True)  # else a file cut in quotes looks whole
            for row in reader:
                if None in row:
                    raise UserError(f"{path} line {reader.line_num} has more cells than the header. Quote its commas.")
                yield row
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}). Convert it first.") from None
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num} is no CSV ({error}).") from None


def _json_lines(path: AnyPath) -> Iterator[Row]:
    with path.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path} line {number} is no JSON ({error}).") from None
            if not isinstance(row, dict):
                raise UserError(f"{path} line {number} is no JSON object.")
            yield row


def _json(path: AnyPath) -> Iterator[Row]:
    """One list of objects, or lines of them under this name, as the founding project wrote."""
    with path.open("rb") as handle:
        lines = not handle.readline().removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    if lines:
        yield from _json_lines(path)
        return
    try:
        rows = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is no JSON list ({error}).") from None
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path} is a list of something else than JSON objects.")
    yield from rows


def _parquet(path: AnyPath) -> Iterator[Row]:
    try:
        with _binary(path) as file, pq.ParquetFile(file) as table:
            for batch in table.iter_batches(ROWS_AT_A_TIME):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no whole Parquet file ({error}).") from None


def _arrow(path: AnyPath) -> Iterator[Row]:
    """An Arrow stream, as Hugging Face's `save_to_disk` writes it, or an Arrow file."""
    try:
        with _binary(path) as file:
            if file.read(6) == b"ARROW1":
                batches: Any = _batches(pa.ipc.open_file(file))
            else:
                # A stream that was cut between two batches reads as a shorter one, but for its end mark.
                file.seek(-len(_END_OF_STREAM), os.SEEK_END)
                if file.read() != _END_OF_STREAM:
                    raise pa.ArrowInvalid("its end is missing")
                file.seek(0)
                batches = pa.ipc.open_stream(file)
            for batch in batches:
                for first in range(0, len(batch), ROWS_AT_A_TIME):
                    yield from batch.slice(first, ROWS_AT_A_TIME).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no whole Arrow file ({error}). Fetch it again.") from None


def _batches(file: pa.ipc.RecordBatchFileReader) -> Iterator[pa.RecordBatch]:
    return (file.get_batch(number) for number in range(file.num_record_batches))


@contextmanager
def _binary(path: AnyPath) -> Iterator[Any]:
    with pa.OSFile(str(path)) if isinstance(path, Path) else path.open("rb") as handle:
        yield handle


_READERS = {
    ".csv": _separated,
    ".tsv": _separated,
    ".jsonl": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
TABLE_SUFFIXES = tuple(_READERS)

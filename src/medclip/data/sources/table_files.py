"""Rows of a table file as dicts: CSV, TSV, JSON lines, Parquet, Arrow."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import os
import re
import shlex
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medclip.atomic_io import unique_keys
from medclip.data.paths import AnyPath, is_url, special_kind
from medclip.data.sources.json_documents import document_rows
from medclip.data.sources.packed_tables import MAX_UNPACKED_ROW_BYTES, Reader, Row, read_packed
from medclip.data.unread_files import remedy_of_content
from medclip.errors import UserError

BATCH_ROWS, BATCH_BYTES = 256, 2**26
_READ_BYTES = 2**20
_MAX_HERE_BYTES = 2**26  # of a row, or of JSON that is read whole, in this process: its objects take 25 times as much
csv.field_size_limit(2**24)  # characters of a cell: a report can exceed the 128 kB that Python's csv allows
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_EXCEL_DELIMITER = re.compile(r"sep=([,;\t|])", re.IGNORECASE)
"""The line that Excel writes and reads before a table's header."""
_TEXT_FORMULA = re.compile(r'="((?:[^"]|"")*)"')
_LARGE_ROW = (
    "has more than {} MiB. Is a line break or a quotation mark missing? If not, leave out the columns that are no "
    "image and no caption."
)
_LARGE_UNPACKED_ROW = (
    "unpacks to more than {} MiB (a list of JSON is one row). If you trust it, unpack it and give what is inside."
)
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def read_rows(path: AnyPath) -> Iterator[Row]:
    """Every row of a table, in file order, in the format of its suffix.

    Texts such as "NA", "None" and "null" stay texts; cells that a row of a CSV file lacks at its end are None. Raises
    UserError for a damaged file, with the row where it is known, for a row above a bound, and for a packed or large
    file as of `read_packed`.
    """
    if kind := special_kind(path):
        raise UserError(f"{path} cannot be read: it is {kind}.")
    suffix = table_suffix(path)
    if suffix in _PACKED or path.name.lower().endswith(".gz"):
        return read_packed(read_here, path, is_mapped=suffix in _PACKED)
    return read_document(read_here, path) if suffix == ".json" else read_here(path)


def read_document(read: Reader, path: AnyPath) -> Iterator[Row]:
    """The rows that `read` makes of JSON that it reads whole: as `read_packed`, unless the file is here and small."""
    is_small = not is_url(path) and not (path.is_file() and path.stat().st_size > _MAX_HERE_BYTES)
    return read(path) if is_small else read_packed(read, path)


def read_here(path: AnyPath) -> Iterator[Row]:
    """The same, in this process: of a packed file only where its memory has an end."""
    return _READERS[table_suffix(path)](path)


def read_columns(path: AnyPath, names: Set[str]) -> Iterator[Row]:
    """Every row of a table, as `read_rows`. Raises UserError where one of the columns `names` is absent."""
    for row in read_rows(path):
        if missing := names - row.keys():
            raise UserError(f"{path} has no column {min(missing)!r}; it has: {', '.join(row)}.")
        yield row


def table_suffix(path: AnyPath) -> str:
    """The suffix of a table's format, in lower case; of x.csv.gz that before .gz."""
    name = path.name.lower()
    suffix = PurePosixPath(name).suffix
    inner = PurePosixPath(name.removesuffix(".gz")).suffix
    return inner if suffix == ".gz" and inner in _GZIPPED else suffix


class _TextBytes(io.RawIOBase):
    """The bytes of a table of text. UserError where one row takes more than a bound of them."""

    def __init__(self, file: Any, path: AnyPath, max_row_bytes: int | None, flaw: str):
        self._file, self._path, self._max_row_bytes, self._flaw = file, path, max_row_bytes, flaw
        self._num_rows = self._row_bytes = 0

    def start_row(self) -> None:
        """Count the bytes of another row."""
        self._num_rows, self._row_bytes = self._num_rows + 1, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        self._row_bytes += count
        if self._max_row_bytes is not None and self._row_bytes > self._max_row_bytes:
            raise UserError(f"{self._path} row {self._num_rows + 1:,} {self._flaw.format(self._max_row_bytes >> 20)}")
        return count


@contextmanager
def open_text_bytes(path: AnyPath, is_document: bool = False) -> Iterator[_TextBytes]:
    """The bytes of a table of text, without its compression.

    UserError where that is damaged, or a row is too large; one that is no `is_document`, unless it is compressed.
    """
    with path.open("rb") as file:
        if not path.name.lower().endswith(".gz"):
            yield _TextBytes(file, path, None if is_document else _MAX_HERE_BYTES, _LARGE_ROW)
            return
        try:
            with gzip.open(file) as unpacked:
                yield _TextBytes(unpacked, path, MAX_UNPACKED_ROW_BYTES, _LARGE_UNPACKED_ROW)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path} is not a complete gzip file ({error}). Fetch it again.") from None


def count_rows(path: AnyPath) -> int | None:
    """Rows of a Parquet file, which may hold several pairs each; None for other formats and unreadable files."""
    try:
        with _open_binary(path) as file:
            return int(pq.read_metadata(file).num_rows) if path.suffix.lower() == ".parquet" else None
    except (OSError, pa.ArrowException):
        return None


def _read_csv(path: AnyPath) -> Iterator[Row]:
    with open_text_bytes(path) as packed, io.BufferedReader(packed) as peeked:
        file, line_number = io.TextIOWrapper(peeked, encoding=_encoding(path, peeked), newline=""), 1
        try:
            skipped, header = next(((n, line) for n, line in enumerate(file) if line.strip()), (0, ""))
            delimiter = _delimiter(header, "\t" if table_suffix(path) == ".tsv" else ",")
            if stated := _EXCEL_DELIMITER.fullmatch(header.strip("\r\n")):
                skipped, header, delimiter = skipped + 1, file.readline(), stated.group(1)
            # strict, or a file that was cut within quotes looks complete
            reader = csv.DictReader(
                chain([header], file),
                delimiter=delimiter,
                skipinitialspace=_has_spaces(header, delimiter),
                strict=True,
            )
            _refuse_repeated(path, [name for name in reader.fieldnames or () if name.strip()])
            line_number = skipped + reader.line_num + 1
            for row in reader:
                packed.start_row()
                line_number = skipped + reader.line_num + 1
                if any(map(str.strip, row.pop(None, ()))):  # a spreadsheet writes empty ones
                    raise UserError(
                        f"{path} line {line_number - 1} has more cells than the header. Quote the cells that hold "
                        f"{_DELIMITERS.get(delimiter, delimiter)}, with no space before the quotation mark."
                    )
                yield {name: _without_formula(cell) for name, cell in row.items()}
        except UnicodeError as error:
            raise UserError(
                f"{path} is not UTF-8 ({error}). Save it as CSV UTF-8, or put in its place what this "
                f"makes, for example: iconv -f WINDOWS-1252 -t UTF-8 {shlex.quote(str(path))} >utf-8.csv"
            ) from None
        except csv.Error as error:
            remedy = 'A quote within quotes is doubled: "a ""small"" nodule".'
            raise UserError(f"{path} line {line_number} is not CSV ({error}). {remedy}") from None


def _without_formula(cell: Any) -> Any:
    """The text that a cell is for Excel: ="00123" keeps it from reading a number."""
    formula = _TEXT_FORMULA.fullmatch(cell) if isinstance(cell, str) and cell.startswith("=") else None
    return formula.group(1).replace('""', '"') if formula else cell


def _encoding(path: AnyPath, file: io.BufferedReader[Any]) -> str:
    """The encoding of a table of text that is at its start. UserError where it holds another format."""
    start = file.peek(64)[:64]
    if remedy := remedy_of_content(path.name, start):
        raise UserError(f"{path} cannot be read as {table_suffix(path)}. {remedy}")
    return text_encoding(start[:4])


def text_encoding(start: bytes) -> str:
    """The encoding of a text by its byte order mark, or as its first character, which is ASCII, lies in its bytes."""
    if start in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        return "utf-32"
    if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    zeros = [byte == 0 for byte in start]
    if zeros == [False, True, False, True]:
        return "utf-16-le"
    return "utf-16-be" if zeros == [True, False, True, False] else "utf-8-sig"


def _refuse_repeated(path: AnyPath, columns: Iterable[str]) -> None:
    """Refuse a table with two columns of one name, of which one would be lost."""
    if repeated := [name for name, count in Counter(columns).items() if count > 1]:
        raise UserError(f"{path} has several columns named {repeated[0]!r}. Rename all but one of them.")


def _delimiter(header: str, usual: str) -> str:
    """What separates the cells of a table's first line: the usual delimiter, unless another one makes more cells."""
    num_cells = {}
    for delimiter in (usual, *_DELIMITERS):
        try:
            num_cells.setdefault(delimiter, len(next(csv.reader([header], delimiter=delimiter, strict=True), ())))
        except csv.Error:  # a first line that ends within quotes
            num_cells[delimiter] = 0
    return max(num_cells, key=num_cells.__getitem__)  # the first of equals


def _has_spaces(header: str, delimiter: str) -> bool:
    """Whether a space stands before each cell of a table's first line but the first, and so before quotation marks."""
    cells = header.split(delimiter)[1:]
    return bool(cells) and all(cell.startswith(" ") for cell in cells)


@contextmanager
def _open_json(path: AnyPath, is_document: bool = False) -> Iterator[tuple[Any, _TextBytes]]:
    """A file of JSON, of bytes in UTF-8 or else of text, and its bytes as they are stored."""
    with open_text_bytes(path, is_document) as packed, io.BufferedReader(packed) as peeked:
        encoding = _encoding(path, peeked)
        try:
            yield peeked if encoding == "utf-8-sig" else io.TextIOWrapper(peeked, encoding, newline="\n"), packed
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not {encoding.upper()} as it begins ({error}). Fetch it again.") from None


def load_json(path: AnyPath) -> Any:
    """What a file of JSON holds, read whole. ValueError and RecursionError where it is damaged."""
    with _open_json(path, is_document=True) as (file, _):
        return json.loads(_decode_json(file.read()), object_pairs_hook=unique_keys)


def _decode_json(content: bytes | str) -> str:
    """As `json.loads` does, which would hold the bytes until all objects are made."""
    return content if isinstance(content, str) else content.decode(json.detect_encoding(content), "surrogatepass")


def _read_json_lines(path: AnyPath) -> Iterator[Row]:
    with _open_json(path) as (file, packed):
        for number, line in enumerate(file, start=1):
            packed.start_row()
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=unique_keys)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path} line {number} is not JSON ({error}).") from None
            if not isinstance(row, dict):
                raise UserError(f"{path} line {number} is not a JSON object.")
            yield row


def _read_json(path: AnyPath) -> Iterator[Row]:
    """A list of objects, one object (`document_rows`) or, as the founding project wrote them, JSON lines."""
    if _holds_lines(path):
        yield from _read_json_lines(path)
        return
    try:
        content = load_json(path)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a JSON list, one object or JSON lines ({error}).") from None
    if isinstance(content, dict):
        yield from document_rows(content)
        return
    if not isinstance(content, list):
        raise UserError(f"{path} is not a JSON list or object.")
    if not all(isinstance(row, dict) for row in content):
        raise UserError(f"{path} is a list, but not of JSON objects.")
    yield from content


def _holds_lines(path: AnyPath) -> bool:
    """Whether the first of several lines is an object."""
    with _open_json(path, is_document=True) as (file, _):
        lines = (line.encode() if isinstance(line, str) else line.removeprefix(codecs.BOM_UTF8) for line in file)
        first, second = (next(filter(None, map(bytes.strip, lines)), b"") for _ in range(2))
    try:
        return bool(second) and not first.startswith(b"[") and isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _read_parquet(path: AnyPath) -> Iterator[Row]:
    try:
        # of a file on this machine a row group, which can be larger than the memory, is read piece by piece
        buffer_size = 0 if is_url(path) else _READ_BYTES
        with _open_binary(path) as file, pq.ParquetFile(file, buffer_size=buffer_size) as table:
            _refuse_repeated(path, table.schema_arrow.names)
            groups = map(table.metadata.row_group, range(table.metadata.num_row_groups))
            row_bytes = max((group.total_byte_size // max(group.num_rows, 1) for group in groups), default=0)
            for batch in table.iter_batches(_batch_rows(row_bytes)):
                batch.validate(full=True)
                yield from _to_rows(batch)
    except MemoryError:  # also an ArrowException
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a complete Parquet file ({error}). Fetch it again.") from None


def _read_arrow(path: AnyPath) -> Iterator[Row]:
    """An Arrow stream, as Hugging Face's `save_to_disk` writes it, or an Arrow file."""
    try:
        with _open_binary(path) as file:
            for batch in _arrow_batches(file):
                _refuse_repeated(path, batch.schema.names)
                batch.validate(full=True)  # offsets that point elsewhere would end the process
                size = _batch_rows(batch.get_total_buffer_size() // max(len(batch), 1))
                for start in range(0, len(batch), size):
                    yield from _to_rows(batch.slice(start, size))
    except MemoryError:  # also an ArrowException
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a complete Arrow file ({error}). Fetch it again.") from None


def _batch_rows(row_bytes: int) -> int:
    """How many rows of that size are held as values of Python at a time."""
    return min(max(BATCH_BYTES // max(row_bytes, 1), 1), BATCH_ROWS)


def _to_rows(batch: pa.RecordBatch) -> list[Row]:
    """The rows of a batch; times that Python's own types cannot hold (nanoseconds, the year 12,000) as text."""
    try:
        return batch.to_pylist()
    except (ValueError, OverflowError, LookupError):  # the last of a time zone that is none
        columns = [c.cast(pa.string()) if pa.types.is_temporal(c.type) else c for c in batch.columns]
        try:
            return pa.record_batch(columns, names=batch.schema.names).to_pylist()
        except (ValueError, OverflowError, LookupError) as error:
            raise pa.ArrowInvalid(f"a value that Python cannot hold: {error}") from None


def _arrow_batches(file: Any) -> Iterable[pa.RecordBatch]:
    if file.read(6) == b"ARROW1":
        reader = pa.ipc.open_file(file)
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    # A stream cut between two batches reads as a shorter one; only its end mark tells.
    file.seek(-len(_END_OF_STREAM), os.SEEK_END)
    if file.read() != _END_OF_STREAM:
        raise pa.ArrowInvalid("its end is missing")
    file.seek(0)
    return pa.ipc.open_stream(file)


@contextmanager
def _open_binary(path: AnyPath) -> Iterator[Any]:
    with pa.memory_map(os.fsencode(path)) if isinstance(path, Path) else path.open("rb") as file:
        yield file


_READERS = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
}
TABLE_SUFFIXES = tuple(_READERS)
_PACKED = (".parquet", ".arrow")
_GZIPPED = (".csv", ".tsv", ".jsonl", ".json")

"""Reads pairs from a table: CSV, TSV, JSON lines or Parquet, with the columns named or found by their usual names."""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medclip.data.pairs import Dropped, Pair
from medclip.data.sources.columns import Columns, found_columns
from medclip.data.sources.known import known
from medclip.data.splits import split_of
from medclip.errors import UserError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
ROWS_AT_A_TIME = 256


def read_table(path: Path, columns: Columns) -> Iterator[Pair | Dropped]:
    """Every row of a table, in file order; a row with several captions yields one pair for each.

    Texts such as "NA", "None" and "null" stay texts. Raises UserError for a file that cannot be read as its suffix
    says, naming the row, and for a column that is not there.
    """
    rows = _READERS[path.suffix.lower()](path)
    for number, row in enumerate(rows, start=1):
        if number == 1:
            names = found_columns(path, list(row), columns)
        yield from _pairs(row, names, number, path)


def count_rows(path: Path) -> int | None:
    """Rows of a Parquet file, which may be fewer than its pairs; None where it cannot be read."""
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowInvalid):
        return None


def _pairs(row: Mapping[str, Any], names: Mapping[str, str], number: int, path: Path) -> Iterator[Pair | Dropped]:
    held = {what: row.get(name) for what, name in names.items()}
    id = str(held.get("id") or number)
    group = str(held.get("group") or "")
    image = _image(held["image"], path.parent)
    split = str(held.get("split") or split_of(group or str(held["image"] if isinstance(image, Path) else id)))
    captions = held["caption"] if isinstance(held["caption"], list) else [held["caption"]]
    if image is None or not any(captions):
        yield Dropped(id, split, "row without image or caption", f"{path.name} row {number}")
        return
    for place, caption in enumerate(captions):
        yield Pair(
            id=id if len(captions) == 1 else f"{id}-{place}",
            image=image,
            caption=_unwrapped(str(caption)) if names["image"] == "image_path" else str(caption),
            split=split,
            article=group or id,
            licence=str(held.get("licence") or ""),
            concepts=_several(held.get("concepts")),
            **{"source": path.stem} | known(row),
        )


def _image(value: Any, folder: Path) -> Path | bytes | None:
    """A path, bytes, or the {"bytes", "path"} in which Hugging Face keeps either."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value or None
    if not value:
        return None
    path = folder / str(value)
    return path if path.is_file() or not (folder / "images" / str(value)).is_file() else folder / "images" / str(value)


def _several(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(value.replace(";", " ").replace(",", " ").split())
    return tuple(map(str, value or ()))


def _unwrapped(caption: str) -> str:
    """A caption that the founding project wrote as the text of Python bytes (`b' axial …'`), as it was before."""
    if caption[:2] not in ("b'", 'b"') or caption[-1:] != caption[1]:
        return caption
    try:
        return ast.literal_eval(caption).decode()
    except (ValueError, SyntaxError):
        return caption


def _separated(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(2**24)  # a radiology report can exceed the 128 kB that Python allows
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            for row in reader:
                if None in row:
                    raise UserError(f"{path} line {reader.line_num} has more cells than the header. Quote its commas.")
                yield row
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}). Convert it first.") from None
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num} is no CSV ({error}).") from None


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
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


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS_AT_A_TIME):
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is no whole Parquet file ({error}).") from None


_READERS = {
    ".csv": _separated,
    ".tsv": _separated,
    ".jsonl": _json_lines,
    ".json": _json_lines,
    ".parquet": _parquet,
}

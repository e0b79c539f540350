"""The files of a prepared dataset: what a row holds, written whole and opened through a memory map."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from medclip.atomic_io import whole_file
from medclip.data.arrow_columns import to_array
from medclip.data.checked_files import DamageError, columns_crc32, open_table
from medclip.errors import UserError

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("caption", pa.string()),
        ("caption_original", pa.string()),
        ("caption_rules", pa.list_(pa.string())),
        ("article", pa.string()),
        ("license", pa.string()),
        ("attribution", pa.string()),
        ("concepts", pa.list_(pa.string())),
        ("keywords", pa.list_(pa.string())),
        ("semantic_types", pa.list_(pa.string())),
        ("labels", pa.map_(pa.string(), pa.string())),
        ("source", pa.string()),
        ("sha256", pa.string()),
    ]
)


def write_shard(path: Path, rows: Sequence[dict[str, Any]], report: dict[str, Any]) -> None:
    """Write rows as one Arrow file; see `write_table`."""
    arrays = [to_array([row.get(field.name) for row in rows], field.type) for field in SCHEMA]
    write_table(path, pa.Table.from_arrays(arrays, schema=SCHEMA), report)


def write_table(path: Path, table: pa.Table, report: dict[str, Any]) -> None:
    """Write one Arrow file atomically; `report` (JSON) travels in its schema, so that a shard explains itself."""
    write_arrow(path, table.replace_schema_metadata({"medclip": json.dumps(report)}))


def write_arrow(path: Path, table: pa.Table) -> None:
    """Write a table as an Arrow IPC file, atomically."""
    write_batches(path, table.schema, table.to_batches())


def write_batches(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write batches, which need not all be in memory, as an Arrow IPC file, atomically."""
    with (
        whole_file(path) as partial,
        pa.OSFile(os.fsencode(partial), "wb") as sink,
        pa.ipc.new_file(sink, schema) as out,
    ):
        for batch in batches:
            out.write_batch(batch)


def shard_report(path: Path) -> dict[str, Any] | None:
    """The report inside a shard, or None where there is no whole shard."""
    try:
        return json.loads((open_table(path, SCHEMA).schema.metadata or {})[b"medclip"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def open_shard(path: Path, num_pairs: int | None = None, crc32: int | None = None) -> pa.Table:
    """The rows of one shard, memory-mapped and checked; images, which have hashes, where they are read.

    UserError where it is absent, damaged, of another length or of another `columns_crc32`.
    """
    try:
        table = open_table(path, SCHEMA, num_pairs)
        if crc32 is not None and columns_crc32(table) != crc32:
            raise DamageError("is not as it was written")
        return table
    except FileNotFoundError:
        raise UserError(f"{path} is listed in dataset.json but absent. Prepare the dataset again.") from None
    except DamageError as error:
        raise UserError(f"{path} {error}. Prepare the dataset again.") from None

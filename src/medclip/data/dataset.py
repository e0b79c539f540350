"""The prepared form: Arrow IPC shards, written whole and read through a memory map."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from medclip.atomic_io import read_json, whole_file
from medclip.data.images import decode_ahead
from medclip.data.paths import AnyPath, is_url
from medclip.data.perceptual_hash import Fingerprints, fingerprint
from medclip.data.remote_cache import fetch, mirror
from medclip.errors import UserError
from medclip.progress import progress

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
    made = pa.scalar(rows, pa.list_(pa.struct(list(SCHEMA)))).values  # six times as fast as Table.from_pylist
    write_table(path, pa.Table.from_struct_array(made), report)


def write_table(path: Path, table: pa.Table, report: dict[str, Any]) -> None:
    """Write one Arrow file atomically; `report` (JSON) travels in its schema, so that a shard explains itself."""
    write_arrow(path, table.replace_schema_metadata({"medclip": json.dumps(report)}))


def write_arrow(path: Path, table: pa.Table) -> None:
    """Write a table as an Arrow IPC file, atomically."""
    write_batches(path, table.schema, table.to_batches())


def write_batches(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write an Arrow IPC file, atomically, of batches that need not all be in memory."""
    with whole_file(path) as partial, pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, schema) as out:
        for batch in batches:
            out.write_batch(batch)


def shard_report(path: Path) -> dict[str, Any] | None:
    """The report inside a shard, or None where there is no whole shard."""
    try:
        with pa.memory_map(str(path)) as source:
            return json.loads(pa.ipc.open_file(source).schema.metadata[b"medclip"])
    except (FileNotFoundError, pa.ArrowInvalid, KeyError, TypeError):
        return None


def read_dataset(data: AnyPath) -> dict[str, Any]:
    """What `dataset.json` says. UserError where `data` is no prepared dataset."""
    folder = mirror(data) if is_url(data) else data
    said = read_json(folder / "dataset.json", "a prepared dataset (see medclip prepare)")
    if not isinstance(said, dict) or not isinstance(said.get("splits"), dict):
        raise UserError(f"{folder / 'dataset.json'} lists no splits: it was not written by medclip prepare.")
    return said


class Split:
    """The rows of one split, memory-mapped: random access without reading the rest."""

    def __init__(self, data: AnyPath, name: str, limit: int | None = None):
        """Open split `name` of a dataset; one behind a URL is copied to this machine first, if it is not yet there.

        UserError names what is missing or empty.
        """
        self.name, self.folder = name, mirror(data) if is_url(data) else data
        self.dataset = read_dataset(self.folder)
        splits = self.dataset["splits"]
        if name not in splits:
            raise UserError(f"{data} has no split {name!r}; it has: {', '.join(splits) or 'none'}.")
        files = [shard["file"] for shard in splits[name]["shards"]]
        if is_url(data):
            fetch(data, self.folder, files)
        tables = [open_shard(self.folder / file) for file in files]
        self.table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
        self.table = self.table.slice(0, limit) if limit is not None else self.table
        if not len(self.table):
            why = self.dataset["dropped"].get(name, {})
            raise UserError(f"split {name!r} of {data} is empty; rows dropped by reason: {why or 'none listed'}.")

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.table)

    def column(self, name: str) -> list[Any]:
        """One column as Python values, in row order: for splits of which every value fits in memory."""
        return self.table.column(name).to_pylist()

    def each(self, name: str) -> Iterator[Any]:
        """The values of a column one after another, a shard of them in memory at a time."""
        for chunk in self.table.column(name).chunks:
            yield from chunk.to_pylist()

    def values(self, name: str, rows: Iterable[int]) -> list[Any]:
        """The values of a column at those rows; the work is theirs alone, whatever the length of the split."""
        column = self.table.column(name)  # its own take() copies the whole column, and fails beyond 2 GB
        return [column[int(row)].as_py() for row in rows]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every image and caption in order: what a run remembers its data by.

        It is that of `[[sha256, …], [caption, …]]` as JSON, however the rows lie in shards.
        """
        said = hashlib.sha256()
        for name, start, end in (("sha256", b"[[", b"], "), ("caption", b"[", b"]]")):
            said.update(start)
            chunks = [chunk for chunk in self.table.column(name).chunks if len(chunk)]
            for i, chunk in enumerate(chunks):
                said.update((b", " if i else b"") + json.dumps(chunk.to_pylist())[1:-1].encode())
            said.update(end)
        return said.hexdigest()

    @cached_property
    def sketches(self) -> Fingerprints:
        """What every image looks like, for `likeness.alike`: each is decoded once."""
        made = []
        with progress(f"compare {self.name}", len(self), "pairs") as advance:
            for batch in decode_ahead(lambda row: fingerprint(self.image(row)), range(len(self)), 256):
                made += batch
                advance(len(batch))
        return Fingerprints(*(np.stack(part) for part in zip(*made, strict=True)))

    def image(self, row: int) -> bytes:
        """The encoded image of a row."""
        return self.table.column("image")[row].as_py()


def open_shard(path: Path) -> pa.Table:
    """The rows of one shard, memory-mapped. UserError where it is absent or no whole file."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except FileNotFoundError:
        raise UserError(f"{path} is listed in dataset.json but absent. Prepare the dataset again.") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is no whole Arrow file ({error}). Prepare the dataset again.") from None


def default_split(data: AnyPath) -> str:
    """The validation split, or the only one: what `--split` means when it is left out."""
    splits = read_dataset(data)["splits"]
    if "validation" in splits:
        return "validation"
    if len(splits) == 1:
        return next(iter(splits))
    raise UserError(f"{data} has the splits {', '.join(splits)}: say which with --split.")

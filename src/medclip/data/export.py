"""Exchange forms of a prepared dataset: Parquet for `datasets`, polars and DuckDB, or WebDataset archives.

Files are named as the Hub expects, DIR/data/SPLIT-00000-of-00001.parquet (or .tar); `medclip prepare DIR` reads them.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from medclip import __version__
from medclip.atomic_io import sha256, whole_file, write_with_checksum
from medclip.data.dataset import dataset_shards, read_dataset, recorded_crc32
from medclip.data.paths import AnyPath
from medclip.data.resume import ResumableFile, file_state, fingerprint, finish, remove_stale
from medclip.data.shards import SCHEMA, open_shard
from medclip.errors import WorkError
from medclip.folder_locks import claim
from medclip.progress import progress
from medclip.recorded_files import EXPORT_FILE
from medclip.versions import library_versions

Form = Literal["parquet", "tar"]
FILE_BYTES = 2**28  # what object stores and the Hub like; shards of Arrow are smaller, so that a kill costs little
ROW_GROUP = 128  # images that a reader of Parquet must load to see one


def export_data(data: AnyPath, out: Path, form: Form) -> dict[str, int]:
    """Write every split of `data` to `out/data`, which appears when it is whole; returns the files of each split.

    The same data make the same bytes. The same call again keeps the files that a killed one had finished. UserError
    where `data` is not a prepared dataset or `out` holds one already, WorkError where its disk has no room.
    """
    dataset = read_dataset(data)
    pairs = {split: entry["pairs"] for split, entry in dataset["splits"].items()}
    with claim(out, "data", ".data.unfinished"):
        return _export(data, dataset, pairs, out, form)


def _export(data: AnyPath, dataset: dict[str, Any], pairs: dict[str, int], out: Path, form: Form) -> dict[str, int]:
    unfinished = out / ".data.unfinished"
    if (out / "data").exists():  # a call was killed in its last step
        (out / "data").replace(unfinished)
    names: dict[str, list[str]] = {}
    shards_by_split = dataset_shards(data)
    _check_room(out, unfinished, list(chain.from_iterable(shards_by_split.values())))
    with progress("export", sum(pairs.values()), "pairs") as advance:
        for split, rows in shards_by_split.items():
            groups, first = _groups(list(rows)), 0
            names[split] = [f"{split}-{number:05d}-of-{len(groups):05d}.{form}" for number in range(len(groups))]
            for name, shards in zip(names[split], groups, strict=True):
                states = [(shard.name, file_state(shard)) for shard in shards]
                file = ResumableFile(unfinished / name, fingerprint(library_versions("pyarrow"), first, states))
                tables = [open_shard(shard, rows[shard], crc32=recorded_crc32(dataset, shard)) for shard in shards]
                if not file.is_complete:
                    with file.rewrite(), whole_file(file.path) as partial:
                        _WRITERS[form](partial, tables, split, first)
                size = sum(map(len, tables))
                first += size
                advance(size)
    remove_stale(unfinished, chain.from_iterable(names.values()))
    files = {split: len(of_split) for split, of_split in names.items()}
    facts = ("source", "synthetic", "notice", "shorter_side", "dropped")
    origin = {name: dataset[name] for name in facts if name in dataset}
    hashes = {f"data/{name}": sha256(unfinished / name) for name in chain.from_iterable(names.values())}
    write_with_checksum(
        out / EXPORT_FILE,
        {"medclip_version": __version__, "form": form, "pairs": pairs, "files": files, **origin, "sha256": hashes},
    )
    unfinished.replace(out / "data")
    finish(out / "data")
    return files


def _check_room(out: Path, unfinished: Path, shards: Sequence[Path]) -> None:
    """WorkError where the disk of `out` has no room for what is not exported yet; images are most of it in any form."""
    done = sum(path.stat().st_size for path in unfinished.glob("*") if path.is_file())
    size, room = sum(shard.stat().st_size for shard in shards) - done, shutil.disk_usage(out).free
    if size > room:
        raise WorkError(
            f"--out {out}: the export takes about {size / 1e6:,.1f} MB more, and its disk has {room / 1e6:,.1f} MB "
            "left. Choose a folder on another disk."
        )


def _groups(shards: Sequence[Path]) -> list[list[Path]]:
    """Shards in their order, grouped into output files of about FILE_BYTES."""
    groups: list[list[Path]] = []
    bytes_left = 0
    for shard in shards:
        if bytes_left <= 0:
            groups.append([])
            bytes_left = FILE_BYTES
        groups[-1].append(shard)
        bytes_left -= shard.stat().st_size
    return groups


def _write_parquet(path: Path, tables: Sequence[pa.Table], split: str, first: int) -> None:
    schema = _PARQUET.with_metadata(huggingface_metadata(_PARQUET))
    # Statistics and dictionaries of images would hold the images.
    with path.open("wb") as file, pq.ParquetWriter(file, schema, use_dictionary=False, write_statistics=False) as out:
        for table in tables:
            columns = [exchange_column(table.column(field.name).combine_chunks(), first) for field in SCHEMA]
            columns.append(pa.array([split] * len(table), pa.string()))
            out.write_table(pa.Table.from_arrays(columns, schema=schema), ROW_GROUP)
            first += len(table)


def _write_tar(path: Path, tables: Sequence[pa.Table], split: str, first: int) -> None:
    batches = chain.from_iterable(table.to_batches(ROW_GROUP) for table in tables)
    rows = chain.from_iterable(batch.to_pylist() for batch in batches)
    with tarfile.open(path, "w") as out:
        for number, row in enumerate(rows, first):
            image = row.pop("image")
            text = json.dumps(row | {"split": split, "labels": dict(row["labels"])}, ensure_ascii=False)
            for suffix, content in (("jpg", image), ("txt", row["caption"].encode()), ("json", text.encode())):
                member = tarfile.TarInfo(f"{_key(number)}.{suffix}")  # its owner is nobody, its time 1970
                member.size = len(content)
                out.addfile(member, io.BytesIO(content))


_WRITERS = {"parquet": _write_parquet, "tar": _write_tar}


def _key(number: int) -> str:
    """The name of a pair in its split; ids may hold dots and slashes, which mean something in an archive."""
    return f"{number:09d}"


def exchange_type(field: pa.Field) -> pa.DataType:
    """`datasets` knows images as bytes beside a name, and no maps."""
    if field.name == "image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    if pa.types.is_map(field.type):
        return pa.list_(pa.struct([("name", field.type.key_type), ("value", field.type.item_type)]))
    return field.type


_PARQUET = pa.schema([*((field.name, exchange_type(field)) for field in SCHEMA), ("split", pa.string())])


def exchange_column(array: pa.Array, first: int) -> pa.Array:
    """A column in its `exchange_type`; images are named by their number, from `first` on."""
    if pa.types.is_binary(array.type):
        names = pa.array([f"{_key(first + row)}.jpg" for row in range(len(array))], pa.string())
        return pa.StructArray.from_arrays([array, names], ["bytes", "path"])
    if pa.types.is_map(array.type):
        entries = pa.StructArray.from_arrays([array.keys, array.items], ["name", "value"])
        return pa.ListArray.from_arrays(array.offsets, entries)
    return array


def huggingface_metadata(schema: pa.Schema) -> dict[str, str]:
    """What a Parquet file says to `datasets`: which type each column has."""
    return {"huggingface": json.dumps({"info": {"features": {field.name: _feature(field.type) for field in schema}}})}


def _feature(dtype: pa.DataType) -> Any:
    """A type as `datasets` writes it; lists in the spelling that its versions from 2 to 5 read."""
    if pa.types.is_list(dtype):
        return [_feature(dtype.value_type)]
    if pa.types.is_struct(dtype):
        names = [field.name for field in dtype]
        return {"_type": "Image"} if names == ["bytes", "path"] else {f.name: _feature(f.type) for f in dtype}
    return {"dtype": str(dtype), "_type": "Value"}

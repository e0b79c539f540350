"""A prepared dataset in the forms that others read: Parquet for `datasets`, polars and DuckDB, or WebDataset archives.

Both lie as the Hub expects a dataset, DIR/data/SPLIT-00000-of-00001.parquet (or .tar), and `medclip prepare DIR` reads
them back.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from medclip import __version__
from medclip.atomic_io import claim, whole_file, write_json
from medclip.data.dataset import SCHEMA, open_shard, read_dataset
from medclip.progress import progress

Form = Literal["parquet", "tar"]
FILE_BYTES = 2**28  # what object stores and the Hub like; shards of Arrow are smaller, so that a kill costs little
ROW_GROUP = 128  # images that a reader of Parquet must load to see one
Rows = Callable[[], Iterator[pa.Table]]


def export_data(data: Path, out: Path, form: Form) -> dict[str, int]:
    """Write every split of `data` to `out/data`, which is there only when it is whole; files of each split.

    The same data make the same bytes. UserError where `data` is no prepared dataset or `out` holds one already.
    """
    about = read_dataset(data)
    claim(out, "data")
    unfinished = out / ".data.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    files = {}
    with progress("export", sum(said["pairs"] for said in about["splits"].values()), "pairs") as advance:
        for split, said in about["splits"].items():
            groups, first = _groups([data / shard["file"] for shard in said["shards"]]), 0
            for number, shards in enumerate(groups):
                name = f"{split}-{number:05d}-of-{len(groups):05d}.{form}"
                with whole_file(unfinished / name) as partial:
                    first = _WRITERS[form](partial, shards, split, first, advance)
            files[split] = len(groups)
    kept = {name: about[name] for name in ("source", "synthetic", "notice", "shorter_side", "dropped")}
    pairs = {split: said["pairs"] for split, said in about["splits"].items()}
    write_json(out / "export.json", {"medclip": __version__, "form": form, "pairs": pairs, "files": files, **kept})
    unfinished.replace(out / "data")
    return files


def _groups(shards: Sequence[Path]) -> list[list[Path]]:
    """Shards in their order, as many together as a file of the exchange form takes."""
    groups: list[list[Path]] = []
    room = 0
    for shard in shards:
        if room <= 0:
            groups.append([])
            room = FILE_BYTES
        groups[-1].append(shard)
        room -= shard.stat().st_size
    return groups


def _write_parquet(path: Path, shards: Sequence[Path], split: str, first: int, advance: Callable[[int], None]) -> int:
    said = {"info": {"features": {field.name: _feature(field.type) for field in _PARQUET}}}
    schema = _PARQUET.with_metadata({"huggingface": json.dumps(said)})
    # Statistics and dictionaries of images would hold the images.
    with pq.ParquetWriter(path, schema, use_dictionary=False, write_statistics=False) as out:
        for shard in shards:
            table = open_shard(shard)
            columns = [_plain(table.column(field.name).combine_chunks(), first) for field in SCHEMA]
            columns.append(pa.array([split] * len(table), pa.string()))
            out.write_table(pa.Table.from_arrays(columns, schema=schema), ROW_GROUP)
            first += len(table)
            advance(len(table))
    return first


def _write_tar(path: Path, shards: Sequence[Path], split: str, first: int, advance: Callable[[int], None]) -> int:
    with tarfile.open(path, "w") as out:
        for shard in shards:
            for batch in open_shard(shard).to_batches(ROW_GROUP):
                for number, row in enumerate(batch.to_pylist(), first):
                    image = row.pop("image")
                    said = row | {"split": split, "labels": dict(row["labels"])}
                    text = json.dumps(said, ensure_ascii=False)
                    for suffix, data in (("jpg", image), ("txt", row["caption"].encode()), ("json", text.encode())):
                        about = tarfile.TarInfo(f"{_key(number)}.{suffix}")  # its owner is nobody, its time 1970
                        about.size = len(data)
                        out.addfile(about, io.BytesIO(data))
                first += len(batch)
                advance(len(batch))
    return first


_WRITERS = {"parquet": _write_parquet, "tar": _write_tar}


def _key(number: int) -> str:
    """What names a pair in its split; an id may hold the dots and slashes that mean something in an archive."""
    return f"{number:09d}"


def _plain_type(field: pa.Field) -> pa.DataType:
    """`datasets` knows images as bytes beside a name, and no maps."""
    if field.name == "image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    if pa.types.is_map(field.type):
        return pa.list_(pa.struct([("name", field.type.key_type), ("value", field.type.item_type)]))
    return field.type


_PARQUET = pa.schema([*((field.name, _plain_type(field)) for field in SCHEMA), ("split", pa.string())])


def _plain(array: pa.Array, first: int) -> pa.Array:
    """A column as `_plain_type` says; images are named by their number, from `first` on."""
    if pa.types.is_binary(array.type):
        names = pa.array([f"{_key(first + row)}.jpg" for row in range(len(array))], pa.string())
        return pa.StructArray.from_arrays([array, names], ["bytes", "path"])
    if pa.types.is_map(array.type):
        named = pa.StructArray.from_arrays([array.keys, array.items], ["name", "value"])
        return pa.ListArray.from_arrays(array.offsets, named)
    return array


def _feature(kind: pa.DataType) -> Any:
    """A type as `datasets` writes it; lists in the spelling that its versions from 2 to 5 read."""
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        return {"_type": "Image"} if names == ["bytes", "path"] else {f.name: _feature(f.type) for f in kind}
    return {"dtype": str(kind), "_type": "Value"}

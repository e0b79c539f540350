"""A prepared dataset as it is read: its manifest, and the rows of a split, through a memory map of their shards.

A dataset behind a URL is copied to this machine once, as only a file on a disk can be memory-mapped; where it has no
room, the images stay behind the URL.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int32, Int64

from medclip.atomic_io import check_as_written, file_name, read_object, whole_file
from medclip.bounded_files import read_bounded
from medclip.data.images import decode_ahead
from medclip.data.normalize import HASHED_SPLITS, casefold_whitespace
from medclip.data.paths import AnyPath, is_url, offline_remark, storage_errors
from medclip.data.perceptual_hash import Fingerprints, fingerprint
from medclip.data.remote_shards import RemoteImages, check_room, copy_columns, copy_shards, have_room
from medclip.data.shards import SCHEMA, open_shard
from medclip.errors import ImageError, UserError, WorkError
from medclip.folder_locks import LOCK_WAIT_S, lock_folder
from medclip.progress import progress
from medclip.user_folders import cache_folder

T = TypeVar("T")
MAX_MANIFEST_BYTES = 2**26  # of ten million pairs in shards of a thousand it has a few million
SPLIT_NAME = r"\w[\w.-]{0,63}"
"""A regular expression, as splits name files."""
_KIND = "a prepared dataset (medclip prepare SOURCE --out DATA makes one)"
_RESPLIT = (
    " medclip prepare SOURCE --resplit gives a tenth of the articles or patients to validation, and the others "
    "to train."
)


def read_dataset(data: AnyPath) -> dict[str, Any]:
    """The content of `dataset.json`. UserError where `data` is not a prepared dataset."""
    path = local_folder(data) / "dataset.json"
    dataset = read_object(path, _KIND)
    if not isinstance(splits := dataset.get("splits"), dict):
        raise UserError(f"{path} lists no splits: it was not written by medclip prepare.")
    for name, split in splits.items():
        shards = split.get("shards") if isinstance(split, dict) else None
        if not isinstance(shards, list) or not all(isinstance(shard, dict) for shard in shards):
            raise UserError(f"{path} lists no shards of split {name[:80]!r}: it was not written by medclip prepare.")
        file_name(name, f"{path}: the name of a split", SPLIT_NAME)
        for shard in shards:
            file_name(shard.get("file"), f"{path}: the file of a shard", rf"{re.escape(name)}-[0-9]{{5,}}\.arrow")
    for name, is_right in _FIELDS.items():
        if not is_right(dataset):
            raise UserError(f"{path}: {name} is absent or of a wrong type: it was not written by medclip prepare.")
    check_as_written(path, dataset)
    return dataset


def split_names(data: AnyPath) -> list[str]:
    """`nonempty_splits` of the dataset `data`. Errors as of `read_dataset`."""
    return nonempty_splits(read_dataset(data))


def nonempty_splits(dataset: Mapping[str, Any]) -> list[str]:
    """The splits of a `dataset.json` that hold pairs: of another every row was dropped."""
    return [name for name, split in dataset["splits"].items() if split["pairs"]]


def _are_counts_of_splits(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_are_counts, value.values()))


def _are_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(type(count) is int for count in value.values())


_FIELDS: Mapping[str, Callable[[dict[str, Any]], bool]] = {
    "source": lambda dataset: isinstance(dataset.get("source"), str),
    "synthetic": lambda dataset: isinstance(dataset.get("synthetic"), bool),
    "the pairs of a split or shard": lambda dataset: all(
        type(part.get("pairs")) is int and part["pairs"] >= 0
        for split in dataset["splits"].values()
        for part in (split, *split["shards"])
    ),
    "dropped": lambda dataset: _are_counts_of_splits(dataset.get("dropped")),
    "privacy": lambda dataset: _are_counts_of_splits(dataset.get("privacy", {})),
    "caption_rules": lambda dataset: _are_counts_of_splits(dataset.get("caption_rules", {})),
    "crc32": lambda dataset: _are_counts(dataset.get("crc32", {})),
}
"""What commands read of a manifest beside the names of its shards."""


def is_prepared(data: AnyPath) -> bool:
    """Whether `data` holds a `dataset.json`, which is not read. WorkError where a URL cannot be reached."""
    with storage_errors(data) if is_url(data) else nullcontext():
        return (data / "dataset.json").is_file()


def local_folder(data: AnyPath) -> Path:
    """The folder of a dataset on this machine; of one behind a URL, its cache folder with `dataset.json`.

    The cache lies below `$XDG_CACHE_HOME/medclip/data` (`~/.cache/medclip/data`), by URL and content of `dataset.json`,
    which is read anew each time: a dataset that was prepared again gets another folder. UserError where the URL has no
    dataset or this user no cache folder, WorkError where the URL cannot be reached.
    """
    if not is_url(data):
        return data
    try:
        with storage_errors(data, pass_through=(FileNotFoundError,)):
            content = read_bounded(data / "dataset.json", MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        remark = offline_remark(data)
        raise UserError(f"{data} is not {_KIND}: it has no dataset.json.{remark}") from None
    name = f"{data.name}-{hashlib.sha256(str(data).encode() + content).hexdigest()[:16]}"
    if (cache := cache_folder()) is None:
        raise UserError(f"{data} is copied to this machine, but this user has no home folder: set XDG_CACHE_HOME.")
    folder = cache / "data" / name
    if not (folder / "dataset.json").exists():
        with lock_folder(folder, wait_s=LOCK_WAIT_S), whole_file(folder / "dataset.json") as partial:
            partial.write_bytes(content)
    return folder


def dataset_shards(data: AnyPath) -> dict[str, dict[Path, int]]:
    """The shards of each split with their numbers of pairs, copied to this machine where they are behind a URL.

    UserError where the dataset does not exist or has no room here, WorkError where the URL cannot be reached.
    """
    folder = local_folder(data)
    dataset = read_dataset(folder)
    shards = {name: _list_shards(data, folder, dataset, name) for name in dataset["splits"]}
    if is_url(data):
        files = list(chain.from_iterable(shards.values()))
        check_room(data, files)
        copy_shards(data, files)
    return shards


def _list_shards(data: AnyPath, folder: Path, dataset: Mapping[str, Any], name: str) -> dict[Path, int]:
    splits = dataset["splits"]
    if name not in splits:
        remedy = _RESPLIT if name in HASHED_SPLITS else ""
        raise UserError(f"{data} has no split {name!r}; it has: {', '.join(splits) or 'none'}.{remedy}")
    try:
        return {folder / shard["file"]: int(shard["pairs"]) for shard in splits[name]["shards"]}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{data}/dataset.json is damaged: split {name!r} lists no shards ({error!r}).") from None


def _shards_of(shards: Mapping[Path, int], first: int, max_samples: int | None) -> tuple[dict[Path, int], int]:
    """The shards that hold any of those rows, and the position of row `first` in the first of them."""
    starts = dict(zip(shards, accumulate(shards.values(), initial=0), strict=False))
    stop = sum(shards.values()) if max_samples is None else first + max_samples
    chosen = {shard: n for shard, n in shards.items() if starts[shard] + n > first and starts[shard] < stop}
    return chosen, first - starts[next(iter(chosen))] if chosen else 0


class Split:
    """The rows of one split, memory-mapped: random access without reading the rest."""

    table: pa.Table
    """The rows. Images that stay behind a URL are no column of it: see `image` and `iter_batches`."""

    def __init__(self, data: AnyPath, name: str, max_samples: int | None = None, first: int = 0):
        """Open split `name` of a dataset, or `max_samples` rows of it from row `first` on, whose shards alone are read.

        UserError names what is missing or empty.
        """
        self.name, self.folder = name, local_folder(data)
        self.dataset = read_dataset(self.folder)
        all_shards = _list_shards(data, self.folder, self.dataset, name)
        shards, start = _shards_of(all_shards, first, max_samples)
        files, self._remote = list(shards), None
        if is_url(data):
            if have_room(data, list(all_shards)):
                copy_shards(data, files)
            else:
                files = copy_columns(data, files)
        tables = [
            open_shard(file, num_pairs, crc32=recorded_crc32(self.dataset, shard))
            for file, (shard, num_pairs) in zip(files, shards.items(), strict=True)
        ]
        self.table = (pa.concat_tables(tables) if tables else SCHEMA.empty_table()).slice(start, max_samples)
        if is_url(data) and files != list(shards):
            stored = [data / shard.name for shard in shards]
            self._remote = RemoteImages(dict(zip(stored, files, strict=True)), self.table.column("sha256"), start)
            self.table = self.table.drop_columns(["image"])
        if not len(self.table):
            reasons = self.dataset["dropped"].get(name, {})
            raise UserError(f"split {name!r} of {data} is empty; rows dropped by reason: {reasons or 'none listed'}.")

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.table)

    def column(self, name: str) -> list[Any]:
        """One column as Python values, in row order: for splits of which every value fits in memory."""
        return self.table.column(name).to_pylist()

    def iter_column(self, name: str) -> Iterator[Any]:
        """The values of a column in row order, with one shard of them in memory at a time."""
        for chunk in self.table.column(name).chunks:
            yield from chunk.to_pylist()

    def take(self, name: str, rows: Iterable[int]) -> list[Any]:
        """The values of a column at these rows, in time that does not grow with the split."""
        column = self.table.column(name)  # its own take() copies the whole column, and fails beyond 2 GB
        return [column[int(row)].as_py() for row in rows]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every image and caption in order: what runs and indexes record of their data.

        It is that of `[[sha256, …], [caption, …]]` as JSON, however the rows lie in shards.
        """
        digest = hashlib.sha256()
        for name, start, end in (("sha256", b"[[", b"], "), ("caption", b"[", b"]]")):
            digest.update(start)
            chunks = [chunk for chunk in self.table.column(name).chunks if len(chunk)]
            for i, chunk in enumerate(chunks):
                digest.update((b", " if i else b"") + json.dumps(chunk.to_pylist())[1:-1].encode())
            digest.update(end)
        return digest.hexdigest()

    @cached_property
    def duplicate_ids(self) -> tuple[Int32[np.ndarray, " n"], Int32[np.ndarray, " n"]]:
        """`duplicate_ids` of the rows."""
        return duplicate_ids(self.iter_column("sha256"), self.iter_column("caption"))

    @cached_property
    def distinct_rows(self) -> Int64[np.ndarray, " d"]:
        """The first row of each image, ascending."""
        return np.unique(self.duplicate_ids[0], return_index=True)[1]

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """The fingerprint of each of `distinct_rows`, for `near_duplicates`."""
        rows, done = self.distinct_rows, 0
        fingerprints = Fingerprints.empty(len(rows))
        with progress(f"compare {self.name}", len(rows), "images") as advance:
            for batch in self.iter_fingerprints(rows.tolist(), 256):
                filled = slice(done, done := done + len(batch))
                fingerprints.hashes[filled], fingerprints.thumbnails[filled] = zip(*batch, strict=True)
                advance(len(batch))
        return fingerprints

    def image(self, row: int) -> bytes:
        """The encoded image of a row. WorkError where it is behind a URL and cannot be reached, or was changed."""
        if self._remote is not None:
            return self._remote.read(row)
        image = self.table.column("image")[row].as_py()
        if hashlib.sha256(image).hexdigest() != self.table.column("sha256")[row].as_py():
            raise self._damage_error(row, "is not the one that was written")  # it may well be decoded, to other pixels
        return image

    def iter_images(self, rows: Iterable[int]) -> Iterator[bytes]:
        """The encoded images of rows, of those behind a URL a shard at a time; errors as of `image`."""
        return map(self.image, rows) if self._remote is None else self._remote.stream(rows)

    def iter_batches(
        self, columns: Sequence[str] = SCHEMA.names, mask: Bool[np.ndarray, " n"] | None = None, size: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a mask, or all, in batches of at most `size` before the mask; errors as of `image`."""
        table = self.table.select([name for name in columns if name in self.table.column_names])
        schema = pa.schema(map(SCHEMA.field, columns))
        rows = range(len(self)) if mask is None else np.flatnonzero(mask)
        images, start = self.iter_images(map(int, rows)), 0
        for batch in table.to_batches(max_chunksize=size):
            start += len(batch)
            if mask is not None:
                batch = batch.filter(pa.array(mask[start - len(batch) : start]))
            if batch.num_columns < len(columns):
                arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
                arrays["image"] = pa.array(list(islice(images, len(batch))), pa.binary())
                batch = pa.RecordBatch.from_arrays([arrays[name] for name in columns], schema=schema)
            elif "image" in columns:
                for _ in islice(images, len(batch)):  # each is compared with its hash
                    pass
            yield batch

    def iter_fingerprints(
        self, rows: Sequence[int], batch_size: int, images: Iterable[bytes] | None = None
    ) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
        """The fingerprints of rows, whose images are read unless given, in batches; errors as of `read_image`."""
        pairs = zip(rows, self.iter_images(rows) if images is None else images, strict=True)
        return decode_ahead(lambda pair: self.read_image(pair[0], fingerprint, pair[1]), pairs, batch_size)

    def read_image(self, row: int, read: Callable[[bytes], T], image: bytes | None = None) -> T:
        """What `read` makes of the image of a row, unless it is given. WorkError names its pair for an ImageError."""
        try:
            return read(self.image(row) if image is None else image)
        except ImageError as error:
            raise self._damage_error(row, f"cannot be decoded ({error})") from None

    def _damage_error(self, row: int, problem: str) -> WorkError:
        (id,) = self.take("id", [row])
        return WorkError(
            f"the image of {id} in split {self.name!r} of {self.folder} {problem}: its shard was damaged after it was "
            "written. Prepare the dataset again."
        )


def recorded_crc32(dataset: Mapping[str, Any], shard: Path) -> int | None:
    """The `columns_crc32` of a shard that a `dataset.json` records, if it does."""
    return dataset.get("crc32", {}).get(shard.name)


def default_split(data: AnyPath) -> str:
    """The default of `--split`: the validation split, or the only one."""
    splits = read_dataset(data)["splits"]
    if "validation" in splits:
        return "validation"
    if len(splits) == 1:
        return next(iter(splits))
    raise UserError(f"{data} has the splits {', '.join(splits)}: say which with --split.")


def duplicate_ids(
    image_hashes: Iterable[str], captions: Iterable[str]
) -> tuple[Int32[np.ndarray, " n"], Int32[np.ndarray, " m"]]:
    """Numbers that are equal where images are, and where captions are but for letter case and spacing; from 0.

    Equal images have equal bytes (`sha256` of the row). Negatives in training, its validation and every recall follow
    this one definition.
    """
    return _number(image_hashes), _number(map(casefold_whitespace, captions))


def _number(values: Iterable[str]) -> Int32[np.ndarray, " n"]:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int32)

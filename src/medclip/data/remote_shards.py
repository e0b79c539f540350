"""Shards behind a URL: copied to this machine where it has room for them, or else read there as they are needed.

Of a shard that stays there, this machine has a file of the same layout with every column but the images, whose place is
a hole (a sparse file). So one image is one request for its bytes, and those of many rows in order are one a shard.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import pyarrow as pa

from medclip.atomic_io import whole_file
from medclip.data.arrow_messages import has_compressed_batches
from medclip.data.paths import storage_errors
from medclip.errors import UserError, WorkError
from medclip.folder_locks import lock_folder
from medclip.progress import console, progress

if TYPE_CHECKING:
    from upath import UPath

SIZE_VARIABLE = "MEDCLIP_DATA_CACHE_GB"
COPIES_AT_ONCE = 8


def copy_shards(url: UPath, shards: Sequence[Path]) -> None:
    """Copy those of the shards, files of one folder, that are absent, each whole or not at all."""
    _fetch(
        url, {shard: url / shard.name for shard in shards}, lambda stored, path: stored.fs.get_file(stored.path, path)
    )


def copy_columns(url: UPath, shards: Sequence[Path]) -> list[Path]:
    """The same with files that hold all but the images; returns them."""
    stored = {shard.with_suffix(".columns.arrow"): url / shard.name for shard in shards}
    _fetch(url, stored, _copy_columns)
    return list(stored)


def _fetch(url: UPath, stored: Mapping[Path, UPath], copy: Callable[[UPath, str], object]) -> None:
    def fetch(path: Path) -> None:
        try:
            with whole_file(path) as partial, storage_errors(url, pass_through=(FileNotFoundError,)):
                copy(stored[path], str(partial))
        except FileNotFoundError:
            raise UserError(
                f"{stored[path]} is listed in dataset.json but absent. Prepare the dataset again."
            ) from None

    if all(path.exists() for path in stored):
        return
    with lock_folder(next(iter(stored)).parent):
        absent = [path for path in stored if not path.exists()]
        with ThreadPoolExecutor(COPIES_AT_ONCE) as pool, progress(f"copy {url}", len(absent), "shards") as advance:
            for _ in pool.map(fetch, absent):
                advance()


def have_room(url: UPath, shards: Sequence[Path]) -> bool:
    """Whether this machine has room for copies of those shards that are absent; where not, it is said once."""
    total, room = _size_and_room(url, shards)
    if total > room:
        _say_once(f"{url} is not copied: {_describe(total, room)}. Images are read there.")
    return total <= room


def check_room(url: UPath, shards: Sequence[Path]) -> None:
    """UserError where this machine has no room for copies of those shards that are absent."""
    total, room = _size_and_room(url, shards)
    if total > room:
        raise UserError(
            f"{url} is copied to this machine first: {_describe(total, room)}. Set XDG_CACHE_HOME to a folder that has "
            f"it{f', or {SIZE_VARIABLE} higher' if SIZE_VARIABLE in os.environ else ''}."
        )


def _describe(size: float, room: float) -> str:
    return f"about {size / 1e9:,.2f} GB, room for {room / 1e9:,.2f}"


def _size_and_room(url: UPath, shards: Sequence[Path]) -> tuple[float, float]:
    """The bytes of copies of those shards that are absent, estimated by the first, and those there is room for.

    Room is what is free on the disk, or MEDCLIP_DATA_CACHE_GB GB, 10^9 bytes. UserError where that is not a number.
    """
    absent = [shard for shard in shards if not shard.exists()]
    if not absent:
        return 0, 0
    limit = os.environ.get(SIZE_VARIABLE)
    try:
        room = float(limit) * 1e9 if limit else shutil.disk_usage(absent[0].parent).free
        if not room >= 0:
            raise ValueError
    except ValueError:
        raise UserError(f"{SIZE_VARIABLE} {limit!r} is not a number of GB from 0 on.") from None
    with storage_errors(url, pass_through=(FileNotFoundError,)):
        try:
            size = url.fs.info((url / absent[0].name).path)["size"] or 0
        except FileNotFoundError:
            size = 0  # the copy names it
    return size * len(absent), room


@cache
def _say_once(message: str) -> None:
    console.print(message, soft_wrap=True)


def _copy_columns(stored: UPath, path: str) -> None:
    opened: Any = stored.fs.open(stored.path, "rb", cache_type="none")
    with Path(path).open("w+b") as file, opened as source:
        source.seek(0, os.SEEK_END)
        size = source.tell()
        file.truncate(size)
        # what is read of the first column of each batch, and with it the footer and what says where the columns lie
        copying = _CopyingReader(source, file)
        if has_compressed_batches(copying):
            raise UserError(f"{stored} is compressed, which no shard of medclip is. Prepare the dataset again.")
        reader = pa.ipc.open_file(copying, options=pa.ipc.IpcReadOptions(included_fields=[0]))
        for batch in range(reader.num_record_batches):
            reader.get_batch(batch)
        file.flush()
        holes = [(start, array.buffers()[2].size) for array, start in _image_arrays(Path(path))]
        end = 0
        for start, length in [*holes, (size, 0)]:
            source.seek(end)
            file.seek(end)
            file.write(source.read(start - end))
            end = start + length


class _CopyingReader(io.RawIOBase):
    """A stored file whose bytes are written to the same place of a file on the disk when they are read."""

    def __init__(self, source: BinaryIO, file: BinaryIO):
        self._source, self._file = source, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()

    def read(self, size: int = -1) -> bytes:
        self._file.seek(self._source.tell())
        content = self._source.read(size)
        self._file.write(content)
        return content


def _image_arrays(path: Path) -> list[tuple[pa.BinaryArray, int]]:
    """The images of each batch of a file, whose bytes may be a hole, and the position of the first one's bytes."""
    source = pa.memory_map(os.fsencode(path))
    start = source.read_buffer().address
    source.seek(0)
    arrays = pa.ipc.open_file(source).read_all().column("image").chunks
    return [(array, array.buffers()[2].address - start) for array in arrays if len(array)]


class RemoteImages:
    """The encoded images of rows whose shards stay behind a URL; each is checked by its hash."""

    def __init__(self, files: Mapping[UPath, Path], hashes: pa.ChunkedArray, first: int):
        """Of stored shards and what `copy_columns` made of them; `hashes` are those of the rows from row `first` on."""
        self._parts = [(stored, *part) for stored, file in files.items() for part in _image_arrays(file)]
        self._starts = np.cumsum([-first, *(len(array) for _, array, _ in self._parts)])
        self._hashes = hashes

    def read(self, row: int) -> bytes:
        """The image of one row. WorkError where it cannot be reached, or is not the one of the row."""
        part, position = self._locate(row)
        (image,) = self._read(part, [position])
        return self._verify(image, row)

    def stream(self, rows: Iterable[int]) -> Iterator[bytes]:
        """The images of rows, of those in a row that are of one shard with one request, while those before are used."""
        places = ((*self._locate(row), row) for row in rows)
        groups = ((part, list(group)) for part, group in groupby(places, key=lambda place: place[0]))
        with ThreadPoolExecutor(1) as pool:

            def submit() -> tuple[Future[list[bytes]], list[int]] | None:
                part, group = next(groups, (0, []))
                positions, numbers = [position for _, position, _ in group], [row for *_, row in group]
                return (pool.submit(self._read, part, positions), numbers) if group else None

            coming = submit()
            while coming is not None:
                images, numbers = coming
                coming, content = submit(), images.result()
                yield from map(self._verify, content, numbers)

    def _locate(self, row: int) -> tuple[int, int]:
        part = int(np.searchsorted(self._starts, row, "right")) - 1
        return part, row - int(self._starts[part])

    def _read(self, part: int, positions: Sequence[int]) -> list[bytes]:
        """The images at positions of a part, read with all that lies between them."""
        stored, array, start = self._parts[part]
        offsets = np.frombuffer(array.buffers()[1], np.int32)[array.offset :]
        first, last = int(offsets[min(positions)]), int(offsets[max(positions) + 1])
        with storage_errors(stored):
            content: Any = stored.fs.cat_file(stored.path, start=start + first, end=start + last)
        return [content[offsets[position] - first : offsets[position + 1] - first] for position in positions]

    def _verify(self, image: bytes, row: int) -> bytes:
        if hashlib.sha256(image).hexdigest() != self._hashes[row].as_py():
            stored = self._parts[self._locate(row)[0]][0]
            raise WorkError(f"{stored} was changed, or is damaged: an image is another one. Prepare the dataset again.")
        return image

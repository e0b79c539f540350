"""DATA/cache: the decoded images of a split, each with a checksum that ties its pixels to its image.

A file has no header: rows of pixels u8 (s, s, 3) and a CRC-32 of the file's name, the image's SHA-256 and the pixels,
which changes with any bit. That name holds the split, s, a hash of the images and of what is done to them, and one of
the software.
"""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medclip.atomic_io import whole_file
from medclip.data.checked_files import DamageError
from medclip.data.dataset import SPLIT_NAME, Split
from medclip.folder_locks import lock_folder
from medclip.progress import Advance

CACHE_DIR = "cache"
CACHE_NAME = re.compile(rf"({SPLIT_NAME})-([1-9][0-9]{{0,3}}|10000)-[0-9a-f]{{16}}-[0-9a-f]{{16}}\.pixels")
CHECKED_ROWS = 4096  # when a file is opened, spread over it: at most a second
Pixels = UInt8[np.ndarray, "b s s 3"]


def cache_file(split: Split, side: int, content: str, software: str) -> Path:
    """The file of a split's images of `side` pixels.

    `content`, hexadecimal, is a hash of the images and of what is done to them; `software` of what does it.
    """
    return split.folder / CACHE_DIR / f"{split.name}-{side}-{content[:16]}-{software[:16]}.pixels"


def write_cache(path: Path, split: Split, batches: Iterable[Pixels], advance: Advance) -> None:
    """Write the pixels of all images of a split, in batches, in place of those that other software made of them.

    They are written, not mapped, into a file that has its whole size before: a full disk is then an OSError at once,
    where a mapped page would kill the process. LockedError where another process is writing into the folder.
    """
    row_type, hashes, start = _row_type(path), iter(split.iter_column("sha256")), zlib.crc32(path.name.encode())
    with lock_folder(path.parent), whole_file(path) as partial, partial.open("wb") as file:
        for outdated in path.parent.glob(f"{path.name.rpartition('-')[0]}-*.pixels"):  # a process may still read one
            outdated.unlink()
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, len(split) * row_type.itemsize)
        for batch in batches:
            rows = np.empty(len(batch), row_type)
            rows["pixels"] = batch
            rows["crc32"] = [_checksum(start, next(hashes), pixels) for pixels in batch]
            file.write(rows.tobytes())
            advance(len(batch))


def open_cache(path: Path, split: Split) -> UInt8[np.ndarray, "n s s 3"]:
    """The pixels of all images of a split, memory-mapped. FileNotFoundError where the file is absent.

    DamageError where it has another size, or one of CHECKED_ROWS rows is not as it was written.
    """
    rows = _open(path, split)
    if damaged := _damaged_rows(path, rows, split, range(0, len(rows), math.ceil(len(rows) / CHECKED_ROWS))):
        raise DamageError(f"has a row, {damaged[0]} counted from 0, that is not as it was written")
    return rows["pixels"]


def damaged_pixels(path: Path, data: Path) -> Sequence[str]:
    """The ids of the pairs whose pixels in a cache of the dataset `data` are not as they were written.

    DamageError where the file has the size of no number of them; UserError where the split cannot be opened.
    """
    match = CACHE_NAME.fullmatch(path.name)
    assert match
    split = Split(data, match[1], max(1, path.stat().st_size // _row_type(path).itemsize))  # of --max-samples
    return split.take("id", _damaged_rows(path, _open(path, split), split, range(len(split))))


def _open(path: Path, split: Split) -> np.ndarray:
    row_type = _row_type(path)
    if path.stat().st_size != len(split) * row_type.itemsize:
        raise DamageError(f"has {path.stat().st_size:,} bytes, not those of {len(split):,} images")
    return np.memmap(path, row_type, "r")


def _damaged_rows(path: Path, rows: np.ndarray, split: Split, numbers: Sequence[int]) -> list[int]:
    start, hashes = zlib.crc32(path.name.encode()), split.take("sha256", numbers)
    sums = (_checksum(start, digest, rows[n]["pixels"]) for n, digest in zip(numbers, hashes, strict=True))
    return [n for n, checksum in zip(numbers, sums, strict=True) if rows[n]["crc32"] != checksum]


def _checksum(start: int, digest: str, pixels: UInt8[np.ndarray, "s s 3"]) -> int:
    return zlib.crc32(pixels.data, zlib.crc32(digest.encode(), start))


def _row_type(path: Path) -> np.dtype:
    match = CACHE_NAME.fullmatch(path.name)
    assert match
    side = int(match[2])
    return np.dtype([("pixels", "u1", (side, side, 3)), ("crc32", "<u4")])

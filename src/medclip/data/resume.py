"""Resumable outputs: files written whole or row by row, each with a note of its inputs until the output is finished.

A command that was killed and is called again keeps every file whose inputs are the same, and goes on within one that
grows row by row. Notes lie in `.unfinished/` beside the files until `claim` ends; no file tells the time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Shaped

from medclip.atomic_io import read_json, sha256, write_errors, write_json
from medclip.data.paths import AnyPath, is_url, storage_errors
from medclip.data.schema import DicomFrame, Dropped, Pair
from medclip.errors import UserError
from medclip.folder_locks import NOTES

SAVE_EVERY_S = 10.0


class ResumableFile:
    """An output file that is known again by its inputs, a `fingerprint`."""

    def __init__(self, path: Path, inputs: str):
        self.path, self.inputs = path, inputs
        self._note_path = path.parent / NOTES / f"{path.name}.json"
        self._partial = path.parent / NOTES / path.name

    @property
    def is_complete(self) -> bool:
        """Whether the file exists, was made from these inputs and, if it was written whole, is as it was written."""
        note = self._note() if self.path.exists() else {}
        return bool(note) and ("sha256" not in note or note["sha256"] == sha256(self.path))

    @property
    def sha256(self) -> str:
        """SHA-256 of the file as `rewrite` left it."""
        return self._note()["sha256"]

    @property
    def rows_done(self) -> int:
        """Rows that `append` has saved of these inputs."""
        return self._note().get("rows", 0) if self.path.exists() or self._partial.exists() else 0

    @contextmanager
    def rewrite(self) -> Iterator[None]:
        """Note the inputs when the block, which writes the whole file atomically, succeeds."""
        write_json(self._note_path, {"inputs": None})  # a file that a killed call left is known to `remove_stale`
        yield
        write_json(self._note_path, {"inputs": self.inputs, "sha256": sha256(self.path)})

    def append(self, blocks: Iterable[Shaped[np.ndarray, "rows ..."]], header: bytes) -> None:
        """Write `header` and blocks of rows, from row `rows_done` on; the file appears when the blocks end.

        Rows are saved every SAVE_EVERY_S seconds. They are written, not mapped: a full disk is then an OSError, where a
        mapped page would kill the process.
        """
        rows = self.rows_done
        start = self._note()["bytes"] if rows else 0
        if not rows:
            self._note_path.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)  # of other inputs
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        with write_errors(self.path, self._partial), self._partial.open("r+b" if rows else "wb") as file:
            file.seek(start)
            if not rows:
                file.write(header)
            last_save = time.monotonic()
            for block in blocks:
                file.write(block.tobytes())
                rows += len(block)
                if time.monotonic() - last_save > SAVE_EVERY_S:
                    self._save(file, rows)
                    last_save = time.monotonic()
            self._save(file, rows)
        self._partial.replace(self.path)

    def _save(self, file: BinaryIO, rows: int) -> None:
        file.flush()
        os.fsync(file.fileno())
        write_json(self._note_path, {"inputs": self.inputs, "rows": rows, "bytes": file.tell()})

    def _note(self) -> dict[str, Any]:
        """The note, empty where there is none of these inputs."""
        try:
            note = read_json(self._note_path, "an unfinished output")
        except UserError:
            return {}
        return note if isinstance(note, dict) and note.get("inputs") == self.inputs else {}


def remove_stale(folder: Path, files: Iterable[str]) -> None:
    """Remove what a killed attempt with other inputs left in `folder`: noted files that are not among `files`."""
    noted = {note.name.removesuffix(".json") for note in (folder / NOTES).glob("*.json")}
    for name in noted - set(files):
        (folder / name).unlink(missing_ok=True)


def finish(folder: Path) -> None:
    """Remove the notes: the files of `folder` are final."""
    shutil.rmtree(folder / NOTES, ignore_errors=True)


def fingerprint(*inputs: Any) -> str:
    """SHA-256 of the `repr` of values."""
    return hashlib.sha256(repr(inputs).encode()).hexdigest()


def source_fingerprint(rows: Sequence[Pair | Dropped], *inputs: Any) -> str:
    """SHA-256 of rows and other inputs; an image file counts by its `file_state`."""
    digest = hashlib.sha256(repr(inputs).encode())
    for row in rows:
        if isinstance(row, Pair):
            texts = [getattr(row, name) for name in Pair.__slots__ if name != "image"]
            digest.update(repr((_image_state(row.image), texts)).encode())
        else:
            digest.update(repr(row).encode())
    return digest.hexdigest()


def file_state(path: AnyPath) -> Any:
    """What the file system reports that changes with a file's content; None where it cannot be read.

    Reading every file again would make a resume as slow as the disk. git trusts the same numbers.
    """
    try:
        if is_url(path):
            with storage_errors(path, pass_through=(OSError,)):
                return path.fs.ukey(path.path)  # size, tag, time: whatever its store knows
        stat = path.stat()
    except (OSError, ValueError):  # absent now, but it may exist on resume; or a name that no file can have
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _image_state(image: AnyPath | bytes | DicomFrame) -> Any:
    if isinstance(image, DicomFrame):
        state = file_state(image.file) if isinstance(image.file, Path) else image.file  # an object of a server is final
        return state, image.number, image.masked
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    return file_state(image)

"""What a preparation that was cut short goes on from: a note beside each whole shard, saying what it was made from."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medclip.atomic_io import whole_file
from medclip.data.paths import AnyPath, is_url, storage_errors
from medclip.data.schema import DicomFrame, Dropped, Pair

NOTES = ".unfinished"  # in the dataset's folder; the shards themselves hold nothing of this machine's clock


def source_fingerprint(rows: Sequence[Pair | Dropped], *said: Any) -> str:
    """Hash of `said` and of rows; of an image's file, of what the file system says that changes with it.

    Reading every image again would make a resume as slow as the disk is. git trusts the same numbers.
    """
    known = hashlib.sha256(repr(said).encode())
    for row in rows:
        if isinstance(row, Pair):
            known.update(repr(_state(row.image)).encode())
            row = replace(row, image=b"")
        known.update(repr(row).encode())
    return known.hexdigest()


def _state(image: AnyPath | bytes | DicomFrame) -> Any:
    if isinstance(image, DicomFrame):
        return _state(image.path), image.number, image.masked
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    try:
        if is_url(image):
            with storage_errors(image, but=(OSError,)):
                return image.fs.ukey(image.path)  # size, tag, time: whatever its store knows
        about = image.stat()
    except (OSError, ValueError):  # absent now, but it may be there on resume; or a name that no file can have
        return None
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns


def is_noted(path: Path, known: str) -> bool:
    """Whether the shard `path` was noted to be made from what `known` is the hash of."""
    try:
        return _note(path).read_text() == known
    except OSError:
        return False


def note(path: Path, known: str | None) -> None:
    """Note what the shard `path` was made from; None takes the note away."""
    if known is None:
        _note(path).unlink(missing_ok=True)
        return
    with whole_file(_note(path)) as partial:
        partial.write_text(known)


def remove_others(out: Path, files: set[str]) -> None:
    """Remove noted shards that are not among `files`: an attempt before this one made them from other rows."""
    for noted in (out / NOTES).glob("*.arrow"):
        if noted.name not in files:
            (out / noted.name).unlink(missing_ok=True)


def finish(out: Path) -> None:
    """Remove all notes."""
    shutil.rmtree(out / NOTES, ignore_errors=True)


def _note(path: Path) -> Path:
    return path.parent / NOTES / path.name

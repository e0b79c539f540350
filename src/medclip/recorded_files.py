"""`checksums.json`: SHA-256 of those files of a folder that no other manifest can hold, as they come after it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medclip.atomic_io import (
    encode_text,
    has_checksum,
    read_optional,
    recorded_hashes,
    sha256,
    write_text,
    write_with_checksum,
)
from medclip.errors import UserError

CHECKSUMS_FILE = "checksums.json"
EXPORT_FILE = "export.json"
"""The manifest of an exported model or dataset, with the hashes of its files."""
BEFORE = "before"
"""The field of `checksums.json` with the hash of a file that is being replaced; None of one that was absent."""
_LOCK = threading.Lock()  # the state of a training run is recorded from a thread of its writer


def read_checksums(folder: Path) -> dict[str, str]:
    """What `checksums.json` of a folder records, by path; {} where it is absent or not as it was written.

    Of the latter `medclip verify` tells. UserError where it cannot be read.
    """
    return recorded_hashes(read_optional(folder / CHECKSUMS_FILE, "an output"))


def write_recorded(path: Path, text: str) -> None:
    """Write text atomically, and its hash into the folder's `checksums.json`; the caller has locked the folder.

    Killed at any moment, it leaves the file as it was or as it is now, and either is recorded.
    """
    with _LOCK:
        hashes, before = _read(path.parent)
        earlier = sha256(path) if path.is_file() else None
        new = {path.name: hashlib.sha256(encode_text(text)).hexdigest()}
        _write(path.parent, hashes | new, before | {path.name: earlier})
        write_text(path, text)
        before.pop(path.name, None)
        _write(path.parent, hashes | new, before)


def replace_hashes(folder: Path, name: str, hashes: Mapping[str, str]) -> None:
    """Put hashes, by path, in place of what `checksums.json` records of a file or a folder `name` of `folder`."""
    with _LOCK:
        recorded, before = _read(folder)
        others = {file: digest for file, digest in recorded.items() if not is_below(file, name)}
        _write(folder, others | dict(hashes), before)


def changed_files(folder: Path, name: str) -> list[str]:
    """The recorded files of a file or a folder `name` of `folder` that are absent or not as they were written."""
    return [
        file
        for file, digest in _read(folder)[0].items()
        if is_below(file, name) and not ((folder / file).is_file() and sha256(folder / file) == digest)
    ]


def is_below(file: str, name: str) -> bool:
    """Whether a path is that of a file or folder `name`, or lies in it."""
    return file == name or file.startswith(f"{name}/")


def _read(folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """The hashes and those of before; none where the file cannot be read, which `medclip verify` tells."""
    try:
        content = read_optional(folder / CHECKSUMS_FILE, "an output")
    except UserError:
        return {}, {}
    before = content.get(BEFORE) if has_checksum(content) else None
    return recorded_hashes(content), before if isinstance(before, dict) else {}


def _write(folder: Path, hashes: Mapping[str, str], before: Mapping[str, Any]) -> None:
    write_with_checksum(folder / CHECKSUMS_FILE, {"sha256": hashes} | ({BEFORE: before} if before else {}))

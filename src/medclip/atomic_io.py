"""Files that are whole or absent: written under a temporary name beside it, then renamed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medclip.errors import UserError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it replaces `path` only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, kind: str) -> Any:
    """Read JSON. A missing or broken file is a UserError; `kind` says what its folder should be."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path.parent} is not {kind}: it has no {path.name}.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged and cannot be read as JSON ({error}). Make it anew.") from None


def read_object(path: Path, kind: str) -> dict[str, Any]:
    """Read a JSON object, as `read_json`; JSON of another kind is a UserError."""
    value = read_json(path, kind)
    if not isinstance(value, dict):
        raise UserError(f"{path} is not an object.")
    return value


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def claim(out: Path, marker: str) -> None:
    """Create an output folder; UserError where it is already finished (it holds `marker`) or is a file.

    Temporary files of a killed process are removed.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; give a folder.")
    if (out / marker).exists():
        raise UserError(f"--out {out} is already finished ({marker} is there). Choose another or delete it.")
    out.mkdir(parents=True, exist_ok=True)
    for partial in out.glob(".*.partial"):
        partial.unlink(missing_ok=True)

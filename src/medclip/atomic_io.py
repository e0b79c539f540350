"""Files that are whole or absent: written under a temporary name beside them, then renamed; JSON, hashes, checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medclip.bounded_files import read_bounded
from medclip.errors import UserError
from medclip.folder_kinds import MARKERS, what_instead
from medclip.plain_text import printable

MAX_JSON_BYTES = 2**28  # of the largest vocabularies a tokenizer.json has 2^25
_MAX_JSON_PARTS = 2**22  # lists and objects, of which one of three bytes takes 72: of the largest vocabularies 2^20
PLAIN_NAME = r"\w[\w.-]*"
"""A regular expression of names of files and folders that lead nowhere else."""

CHECKSUM = "checksum"


@contextmanager
def whole_file(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """Yield a temporary file in the same folder; it replaces `path` only if the block succeeds.

    Permissions are `mode` under the umask, whatever the block's library gives its files (safetensors: 0600). Errors as
    in `write_errors`.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with write_errors(path, partial):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.unlink(missing_ok=True)
            partial.touch(mode)
            permissions = partial.stat().st_mode
            yield partial
            if partial.stat().st_mode != permissions:
                partial.chmod(permissions)
            with partial.open("rb") as handle:
                os.fsync(handle.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def write_errors(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Let an OSError that names no file, as that of a full disk, or names `partial`, name `path`."""
    try:
        yield
    except OSError as error:
        if error.filename not in (None, str(partial)) or not (error.errno or type(error) is OSError):
            raise
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(error.errno or errno.EIO, reason, str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically. A lone surrogate, as a file name may hold, becomes an escape that JSON reads."""
    with whole_file(path) as partial:
        partial.write_bytes(encode_text(text))


def encode_text(text: str) -> bytes:
    """The bytes that `write_text` writes."""
    return text.encode(errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """What `write_json` writes."""
    return printable(json.dumps(value, indent=2, ensure_ascii=False)) + "\n"


def read_json(path: Path, kind: str) -> Any:
    """Read JSON. A missing or broken file is a UserError; `kind` says what its folder should be.

    Broken: also one above MAX_JSON_BYTES or of too many parts, nested deeper than Python recurses, or with a key twice
    in one object.
    """
    if os.path.lexists(path) and not path.is_file():  # a device or a pipe would never end
        raise UserError(f"{path} is not a file that can be read.")
    try:
        text = read_bounded(path, MAX_JSON_BYTES).decode()
        if (num_parts := text.count("[") + text.count("{")) > _MAX_JSON_PARTS:
            raise ValueError(f"{num_parts:,} lists and objects, where {_MAX_JSON_PARTS:,} are read")
        return json.loads(text, object_pairs_hook=unique_keys)
    except FileNotFoundError:
        flaw = f"it has no {path.name}" if path.parent.exists() else "it does not exist"
        remark = what_instead(path.parent, path.name) if path.name in MARKERS else ""
        raise UserError(f"{path.parent} is not {kind}: {flaw}.{remark}") from None
    except NotADirectoryError:
        raise UserError(f"{path.parent} is not {kind}: it is a file.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged and cannot be read as JSON ({error}). Make it anew.") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs. ValueError where readers could differ on which of two values counts."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{key[:80]!r} is in it twice")
    return fields


def read_optional(path: Path, kind: str) -> dict[str, Any]:
    """Read a JSON object, as `read_object`; {} where nothing is of that name."""
    return read_object(path, kind) if os.path.lexists(path) else {}


def read_object(path: Path, kind: str) -> dict[str, Any]:
    """Read a JSON object, as `read_json`; JSON of another kind is a UserError."""
    value = read_json(path, kind)
    if not isinstance(value, dict):
        raise UserError(f"{path} is not an object.")
    return value


def file_name(value: Any, field: str, pattern: str = PLAIN_NAME) -> str:
    """`value`, which `field` (a file and a field of it) gives as the name of a file or folder beside it.

    UserError where it is not a name of the regular expression `pattern`: what others wrote chooses no other folder.
    """
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise UserError(f"{field} is {str(value)[:80]!r}, which is not the plain name of a file that belongs there.")
    return value


def write_with_checksum(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as `write_json`, with the checksum of its content."""
    write_json(path, with_checksum(value))


def with_checksum(value: dict[str, Any]) -> dict[str, Any]:
    """`value` with the checksum of its content."""
    return value | {CHECKSUM: _checksum(value)}


def has_checksum(value: Mapping[str, Any]) -> bool:
    """Whether the content of a manifest is what `write_with_checksum` wrote."""
    return value.get(CHECKSUM) == _checksum(value)


def check_as_written(path: Path, value: Mapping[str, Any]) -> None:
    """UserError where the manifest of this content is not as it was written; another program's has no checksum."""
    if CHECKSUM in value and not has_checksum(value):
        raise UserError(f"{path} is damaged: it is not as it was written. Make it anew, or restore it from a backup.")


def recorded_hashes(value: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of files by name, as a manifest records them; {} of one that is not as it was written, or has none."""
    hashes = value.get("sha256") if has_checksum(value) else None
    return hashes if isinstance(hashes, dict) else {}


def _checksum(value: Mapping[str, Any]) -> str:
    content = json.loads(json.dumps({name: item for name, item in value.items() if name != CHECKSUM}))  # as read back
    return hashlib.sha256(canonical_json(content)).hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON that is equal where values are: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def check_file(path: Path) -> None:
    """OSError for what is there and is not a file: a pipe or a device would never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a file", str(path))


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file. OSError for a pipe or a device."""
    check_file(path)
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()

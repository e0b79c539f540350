"""Files that are whole or absent, in folders that one process at a time writes into.

A file is written under a temporary name beside it, then renamed. A folder is locked by the operating system (flock on
the folder itself): a killed process holds no lock, and none leaves a file behind.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from medclip.errors import LockedError, UserError
from medclip.plain_text import printable

LOG = logging.getLogger("medclip.files")
NOTES = ".unfinished"
"""A folder inside an output that is not finished; see `claim` and `ResumableFile`."""
_NO_LOCKS = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # file systems without flock
LOCK_WAIT_S = 5.0
"""For what another process holds for a moment."""
_POLL_S = 0.05
_locked: ContextVar[frozenset[Path]] = ContextVar("locked", default=frozenset())
_claimed: set[Path] = set()
MAX_JSON_BYTES = 2**28  # of the largest vocabularies a tokenizer.json has 2^25
PLAIN_NAME = r"\w[\w.-]*"
"""A regular expression of names of files and folders that lead nowhere else."""

CHECKSUM = "checksum"
_TOML_SEAL, _HTML_SEAL = "# sha256 of the lines above: {}", "<!-- sha256 of the lines above: {} -->"


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
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, printable(json.dumps(value, indent=2, ensure_ascii=False)) + "\n")


def read_json(path: Path, kind: str) -> Any:
    """Read JSON. A missing or broken file is a UserError; `kind` says what its folder should be.

    Broken: also one above MAX_JSON_BYTES, nested deeper than Python recurses, or with a key twice in one object.
    """
    if os.path.lexists(path) and not path.is_file():  # a device or a pipe would never end
        raise UserError(f"{path} is not a file that can be read.")
    try:
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise ValueError(f"{size:,} bytes, where {MAX_JSON_BYTES:,} are read")
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique_keys)
    except FileNotFoundError:
        raise UserError(f"{path.parent} is not {kind}: it has no {path.name}.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged and cannot be read as JSON ({error}). Make it anew.") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
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


def file_name(value: Any, place: str, pattern: str = PLAIN_NAME) -> str:
    """`value`, which `place` (a file and its field) gives as the name of a file or folder beside it.

    UserError where it is not a name of the regular expression `pattern`: what others wrote chooses no other folder.
    """
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise UserError(f"{place} is {str(value)[:80]!r}, which is not the plain name of a file that belongs there.")
    return value


def write_with_checksum(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as `write_json`, with the checksum of its content."""
    write_json(path, value | {CHECKSUM: _checksum(value)})


def has_checksum(value: Mapping[str, Any]) -> bool:
    """Whether the content of a manifest is what `write_with_checksum` wrote."""
    return value.get(CHECKSUM) == _checksum(value)


def _checksum(value: Mapping[str, Any]) -> str:
    content = json.loads(json.dumps({name: item for name, item in value.items() if name != CHECKSUM}))  # as read back
    return hashlib.sha256(canonical_json(content)).hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON that is equal where values are: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def folder_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of an output, by its path below the folder; without notes of what is unfinished."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and NOTES not in path.parts)
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def check_writable(out: Path) -> None:
    """UserError where the file or folder `out` cannot be written; it is not made."""
    existing = out
    try:
        while not _exists(existing):
            existing = existing.parent
        if existing == out and out.is_file():
            existing = out.parent  # it will be replaced
        with tempfile.TemporaryFile(dir=existing):
            pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"--out {out} cannot be written ({existing}: {reason}).") from None


def _exists(path: Path) -> bool:
    """Whether there is something, be it a link to nothing. OSError for a name that no file can have."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def check_folder(out: Path) -> None:
    """UserError where the folder `out` cannot be written or is a file."""
    if os.path.lexists(out) and not out.is_dir():
        raise UserError(f"--out {out} is a file; give a folder.")
    check_writable(out)


def write_page(path: Path, text: str) -> None:
    """Write a sealed page into a folder that another process may be writing into for a moment; see `lock_folder`."""
    with lock_folder(path.parent, wait_s=LOCK_WAIT_S):
        write_text(path, seal(text, _HTML_SEAL))


def seal(text: str, form: str = _TOML_SEAL) -> str:
    """Text with its own checksum in a comment as last line: of a file that is written after its folder's manifest."""
    text = text.rstrip("\n") + "\n"
    return f"{text}{form.format(hashlib.sha256(text.encode()).hexdigest())}\n"


def is_sealed(path: Path) -> bool:
    """Whether a file is as `seal` made it."""
    try:
        content = path.read_bytes().decode()
    except UnicodeDecodeError:
        return False
    text = content[: content.rstrip("\n").rfind("\n") + 1]
    return content in (seal(text), seal(text, _HTML_SEAL))


@contextmanager
def lock_folder(folder: Path, *parts: str, wait_s: float = 0) -> Iterator[None]:
    """Let no other process write into `folder`, which is created, and remove what a killed one left half-written.

    `parts` are folders inside (patterns), where such files are looked for too. A process that locks a folder may lock
    it again inside. LockedError where another process has locked it for `wait_s`.
    """
    key, is_new = folder.resolve(), not folder.exists()
    if key in _locked.get():
        _sweep(folder, parts)
        yield
        return
    descriptor = _lock(folder, time.monotonic() + wait_s)
    token = _locked.set(_locked.get() | {key})
    try:
        _sweep(folder, parts)
        yield
        if key in _claimed:
            shutil.rmtree(folder / NOTES, ignore_errors=True)
    finally:
        _claimed.discard(key)
        _locked.reset(token)
        if is_new:
            with suppress(OSError):  # of a folder that is not empty
                folder.rmdir()
        os.close(descriptor)


@contextmanager
def claim(out: Path, marker: str, *parts: str) -> Iterator[None]:
    """Lock an output folder to write it, and mark it as unfinished until the outermost lock ends without an error.

    UserError where it is finished (it holds `marker` and is not marked) or cannot be written. Else as `lock_folder`.
    """
    check_folder(out)
    with lock_folder(out, *parts):
        notes = out / NOTES
        if (out / marker).exists() and not notes.exists():
            raise UserError(f"--out {out} is already finished ({marker} is there). Choose another or delete it.")
        notes.mkdir(exist_ok=True)
        _claimed.add(out.resolve())
        try:
            yield
        finally:
            if not (out / marker).exists():
                with suppress(OSError):  # notes are there, by which the same call goes on
                    notes.rmdir()


def check_unlocked(folder: Path) -> None:
    """LockedError where another process is writing into an existing folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockedError(f"another process is writing {folder}; try again when it has ended.") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    finally:
        os.close(descriptor)


def _lock(folder: Path, deadline: float) -> int:
    """Lock a folder; returns the descriptor whose closing frees it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.exists() and os.path.samestat(os.fstat(descriptor), folder.stat()):
                return descriptor  # else the folder was removed by the process that had locked it
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise LockedError(f"another process is writing {folder}; try again when it has ended.") from None
            time.sleep(_POLL_S)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            LOG.warning(f"{folder} cannot be locked ({error.strerror}): let no other process write into it.")
            return descriptor
        os.close(descriptor)


def _sweep(folder: Path, parts: tuple[str, ...]) -> None:
    for pattern in (".", NOTES, *parts):
        for partial in folder.glob(f"{pattern}/.*.partial"):
            partial.unlink(missing_ok=True)

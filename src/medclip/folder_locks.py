"""Folders that one process at a time writes into.

A folder is locked by the operating system (flock on the folder itself): a killed process holds no lock, and none leaves
a file behind.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from medclip.atomic_io import sha256, write_text
from medclip.bounded_files import read_text
from medclip.errors import LockedError, UserError
from medclip.folder_kinds import folder_kind

LOG = logging.getLogger("medclip.files")
NOTES = ".unfinished"
"""A folder inside an output that is not finished; see `claim` and `ResumableFile`."""
_MARKER_NOTE = "marker"
"""The note of which file will mark the output as finished: what kind of folder it will be."""
_PARTIAL = re.compile(r"\..+\.\d+\.partial", re.DOTALL)
"""The names of unfinished files, which end with the process: `.NAME.PID.partial`."""
LOCK_WAIT_S = 5.0
"""For what another process holds for a moment."""
_POLL_S = 0.05
_NO_LOCKS = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # file systems without flock
_locked: ContextVar[frozenset[Path]] = ContextVar("locked", default=frozenset())
_claimed: set[Path] = set()


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
def lock_output(out: Path, *parts: str) -> Iterator[None]:
    """Lock an output folder, as `lock_folder`. UserError where it is a file or cannot be written."""
    if not (_locked.get() and out.resolve() in _locked.get()):  # what no file can be named cannot be resolved
        check_folder(out)
    with lock_folder(out, *parts):
        yield


@contextmanager
def claim(out: Path, marker: str, *parts: str) -> Iterator[None]:
    """Lock an output folder to write it, and mark it as unfinished until the outermost lock ends without an error.

    UserError where it is finished (it holds `marker` and is not marked), is a folder of another kind or cannot be
    written. Else as `lock_folder`.
    """
    with lock_output(out, *parts):
        notes = out / NOTES
        if (out / marker).exists() and not notes.exists():
            raise UserError(f"--out {out} is already finished ({marker} is there). Choose another or delete it.")
        before = None if notes.exists() else {*out.glob("*")}
        if is_outermost := out.resolve() not in _claimed:
            check_kind(out, marker)
        try:
            if is_outermost:
                write_text(notes / _MARKER_NOTE, marker)
                _claimed.add(out.resolve())
            yield
        finally:
            if before is not None and {*out.glob("*")} - {notes} == before and len([*notes.glob("*")]) <= 1:
                shutil.rmtree(notes, ignore_errors=True)  # nothing is there by which the same call would go on


def check_kind(out: Path, *markers: str) -> None:
    """UserError where an output folder, finished or not, is of another kind than what one of `markers` marks."""
    note = out / NOTES / _MARKER_NOTE
    if note.is_file():
        if (begun := read_text(note, errors="replace")) not in markers:
            raise UserError(f"--out {out} holds unfinished work of another kind ({begun}). Choose another folder.")
    elif (kind := folder_kind(out)) and not any((out / marker).exists() for marker in markers):
        raise UserError(f"--out {out} is there already: it is {kind}. Choose another folder.")


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
            if not _PARTIAL.fullmatch(partial.name):  # of another program
                continue
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)


def folder_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of an output, by its path below the folder; without notes of what is unfinished."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and NOTES not in path.parts)
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}

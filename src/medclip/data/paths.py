"""Paths of this machine and URLs of any file system that fsspec knows, read through one interface."""

from __future__ import annotations

import os
import posixpath
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from medclip.errors import UserError, WorkError
from medclip.hosts import check_address, check_hub_endpoint, without_credentials

if TYPE_CHECKING:
    from typing_extensions import TypeIs
    from upath import UPath

AnyPath: TypeAlias = "Path | UPath"
"""A path that every reader takes. Both share the reading methods of pathlib; `is_url` narrows the type for pyright."""


LEAVES_FOLDER = "link that leaves the folder"
NOT_REGULAR = "not a file, but a pipe, a socket or a device"
SPARSE = "sparse file, nearly all holes"
_MIN_SPARSE_BYTES, _MIN_SPARSE_RATIO = 2**20, 16


def parse_path(source: str) -> AnyPath:
    """A Path, or for `s3://…`, `gs://…` and the like a UPath, which can be sent to a worker.

    `hf://OWNER/NAME` is a dataset of the Hub. UserError for a protocol that is unknown or not installed, and as of
    `check_address`.
    """
    check_address(source)
    return parse_image_path(source)


def parse_image_path(source: str) -> AnyPath:
    """As `parse_path`, of one image of many: nothing repeats the whole of its URL, which may be signed."""
    protocol, separator, rest = source.partition("://")
    if not separator:
        return Path(source)
    from upath import UPath

    if protocol == "hf":
        check_hub_endpoint()
    if protocol == "hf" and not rest.startswith("datasets/"):
        source = f"hf://datasets/{rest}"
    try:
        url = UPath(source)
        url.fs  # noqa: B018  the library behind a protocol is imported here
    except ImportError as error:
        raise UserError(f"{without_credentials(source)}: no library for {protocol}:// is installed. {error}.") from None
    except ValueError as error:
        raise UserError(without_credentials(f"{source} is not a URL that can be read ({error}).")) from None
    return url


def offline_remark(path: AnyPath) -> str:
    """A sentence, after a space, where `path` is on the Hub and the library does not ask it; else ""."""
    if not str(path).startswith("hf://"):
        return ""
    from huggingface_hub import constants

    return " HF_HUB_OFFLINE is set: unset it, or give a downloaded folder." if constants.HF_HUB_OFFLINE else ""


def is_url(path: object) -> TypeIs[UPath]:
    """Whether the path is a URL, so not on this machine."""
    return hasattr(path, "fs")


@contextmanager
def storage_errors(url: AnyPath, pass_through: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn any error of the library behind a URL into a WorkError; those of the types `pass_through` stay."""
    try:
        yield
    except (UserError, WorkError, *pass_through):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        message = f"{url} cannot be reached ({reason}). Check its name and your access, or try again."
        raise WorkError(without_credentials(message)) from error


def inside(root: AnyPath, name: str, start: AnyPath | None = None) -> AnyPath | None:
    """The path `name`, relative to `start` (default: `root`), or None where that is not below `root`.

    So a table from elsewhere cannot name other files of this machine; for links see `leaves_folder`.
    """
    start, url = start or root, is_url(root)
    if not name.startswith("/") and ".." not in name and ":" not in name and (start == root or root in start.parents):
        return start / name  # nearly every name; the rest takes ten times as long
    absolute = name if name.startswith("/") or (url and "://" in name) else f"{start.absolute()}/{name}"
    root_protocol, root_path = _normalize(str(root.absolute()), url)
    protocol, path = _normalize(absolute, url)
    prefix = f"{root_path.rstrip('/')}/"
    return root / path[len(prefix) :] if protocol == root_protocol and path.startswith(prefix) else None


def leaves_folder(path: AnyPath, root: AnyPath) -> bool:
    """Whether links on the way to `path` lead out of `root`: an archive that was unpacked may hold any link.

    Of a snapshot in the cache of the Hub, whose files are links, `root` is the repository.
    """
    if is_url(path) or is_url(root):
        return False
    root = root.parent.parent if root.parent.name == "snapshots" else root
    file = str(path)  # strings, as each row of a table is looked at and pathlib takes ten times as long
    is_link = os.path.islink(file)  # noqa: PTH114  False also for a name that no file can have
    folder, name = os.path.split(file)
    target = os.path.realpath(file) if is_link else f"{_real_path(folder).rstrip('/')}/{name}"
    return not f"{target}/".startswith(f"{_real_path(str(root)).rstrip('/')}/")


def _real_path(folder: str) -> str:
    return _real_absolute(os.path.join(os.getcwd(), folder))  # noqa: PTH109, PTH118


@lru_cache(2**12)
def _real_absolute(folder: str) -> str:
    """Not of a relative path, which means another folder once the process has moved to another."""
    try:
        return os.path.realpath(folder)
    except ValueError:  # a zero byte: a name that no folder can have
        return os.path.abspath(folder)  # noqa: PTH100


def check_link(path: AnyPath, root: AnyPath) -> AnyPath:
    """`path`. Raises UserError where a link leads out of `root`."""
    if leaves_folder(path, root):
        raise UserError(f"{path} is a {LEAVES_FOLDER} {root}. Put a copy in its place, if you trust it.")
    return path


def special_kind(path: AnyPath) -> str:
    """What a path is that is not to be opened: NOT_REGULAR, SPARSE; "" for other files and for one that is absent."""
    if is_url(path):
        return ""
    try:
        state = path.stat()
        if stat.S_ISDIR(state.st_mode):
            return ""
        if not stat.S_ISREG(state.st_mode):
            return NOT_REGULAR
        stored = getattr(state, "st_blocks", state.st_size) * 512  # 0 on some network file systems: holes decide
        if state.st_size < _MIN_SPARSE_BYTES or stored * _MIN_SPARSE_RATIO > state.st_size:
            return ""
        with path.open("rb") as file:
            return SPARSE if os.lseek(file.fileno(), 0, os.SEEK_HOLE) < state.st_size else ""
    except (OSError, ValueError):
        return ""


def fold_name(name: str) -> str:
    """A name for comparison, without letter case and with composed letters (NFC), as file systems differ in both."""
    return unicodedata.normalize("NFC", name).casefold()


def relative_path(path: AnyPath, folder: AnyPath) -> PurePosixPath:
    """`path` relative to `folder`, in which it lies; both are URLs or neither is."""
    if is_url(path) or is_url(folder):
        return PurePosixPath(str(path)[len(str(folder)) :].lstrip("/"))
    return PurePosixPath(path.relative_to(folder).as_posix())


def path_exists(path: AnyPath) -> bool:
    """Whether there is a file, of whatever kind; False for a name that no file can have."""
    try:
        return path.is_file() if is_url(path) else not stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):  # also for a name that is too long or holds a null byte
        return False


def _normalize(path: str, url: bool) -> tuple[str, str]:
    """Protocol ("" for a path of this machine) and path without `..`."""
    protocol, _, rest = path.partition("://") if url else ("", "", path)
    return protocol, posixpath.normpath(f"/{rest.lstrip('/')}")

"""Paths of this machine and URLs of any file system that fsspec knows, read through one interface."""

from __future__ import annotations

import posixpath
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from medclip.errors import UserError, WorkError
from medclip.hosts import check_hub_endpoint

if TYPE_CHECKING:
    from typing_extensions import TypeIs
    from upath import UPath

AnyPath: TypeAlias = "Path | UPath"
"""A path that every reader takes. Both share the reading methods of pathlib; `is_url` narrows the type for pyright."""


def parse_path(source: str) -> AnyPath:
    """A Path, or for `s3://…`, `gs://…` and the like a UPath, which can be sent to a worker.

    `hf://OWNER/NAME` is a dataset of the Hub. UserError for a protocol that is unknown or not installed.
    """
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
        raise UserError(f"{source}: no library for {protocol}:// is installed. {error}.") from None
    except ValueError as error:
        raise UserError(f"{source} is not a URL that can be read ({error}).") from None
    return url


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
        raise WorkError(f"{url} cannot be reached ({reason}). Check its name and your access, or try again.") from error


def inside(root: AnyPath, name: str, start: AnyPath | None = None) -> AnyPath | None:
    """The path `name`, relative to `start` (default: `root`), or None where that is not below `root`.

    So a table from elsewhere cannot name other files of this machine. Symbolic links are followed: whoever made one in
    the folder did so on this machine.
    """
    start, url = start or root, is_url(root)
    if not name.startswith("/") and ".." not in name and ":" not in name and (start == root or root in start.parents):
        return start / name  # nearly every name; the rest takes ten times as long
    absolute = name if name.startswith("/") or (url and "://" in name) else f"{start.absolute()}/{name}"
    root_protocol, root_path = _normalize(str(root.absolute()), url)
    protocol, path = _normalize(absolute, url)
    prefix = f"{root_path.rstrip('/')}/"
    return root / path[len(prefix) :] if protocol == root_protocol and path.startswith(prefix) else None


def fold_name(name: str) -> str:
    """A name for comparison, without letter case and with composed letters (NFC), as file systems differ in both."""
    return unicodedata.normalize("NFC", name).casefold()


def relative_path(path: AnyPath, folder: AnyPath) -> PurePosixPath:
    """`path` relative to `folder`, in which it lies; both are URLs or neither is."""
    if is_url(path) or is_url(folder):
        return PurePosixPath(str(path)[len(str(folder)) :].lstrip("/"))
    return PurePosixPath(path.relative_to(folder).as_posix())


def path_exists(path: AnyPath) -> bool:
    """Whether the file exists; False for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long or holds a null byte
        return False


def _normalize(path: str, url: bool) -> tuple[str, str]:
    """Protocol ("" for a path of this machine) and path without `..`."""
    protocol, _, rest = path.partition("://") if url else ("", "", path)
    return protocol, posixpath.normpath(f"/{rest.lstrip('/')}")

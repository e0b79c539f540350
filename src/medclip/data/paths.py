"""Where a source lies: a path of this machine, or a URL of any file system that fsspec knows."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from medclip.errors import UserError, WorkError

if TYPE_CHECKING:
    from upath import UPath

AnyPath: TypeAlias = "Path | UPath"


def parse_path(source: str) -> AnyPath:
    """A path, or for `s3://…`, `gs://…` and the like one that works as a path does and can be sent to a worker.

    `hf://OWNER/NAME` is a dataset of the Hub. Raises UserError for a protocol that is unknown or not installed.
    """
    protocol, url, rest = source.partition("://")
    if not url:
        return Path(source)
    from upath import UPath

    if protocol == "hf" and not rest.startswith("datasets/"):
        source = f"hf://datasets/{rest}"
    try:
        found = UPath(source)
        found.fs  # noqa: B018  the library behind a protocol is imported here
    except ImportError as error:
        raise UserError(f"{source}: no library for {protocol}:// is installed. {error}.") from None
    except ValueError as error:
        raise UserError(f"{source} is no URL that can be read ({error}).") from None
    return found


def is_url(path: object) -> bool:
    """Whether it is a place that is not on this machine."""
    return hasattr(path, "fs")


@contextmanager
def storage_errors(url: AnyPath, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Whatever the library behind a URL raises, and each has kinds of its own, ends as a WorkError; `but` pass."""
    try:
        yield
    except (UserError, WorkError, *but):
        raise
    except Exception as error:
        said = str(error).strip().splitlines()
        why = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
        raise WorkError(f"{url} cannot be reached ({why}). Check its name and your access, or try again.") from error


def inside(root: AnyPath, name: str, start: AnyPath | None = None) -> AnyPath | None:
    """What `name` names, counted from `start` (else `root`), or None where that is not below `root`.

    A table that someone else wrote can so name no other file of this machine. Links are followed: whoever laid one
    into the folder did so on this machine.
    """
    start, url = start or root, is_url(root)
    if not name.startswith("/") and ".." not in name and ":" not in name and start.is_relative_to(root):
        return start / name  # nearly every name; the rest costs ten times as long
    whole = name if name.startswith("/") or (url and "://" in name) else f"{start.absolute()}/{name}"
    (protocol, top), (other, there) = _normal(str(root.absolute()), url), _normal(whole, url)
    top = f"{top.rstrip('/')}/"
    return root / there[len(top) :] if protocol == other and there.startswith(top) else None


def path_exists(path: AnyPath) -> bool:
    """Whether it is a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long or holds a null byte
        return False


def _normal(path: str, url: bool) -> tuple[str, str]:
    """Protocol and path without `..`."""
    protocol, _, rest = path.partition("://") if url else ("", "", path)
    return protocol, posixpath.normpath(f"/{rest.lstrip('/')}")

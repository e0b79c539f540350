"""What a cell of images holds, and the files and archives that its paths mean."""

from __future__ import annotations

import ast
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from medclip.data.images import to_png
from medclip.data.paths import AnyPath, fold_name, inside, is_url, path_exists
from medclip.errors import ImageError

MISSING = "image missing"
TRIED = "also tried: / for \\, NFC and NFD, another letter case, the archives (.zip) beside it"
PYTHON_OBJECT = "image cell is the text of a Python object, not a path or an image"
DAMAGED_BYTES = "image cell is the text of Python bytes, cut or damaged"
MAX_MEMBER_BYTES = 2**28
_ARCHIVE_SUFFIX = ".zip"


def cell_text(value: Any) -> str:
    """The text of a cell; "" where a value is missing."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    # NaN differs from itself; pandas' NA refuses to say whether it does
    return "" if value is None or type(value).__name__ == "NAType" or value != value else str(value)


def parse_literal(text: str) -> Any:
    """The value of a Python literal. Raises ValueError for any other text, however long or deep."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(str(error)) from None


def cell_images(value: Any) -> list[str | bytes]:
    """The paths and the encoded images of a cell: one, or several of a list.

    Also out of Hugging Face's {"bytes", "path"}, and of lists, bytes and such objects that a table holds as Python or
    JSON writes them. Raises ImageError for an array of wrong shape and for the text of anything else of Python.
    """
    if isinstance(value, str):
        value = _parse_python(value)
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        return [image for item in value for image in cell_images(item)]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, Image.Image | np.ndarray):
        return [to_png(value)]
    image = value if isinstance(value, bytes) and value else cell_text(value)
    return [image] if image else []


def _parse_python(text: str) -> Any:
    """The value of a text that is the `repr` of bytes, of a list or of {"bytes", "path"}; other texts are paths."""
    stripped = text.strip()
    if stripped.startswith("<") and stripped.endswith(">"):
        raise ImageError(PYTHON_OBJECT)
    is_bytes = stripped[:2] in ("b'", 'b"')
    if not (is_bytes or (stripped[:1], stripped[-1:]) in (("[", "]"), ("{", "}"))):
        return text
    try:
        value = parse_literal(stripped)
    except ValueError:
        try:
            value = parse_literal(stripped.replace("null", "None"))
        except ValueError:
            if is_bytes or "b'" in stripped or 'b"' in stripped:
                raise ImageError(DAMAGED_BYTES) from None
            return text
    if isinstance(value, list) and not all(isinstance(item, str | bytes | dict) for item in value):
        return text
    return value if isinstance(value, list | bytes | dict) else text


class ImageFinder:
    """Finds the image of a path in a table, below `root`: a file, or the bytes of a member of an archive (.zip).

    The folder that the first path starts from (`root`, its `images`, the table's) is that of all. A path that means no
    file is tried with / for \\, composed and decomposed, and in any letter case, where that means one file only.
    """

    def __init__(self, root: AnyPath, folder: AnyPath):
        self._root, self._folder = root, folder
        self._start: AnyPath | None = None
        self._listings: dict[Path, dict[str, list[str]]] = {}
        self._archives: dict[Path, ImageArchive] = {}

    def __call__(self, name: str) -> AnyPath | bytes | None:
        """None for a path that leaves the root. Raises ImageError for an image that is missing or unreadable.

        Before the first image is found, a path that means no file is returned as it is.
        """
        if self._start and is_url(self._root):  # one request per image is enough: preparation reads it
            return inside(self._root, name, self._start)
        starts = [self._start] if self._start else [self._root, self._root / "images", self._folder]
        for start in starts:
            path = inside(self._root, name, start)
            if path is not None and path_exists(path):
                self._start = start
                return path
        path = inside(self._root, name, *starts[: len(starts) == 1])
        if path is None or is_url(path):
            return path
        root, local_starts = Path(str(self._root)), [Path(str(start)) for start in starts]
        for start in local_starts:
            respelled = self._respell(name, root, start)
            if respelled is not None:
                self._start = start
                return respelled
        if (image := self._read_member(name, root, local_starts)) is not None:
            return image
        if self._start:
            raise ImageError(MISSING)
        return path

    def _respell(self, name: str, root: Path, start: Path) -> Path | None:
        for spelling in _spellings(name):
            path = inside(root, spelling, start)
            if path is not None and path_exists(path):
                return Path(str(path))
        path = inside(root, name.replace("\\", "/"), start)
        match = root
        for part in () if path is None else Path(str(path)).relative_to(root).parts:
            names = self._list(match).get(fold_name(part), [])
            if len(names) != 1:  # of several that differ in letter case only, none is meant for certain
                return None
            match /= names[0]
        return match if path_exists(match) else None

    def _list(self, folder: Path) -> dict[str, list[str]]:
        """The names in a folder by their `fold_name`."""
        if folder not in self._listings:
            listing = self._listings[folder] = {}
            try:
                for path in folder.iterdir():
                    listing.setdefault(fold_name(path.name), []).append(path.name)
            except OSError:
                pass
        return self._listings[folder]

    def _read_member(self, name: str, root: Path, starts: list[Path]) -> bytes | None:
        """The bytes of archive.zip/PATH, or of PATH in an archive in the folder that paths start from."""
        path = PurePosixPath(name.replace("\\", "/"))
        for start in dict.fromkeys(starts):
            for number, part in enumerate(path.parts):
                if part.lower().endswith(_ARCHIVE_SUFFIX):
                    archive = inside(root, str(PurePosixPath(*path.parts[: number + 1])), start)
                    if archive is not None and path_exists(archive):
                        return self._open(Path(str(archive))).read(str(PurePosixPath(*path.parts[number + 1 :])))
            for names in self._list(start).values():
                for archive in (start / other for other in names if other.lower().endswith(_ARCHIVE_SUFFIX)):
                    if (image := self._open(archive).read(str(path))) is not None:
                        return image
        return None

    def _open(self, path: Path) -> ImageArchive:
        if path not in self._archives:
            self._archives[path] = ImageArchive(path)
        return self._archives[path]


class ImageArchive:
    """The members of a .zip by name; nothing is unpacked to the disk. One that is damaged has none."""

    def __init__(self, path: Path):
        self._members: dict[str, list[zipfile.ZipInfo]] = {}
        try:
            self._file = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError):
            return
        for member in self._file.infolist():
            if not member.is_dir():
                self._members.setdefault(fold_name(PurePosixPath(member.filename).name), []).append(member)

    def read(self, name: str) -> bytes | None:
        """The one member whose path ends in `name`; None where there is none. Raises ImageError as `read_member`."""
        parts = PurePosixPath(fold_name(name)).parts
        same_name = self._members.get(parts[-1], []) if parts else []
        members = [m for m in same_name if PurePosixPath(fold_name(m.filename)).parts[-len(parts) :] == parts]
        exact = [member for member in members if PurePosixPath(fold_name(member.filename)).parts == parts]
        if len(members := exact or members) != 1:
            return None
        return read_member(self._file, members[0])


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a member. Raises ImageError where it is too large, encrypted or damaged."""
    if member.file_size > MAX_MEMBER_BYTES:
        raise ImageError(f"image over {MAX_MEMBER_BYTES >> 20} MiB in an archive")
    if member.flag_bits & 1:
        raise ImageError("image in an encrypted archive")
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError):
        raise ImageError("image unreadable in its archive") from None


def _spellings(name: str) -> Iterator[str]:
    """Other ways to write a path."""
    for path in (name, name.replace("\\", "/")):
        yield from (path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path))

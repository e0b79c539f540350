"""What a cell of images holds, and the files and archives that its paths mean."""

from __future__ import annotations

import ast
import base64
import re
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from medclip.data.images import to_png
from medclip.data.paths import (
    AnyPath,
    fold_name,
    inside,
    is_url,
    leaves_folder,
    path_exists,
    relative_path,
    special_kind,
)
from medclip.data.schema import DicomFrame
from medclip.data.sources.path_spellings import ForeignPaths, first_file, spellings
from medclip.errors import REMOTE, ImageError

MISSING = "image missing"
OUTSIDE = "image outside the table's folder (see --image-root)"
PYTHON_OBJECT = "image cell is the text of a Python object, not a path or an image"
DAMAGED_BYTES = "image cell is the text of Python bytes, cut or damaged"
NESTED = "image cell is nested too deeply"
NUMBERS = "image cell is a list of numbers, not a path or an encoded image"
DAMAGED_BASE64 = "image cell is base64, cut or damaged"
MAX_MEMBER_BYTES = 2**28
_MAX_OUTLINE_CHARACTERS = 2**20  # of a literal without its strings: a syntax tree has 500 bytes for each
_STRINGS = re.compile(
    r"""'''(?:[^'\\]++|\\.|'(?!''))*+(?:'''|\\?\Z)|'(?:[^'\\]++|\\.)*+(?:'|\\?\Z)"""
    r'|"""(?:[^"\\]++|\\.|"(?!""))*+(?:"""|\\?\Z)|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)',
    re.DOTALL,
)
_HIDES_PARTS = re.compile(r"#|[ft]r?'", re.IGNORECASE)
"""What would hide a part within a string, in what `_STRINGS` leaves: a comment with a quotation mark, an f-string."""
_DATA_URI = re.compile(r"data:(?:image|application)/[\w.+-]+;base64,", re.IGNORECASE)
_BASE64_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGODlh", "R0lGODdh", "UklGR", "SUkqA", "TU0AK")
"""JPEG, PNG, GIF, WebP and TIFF in base64."""
_MIN_BASE64_CHARACTERS = 100  # no image is shorter, and few paths are longer
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://(?<!file://)")
_ARCHIVE_SUFFIX = ".zip"
_TEXT_SUFFIXES = (".txt", ".json", ".xml", ".csv", ".md")


def cell_text(value: Any) -> str:
    """The text of a cell; "" where a value is missing."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    # NaN differs from itself; pandas' NA refuses to say whether it does
    return "" if value is None or type(value).__name__ == "NAType" or value != value else str(value)


def parse_literal(text: str) -> Any:
    """The value of a Python literal. Raises ValueError for any other text, however long or deep, and for many parts."""
    outline = _STRINGS.sub("'", text)
    if len(outline) > _MAX_OUTLINE_CHARACTERS or _HIDES_PARTS.search(outline):
        raise ValueError("it has too many parts, or what no literal has")
    try:
        return ast.literal_eval(text)
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(str(error)) from None


def cell_images(value: Any) -> list[str | bytes]:
    """The paths and the encoded images of a cell: one, or several of a list.

    Also out of Hugging Face's {"bytes", "path"}, of base64 with or without data:image/…, and of lists, bytes and such
    objects that a table holds as Python or JSON writes them. Raises ImageError for an array of wrong shape, for base64
    that is damaged, for numbers, for the text of anything else of Python, and for a list that is nested deeper than
    Python recurses.
    """
    try:
        return _images(value)
    except RecursionError:
        raise ImageError(NESTED) from None


def _images(value: Any) -> list[str | bytes]:
    if isinstance(value, str):
        value = _decode_base64(value) or _parse_python(value)
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        if any(isinstance(item, int | float) for item in value[:1]):
            raise ImageError(NUMBERS)
        return [image for item in value for image in _images(item)]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, Image.Image | np.ndarray):
        return [to_png(value)]
    image = value if isinstance(value, bytes) and value else cell_text(value)
    return [image] if image else []


def _decode_base64(text: str) -> bytes | None:
    """The bytes of a text that is an image in base64; None for another text."""
    uri = _DATA_URI.match(text)
    if not uri and (len(text) < _MIN_BASE64_CHARACTERS or not text.startswith(_BASE64_STARTS)):
        return None
    digits = "".join(text[uri.end() if uri else 0 :].split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError:
        if uri or "." not in text:
            raise ImageError(DAMAGED_BASE64) from None
        return None


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


class UsedFiles:
    """The files that a source has used, by hash (about 60 bytes each), and the archives that it has opened.

    Images of pairs are added where they are counted; readers add what else they use.
    """

    def __init__(self):
        self.archives: dict[Path, ImageArchive] = {}
        self._files: set[int] = set()
        self._folders: dict[str, AnyPath] = {}

    def add(self, file: AnyPath) -> None:
        """Note that a file is used."""
        if (key := hash(str(file))) not in self._files:
            self._files.add(key)
            self._folders.setdefault(str(file.parent), file.parent)

    def add_image(self, image: AnyPath | bytes | DicomFrame) -> None:
        """Note that an image is used, where it is a file."""
        if not isinstance(image, bytes | DicomFrame):
            self.add(image)

    def __contains__(self, file: AnyPath) -> bool:
        return hash(str(file)) in self._files

    def has_below(self, folder: AnyPath) -> bool:
        """Whether a file below the folder is used."""
        return any(f"{name}/".startswith(f"{folder}/") for name in self._folders)

    def top_folders(self, root: AnyPath) -> list[AnyPath]:
        """The folders directly below `root` that hold used files."""
        below = (folder for folder in self._folders.values() if root in folder.parents)
        tops = dict.fromkeys(root / relative_path(folder, root).parts[0] for folder in below)
        return [folder for folder in tops if folder.is_dir()]  # an image that is missing may be used too


class ImageFinder:
    """Finds the image of a path in a table, below `root`: a file, or the bytes of a member of an archive (.zip).

    The folder that the first path starts from (`root`, its `subfolders`, the table's) is that of all. A path that means
    no file is tried with / for \\, composed and decomposed, in any letter case, and with any suffix where it has none,
    where that means one file only; an absolute one also without its beginning (`ForeignPaths`). `named` is the root
    that the user named, in place of the table's folder.
    """

    def __init__(
        self, folder: AnyPath, named: AnyPath | None, used: UsedFiles, subfolders: Sequence[str] = ("images",)
    ):
        self._root, self._is_named, self._used = named or folder, named is not None, used
        self._starts = [self._root, *(self._root / name for name in subfolders), folder]
        self._start: AnyPath | None = None
        self._listings: dict[Path, dict[str, list[str]]] = {}
        self._stems: dict[Path, dict[str, list[str]]] = {}
        self._archives: dict[Path, list[Path]] = {}
        self._foreign: ForeignPaths | None = None

    def __call__(self, *names: str) -> AnyPath | bytes | None:
        """The image at the first of the paths `names` that there is, noted as used; None where all leave the root.

        Raises ImageError for an image that is missing or unreadable. Behind a URL, and before the first image is found,
        a path that means no file is returned: preparation says that it is missing.
        """
        image = self._find(names)
        if image is not None:
            self._used.add_image(image)
        return image

    def _find(self, names: Sequence[str]) -> AnyPath | bytes | None:
        starts = [self._start] if self._start else self._starts
        allowed = [path for name in names if (path := inside(self._root, name, self._start)) is not None]
        if self._start and is_url(self._root) and len(names) == 1:  # one request an image: preparation reads it
            return next(iter(allowed), None)
        for start in starts:
            for path in (inside(self._root, name, start) for name in names):
                if path is not None and path_exists(path):
                    self._start = start
                    return path
        if is_url(self._root):
            return next(iter(allowed), None)
        root, local_starts = Path(str(self._root)), [Path(str(start)) for start in self._starts]
        if self._foreign is None:
            readings = (first_file, self._first_respelled)
            self._foreign = ForeignPaths(
                root, self._is_named, [partial(find, root=root, starts=local_starts) for find in readings]
            )
        if (image := next(filter(None, map(self._foreign.find, names)), None)) is not None:
            return image
        if any(map(_URL.match, names)):
            raise ImageError(REMOTE)
        if not allowed:
            return None
        local_starts = [Path(str(start)) for start in starts]
        for start in local_starts:
            for name in names:
                respelled = self._respell(name, root, start)
                if respelled is not None:
                    self._start = start
                    return respelled
        for name in names:
            if (image := self._read_member(name, root, local_starts)) is not None:
                return image
        if self._start:
            raise ImageError(MISSING)
        return allowed[0]

    def _first_respelled(self, name: str, root: Path, starts: Sequence[Path]) -> Path | None:
        return next(filter(None, (self._respell(name, root, start) for start in starts)), None)

    def _respell(self, name: str, root: Path, start: Path) -> Path | None:
        for spelling in spellings(name):
            path = inside(root, spelling, start)
            if path is not None and path_exists(path):
                return Path(str(path))
        path = inside(root, name.replace("\\", "/"), start)
        match = root
        for part in () if path is None else Path(str(path)).relative_to(root).parts:
            names = self._list(match).get(fold_name(part)) or self._list_stems(match).get(fold_name(part), [])
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

    def _list_stems(self, folder: Path) -> dict[str, list[str]]:
        """The names in a folder, but for those of texts, by their `fold_name` without suffix."""
        if folder not in self._stems:
            stems = self._stems[folder] = {}
            for name in chain.from_iterable(self._list(folder).values()):
                path = PurePosixPath(name)
                if path.suffix and path.suffix.lower() not in _TEXT_SUFFIXES:
                    stems.setdefault(fold_name(path.stem), []).append(name)
        return self._stems[folder]

    def _list_archives(self, folder: Path) -> list[Path]:
        if folder not in self._archives:
            names = chain.from_iterable(self._list(folder).values())
            self._archives[folder] = [folder / name for name in names if name.lower().endswith(_ARCHIVE_SUFFIX)]
        return self._archives[folder]

    def _read_member(self, name: str, root: Path, starts: list[Path]) -> bytes | None:
        """The bytes of archive.zip/PATH, or of PATH in an archive in the folder that paths start from."""
        path = PurePosixPath(name.replace("\\", "/"))
        for start in dict.fromkeys(starts):
            for number, part in enumerate(path.parts):
                if part.lower().endswith(_ARCHIVE_SUFFIX):
                    archive = inside(root, str(PurePosixPath(*path.parts[: number + 1])), start)
                    if archive is not None and path_exists(archive):
                        return self._open(Path(str(archive))).read(str(PurePosixPath(*path.parts[number + 1 :])))
            for archive in self._list_archives(start):
                if (image := self._open(archive).read(str(path))) is not None:
                    return image
        return None

    def _open(self, path: Path) -> ImageArchive:
        if path not in self._used.archives:
            self._used.archives[path] = ImageArchive(path)
        return self._used.archives[path]


def find_image(locate: Callable[..., AnyPath | bytes | None], *cells: str | bytes) -> AnyPath | bytes | str:
    """The image in a cell, or that `locate` finds at the first of several paths; else the reason why there is none."""
    if cells and isinstance(cells[0], bytes):
        return cells[0]
    try:
        image = locate(*cells)
    except ImageError as error:
        return str(error)
    return OUTSIDE if image is None else image


class ImageArchive:
    """The members of a .zip by name; nothing is unpacked to the disk. One that is damaged has none."""

    def __init__(self, path: Path):
        self._members: dict[str, list[zipfile.ZipInfo]] = {}
        self._read: set[str] = set()
        if special_kind(path) or leaves_folder(path, path.parent):
            return
        try:
            self._file = zipfile.ZipFile(path)
        except Exception:  # what zipfile raises for a damaged one has many types
            return
        for member in self._file.infolist():
            member.filename = member.filename.replace("\\", "/")  # as .NET wrote paths
            if not member.filename.endswith("/") and not is_link(member):
                self._members.setdefault(fold_name(PurePosixPath(member.filename).name), []).append(member)

    def read(self, name: str) -> bytes | None:
        """The one member whose path ends in `name`; None where there is none. Raises ImageError as `read_member`."""
        parts = PurePosixPath(fold_name(name)).parts
        same_name = self._members.get(parts[-1], []) if parts else []
        members = [m for m in same_name if PurePosixPath(fold_name(m.filename)).parts[-len(parts) :] == parts]
        exact = [member for member in members if PurePosixPath(fold_name(member.filename)).parts == parts]
        if len(members := exact or members) != 1:
            return None
        self._read.add(members[0].filename)
        return read_member(self._file, members[0], MAX_MEMBER_BYTES)

    @property
    def num_read(self) -> int:
        """How many members were read."""
        return len(self._read)

    def unread(self) -> Iterator[str]:
        """The names of the other members."""
        names = (member.filename for members in self._members.values() for member in members)
        return (name for name in names if name not in self._read)


def is_link(member: zipfile.ZipInfo) -> bool:
    """Whether a member stands for a link, a pipe or a device, as archives of Unix hold them."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    return kind not in (0, stat.S_IFREG, stat.S_IFDIR)


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, max_bytes: int) -> bytes:
    """The bytes of a member. Raises ImageError where it is too large, encrypted or damaged."""
    if member.file_size > max_bytes:
        raise ImageError(f"archive member over {max_bytes >> 20} MiB")
    if member.flag_bits & 1:
        raise ImageError("image in an encrypted archive")
    try:
        return archive.read(member)
    except Exception:  # what zipfile raises for a damaged one has many types
        raise ImageError("image unreadable in its archive") from None

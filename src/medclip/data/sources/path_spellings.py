"""Other ways to write a path of a table: in other characters, or as it was on another machine."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from medclip.data.paths import inside, path_exists
from medclip.progress import console

TRIED = (
    "also tried: / for \\, NFC and NFD, another letter case, without spaces around it, %20 as a space, the archives "
    "(.zip) beside it, any suffix where it has none"
)
_BLANKS = " \t\r\n\u00a0\ufeff"
_ABSOLUTE = re.compile(r"/|[A-Za-z]:/")


def spellings(name: str) -> Iterator[str]:
    """Other ways to write a path."""
    plain = name.strip(_BLANKS)
    for path in dict.fromkeys((name, name.replace("\\", "/"), plain, plain.replace("\\", "/"), unquote(plain))):
        yield from (path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path))


class ForeignPaths:
    """The files below `root` that absolute paths mean once their beginning is left out.

    The beginning is the shortest one whose rest is a file, as it is or in another spelling, and one for all paths of a
    table, so that a/1.png and b/1.png never become one image. The rest begins with a folder, or lies in one that is
    called as the last left out, unless `is_named`: whoever named `root` said where the files are. `readings` look for
    a path below `root`: as it is, then in other spellings.
    """

    def __init__(self, root: Path, is_named: bool, readings: Sequence[Callable[[str], Path | None]]):
        self._root, self._is_named, self._readings = root, is_named, readings
        self._beginning: str | None = None

    def find(self, name: str) -> Path | None:
        """The file that a path means here; None for a relative one and where there is none."""
        path = name.removeprefix("file://").replace("\\", "/")
        if not _ABSOLUTE.match(path):
            return None
        if self._beginning is not None:
            rest = path[len(self._beginning) :] if path.startswith(self._beginning) else ""
            return next(filter(None, (find(rest) for find in self._readings)), None) if rest else None
        parts = PurePosixPath(path).parts
        for find, number in product(self._readings, range(1, len(parts))):
            rest = "/".join(parts[number:])
            file = find(rest)
            if file is not None and (
                number < len(parts) - 1 or self._is_named or file.parent.name == parts[number - 1]
            ):
                self._beginning = path[: len(path) - len(rest)]
                root = self._root.absolute()
                console.print(
                    f"the table holds absolute paths of another machine: their ends are read below {root}",
                    soft_wrap=True,
                )
                return file
        return None


def first_file(name: str, root: Path, starts: Sequence[Path]) -> Path | None:
    """The first file that a path means below `root`, from any of the folders that paths start from."""
    paths = (inside(root, name, start) for start in starts)
    return next((Path(str(path)) for path in paths if path is not None and path_exists(path)), None)

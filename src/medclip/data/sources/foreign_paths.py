"""Absolute paths of another machine in a table, whose files were brought along with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from medclip.data.paths import inside, path_exists
from medclip.progress import console

_ABSOLUTE = re.compile(r"/|[A-Za-z]:/")


class ForeignPaths:
    """The files below `root` that absolute paths mean once their beginning is left out.

    The beginning is the shortest one whose rest is a file, and one for all paths of a table, so that a/1.png and
    b/1.png never become one image. The rest begins with a folder, or lies in one that is called as the last left out.
    """

    def __init__(self, root: Path, starts: Sequence[Path]):
        self._root, self._starts = root, starts
        self._beginning: str | None = None

    def find(self, name: str) -> Path | None:
        """The file that a path means here; None for a relative one and where there is none."""
        path = name.removeprefix("file://").replace("\\", "/")
        if not _ABSOLUTE.match(path):
            return None
        if self._beginning is not None:
            return self._first_file(path[len(self._beginning) :]) if path.startswith(self._beginning) else None
        parts = PurePosixPath(path).parts
        for number in range(1, len(parts)):
            rest = "/".join(parts[number:])
            file = self._first_file(rest)
            if file is not None and (number < len(parts) - 1 or file.parent.name == parts[number - 1]):
                self._beginning = path[: len(path) - len(rest)]
                console.print(
                    f"the table holds absolute paths of another machine: their ends are read below {self._root}",
                    soft_wrap=True,
                )
                return file
        return None

    def _first_file(self, rest: str) -> Path | None:
        paths = (inside(self._root, rest, start) for start in self._starts)
        return next((Path(str(path)) for path in paths if path is not None and path_exists(path)), None)

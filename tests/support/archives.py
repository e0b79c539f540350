"""Archives for the tests: the bytes of a .tar or a .zip of given members, in order; a name may occur twice."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable
from typing import Literal


def tar_bytes(
    members: Iterable[tuple[str, bytes | int]], mode: Literal["w", "w:gz"] = "w", link_to: str = "1.png"
) -> bytes:
    """A .tar of (name, content), or of (name, type) for what is no file; `mode` as `tarfile.open` takes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            if isinstance(content, int):
                entry.type, entry.linkname = bytes([content]), link_to
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def zip_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    """A .zip of (name, content), compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return out.getvalue()

"""Files that others wrote, read whole: never more of one than a bound, whatever its size says."""

from __future__ import annotations

import io
import re
import tomllib
from typing import Any

from medclip.errors import UserError

MAX_TEXT_BYTES = 2**24
"""Of a text that people write."""
MAX_CARD_BYTES = 2**20
"""Of a model card, whose head is YAML: Python reads some 100 kB of it a second."""
_BLOCK_BYTES = 2**20
_MAX_NAME_PARTS = 32
_TOML_TEXT = re.compile(  # strings and comments; what is not closed is one too, so that the time grows with the length
    r"""\"{3}(?:[^"\\]|\\.|"{1,2}(?!"))*+(?:"{3})?|'{3}(?:[^']|'{1,2}(?!'))*+(?:'{3})?"""
    r"""|"(?:[^"\\\n]|\\[^\n])*+"?|'[^'\n]*+'?|\#[^\n]*+""",
    re.DOTALL,
)
_LONG_NAME = re.compile(rf"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{_MAX_NAME_PARTS}}}")


class TooLargeError(UserError):
    """A file has more bytes than are read of one of its kind."""


def read_bounded(path: Any, max_bytes: int) -> bytes:
    """The bytes of a file or URL. TooLargeError where it has more: a device or a server may give bytes without end."""
    content = bytearray()
    with path.open("rb") as file:
        while block := file.read(min(_BLOCK_BYTES, max_bytes + 1 - len(content))):
            content += block
            if len(content) > max_bytes:
                raise TooLargeError(f"{path} has over {max_bytes:,} bytes, where such files have fewer.")
    return bytes(content)


def read_text(path: Any, max_bytes: int = MAX_TEXT_BYTES, errors: str = "strict") -> str:
    """The text of a file in UTF-8, each line ended by a line feed, as `Path.read_text`; errors as `read_bounded`."""
    return io.TextIOWrapper(io.BytesIO(read_bounded(path, max_bytes)), "utf-8", errors).read()


def read_toml(path: Any) -> dict[str, Any]:
    """The content of a TOML file, after a byte order mark if an editor wrote one; errors as `read_text`.

    ValueError or RecursionError for what is none. ValueError too for a name of many parts (a.b.c), which Python reads
    in time that grows with the square.
    """
    text = read_text(path).removeprefix("\ufeff")
    if _LONG_NAME.search(_TOML_TEXT.sub("x", text)):
        raise ValueError(f"it has a name of more than {_MAX_NAME_PARTS} parts")
    return tomllib.loads(text)

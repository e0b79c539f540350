"""Text of datasets, models and paths as text alone: on a terminal it moves no cursor and turns no line around."""

from __future__ import annotations

import logging
import re

# C0 but for newline and tab, DEL, C1; line separators, controls of direction (Unicode TR 9), lone surrogates
_CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text with control characters as JSON writes them (`\u001b`): JSON keeps its value."""
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold a text: JSON, file names and words of a command line can hold lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class PlainFormatter(logging.Formatter):
    """The formatter of a log that is read on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return printable(super().format(record))

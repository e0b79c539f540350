"""Model folders with one file damaged: its bytes, or one field of its JSON."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HOSTILE_BYTES = {
    "empty": b"", "blank": b" \n", "zeros": b"\0" * 100, "not UTF-8": b'{"a": "\xe9"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"a": 1}', "null": b"null", "a list": b"[]", "a number": b"3", "text": b'"x"',
    "deep lists": b"[" * 100_000, "deep objects": b'{"a":' * 100_000, "a huge number": b'{"a": ' + b"9" * 5000 + b"}",
    "cut": b'{"a": [1, 2', "not JSON": b"model_type: clip", "a key twice": b'{"a": 1, "a": 2}',
}  # fmt: skip
"""None of these is a config."""
HOSTILE_VALUES = (
    *(None, True, False, 0, -1, 3, 10**12, 10**400, -1.5, 1e308, float("nan"), float("inf")),
    *("", "x", "../../x", "\x1b[2J", [], [1], ["x"], [[[]]], {}, {"a": 1}),
)
_MAX_ITEMS, _MAX_DEPTH = 60, 5


def json_files(folder: Path) -> list[Path]:
    """The JSON files of a folder and of the folders in it."""
    return sorted(folder.rglob("*.json"))


def hostile_fields(content: Any) -> Iterator[tuple[tuple[str | int, ...], Any, str]]:
    """Every field of a file's JSON with every hostile value: the way to it, the value, and the file."""
    for way in _ways(content):
        for value in HOSTILE_VALUES:
            changed = node = copy.deepcopy(content)
            for step in way[:-1]:
                node = node[step]
            node[way[-1]] = value
            yield way, value, json.dumps(changed)


def _ways(value: Any, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if len(above) == _MAX_DEPTH or not isinstance(value, dict | list):
        return
    items = list(value.items() if isinstance(value, dict) else enumerate(value[:3]))
    for step, child in items[:_MAX_ITEMS]:
        yield (*above, step)
        yield from _ways(child, (*above, step))

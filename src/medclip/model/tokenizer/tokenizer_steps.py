"""The steps of a tokenizer.json that is taken as it is: few, and none that takes hours or all memory on a caption.

The library carries out whatever the file says. A replacement after another can double a text forty times, and an
expression can try more ways to match than there is time for.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from medclip.errors import UserError
from medclip.model.tokenizer.quick_expressions import is_quick
from medclip.model.tokenizer.sentencepiece_model import parse_charsmap

_MAX_STEPS, _MAX_DEPTH = 100, 5
_MAX_GROWTH = 1000
"""Characters that one character of a caption may become; NFKC makes 18 of one."""
_MAX_ADDED = 1000
"""Characters put before a caption, and special tokens around it."""
_MAX_WORD_CHARACTERS = 1000  # of WordPiece, which takes time quadratic in them; BERT's is 100
_PARTS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "post_processor": "processors"}
_GROWTH = {"NFD": 4, "NFKD": 18, "NFC": 3, "NFKC": 18, "Lowercase": 3, "BertNormalizer": 4, "ByteLevel": 2}


def check_steps(raw: Mapping[str, Any], path: Path) -> None:
    """Raise UserError that names the step of a `tokenizer.json` that no caption should be given to."""
    for part, inner in _PARTS.items():
        steps = list(_flatten(raw.get(part), inner, f"{path}: {part}"))
        if len(steps) > _MAX_STEPS:
            raise UserError(f"{path}: {part} has more than {_MAX_STEPS} steps.")
        if (growth := prod(_growth(step, f"{path}: {part}") for step in steps)) > _MAX_GROWTH:
            raise UserError(f"{path}: {part} makes up to {growth:.0g} characters of one, where {_MAX_GROWTH} are room.")
        if sum(_num_added(step) for step in steps) > _MAX_ADDED:
            raise UserError(f"{path}: {part} adds more than {_MAX_ADDED} characters or tokens to a caption.")
    _check_model(raw.get("model"), path)


def _check_model(model: Any, path: Path) -> None:
    model = model if isinstance(model, Mapping) else {}
    longest = model.get("max_input_chars_per_word", 0)
    if not isinstance(longest, int) or longest > _MAX_WORD_CHARACTERS:
        raise UserError(
            f"{path}: model.max_input_chars_per_word is {str(longest)[:80]}, not a number up to {_MAX_WORD_CHARACTERS}."
        )
    if model.get("dropout"):
        raise UserError(f"{path}: model.dropout would give a caption another embedding each time; set it to null.")


def _flatten(step: Any, inner: str, place: str, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """A step, or those of a sequence, one after another."""
    if step is None:
        return
    if not isinstance(step, Mapping) or depth > _MAX_DEPTH:
        raise UserError(f"{place} is no step, or has steps deeper than {_MAX_DEPTH} within each other.")
    if step.get("type") != "Sequence":
        yield step
        return
    for part in step[inner] if isinstance(step.get(inner), list) else ():
        yield from _flatten(part, inner, place, depth + 1)


def _growth(step: Mapping[str, Any], place: str) -> float:
    """How many characters a step makes of one at most. UserError where its expression may take too long."""
    kind = step.get("type")
    pattern = step["pattern"] if isinstance(step.get("pattern"), Mapping) else {}
    expression, plain = pattern.get("Regex"), pattern.get("String")
    if isinstance(expression, str) and not is_quick(expression):
        raise UserError(
            f"{place} has the expression {expression[:80]!r}, which may try too many ways to match a caption: give one "
            "that repeats single characters and sets alone, once in each alternative."
        )
    if kind == "Replace":
        size = len(step["content"]) if isinstance(step.get("content"), str) else 0
        return max(1.0, size / len(plain)) if isinstance(plain, str) and plain else size + 1.0  # also where nothing is
    if kind == "Precompiled":
        return _charsmap_growth(step.get("precompiled_charsmap"), place)
    return float(_GROWTH.get(str(kind), 1))


def _charsmap_growth(encoded: Any, place: str) -> float:
    try:
        charsmap = parse_charsmap(base64.b64decode(encoded or ""))
    except (ValueError, TypeError, binascii.Error) as error:
        raise UserError(f"{place}: precompiled_charsmap cannot be read ({error}).") from None
    return float(max(map(len, charsmap.texts.split(b"\0")))) if charsmap else 1.0


def _num_added(step: Mapping[str, Any]) -> int:
    """Characters that a step puts before a caption, or tokens around it; too many where it repeats the caption."""
    if step.get("type") == "Prepend":
        return len(str(step.get("prepend")))
    if step.get("type") != "TemplateProcessing" or not isinstance(step.get("single"), list):
        return 0
    num_captions = sum(isinstance(item, Mapping) and "Sequence" in item for item in step["single"])
    return len(step["single"]) if num_captions <= 1 else _MAX_ADDED + 1

"""Which regular expressions of a tokenizer.json are quick on any caption, as those of published tokenizers are.

The library's engine (Oniguruma) goes back and tries another way where a match fails. An expression is taken where the
ways that it can try from one place are few, times the length of the text at most.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_MAX_CHARACTERS, _MAX_WAYS, _MAX_REPEATS, _MAX_DEPTH = 1000, 256, 8, 10
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START, _REST = r"[^\r\n\p{L}\p{N}]?", r"\s*[\r\n]+|\s+(?!\S)|\s+"
# Of GPT-4, Llama 3 and Qwen 2, and of GPT-4o: two repeats in an alternative, of which the second cannot fail for long.
_PUBLISHED = {
    rf"{_CONTRACTIONS}|{_START}\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_REST}"
    for digits in ("", "{1,3}")
} | {
    rf"{_START}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_START}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_REST}"
}
_ATOM = re.compile(
    r"\\[pP]\{\^?\w+\}|\\[xu][0-9A-Fa-f]{2,4}|\\[^0-9kgKRXxupP]|\[\^?(?:\\.|\[(?:\\.|[^][\\])*\]|[^][\\])+\]|[^\\()[\]|*+?{}]",
    re.DOTALL,
)  # not: earlier groups, calls of groups
_OPEN = re.compile(r"\((?:\?(?:[:=!>]|[ims]{1,3}:))?(?!\?)")
_QUANTIFIER = re.compile(r"(?:([*+]|\{\d{1,3},\})|\{(\d{1,3}),(\d{1,3})\}|\{(\d{1,3})\}|(\?))\??(?![*+?{])")
_UNBOUNDED = re.compile(r"[*+]|,\}")


class _Cost(NamedTuple):
    ways: int
    """To match from one place, each repeat without end counted once."""
    repeats: int
    """Without end, one after another: a text of n characters has n ways for each."""


class _TooComplex(ValueError):
    pass


def is_quick(expression: str) -> bool:
    """Whether a text of n characters takes an expression some n² steps at most."""
    if expression in _PUBLISHED:
        return True
    if len(expression) > _MAX_CHARACTERS:
        return False
    try:
        cost, end = _alternatives(expression, 0, 0)
    except _TooComplex:
        return False
    return end == len(expression) and len(_UNBOUNDED.findall(expression)) <= _MAX_REPEATS and _is_small(cost)


def _is_small(cost: _Cost) -> bool:
    return cost.ways <= _MAX_WAYS and cost.repeats <= 1


def _alternatives(expression: str, at: int, depth: int) -> tuple[_Cost, int]:
    """The cost of what stands from `at` on to the end of the group, and where that is."""
    if depth > _MAX_DEPTH:
        raise _TooComplex
    cost, at = _sequence(expression, at, depth)
    while expression[at : at + 1] == "|":
        other, at = _sequence(expression, at + 1, depth)
        cost = _Cost(cost.ways + other.ways, max(cost.repeats, other.repeats))
    return cost, at


def _sequence(expression: str, at: int, depth: int) -> tuple[_Cost, int]:
    cost = _Cost(1, 0)
    while at < len(expression) and expression[at] not in "|)":
        part, at = _item(expression, at, depth)
        cost = _Cost(cost.ways * part.ways, cost.repeats + part.repeats)
        if not _is_small(cost):
            raise _TooComplex
    return cost, at


def _item(expression: str, at: int, depth: int) -> tuple[_Cost, int]:
    """One character, set or group with its quantifier."""
    if atom := _ATOM.match(expression, at):
        cost, at = _Cost(1, 0), atom.end()
    elif group := _OPEN.match(expression, at):
        cost, at = _alternatives(expression, group.end(), depth + 1)
        if expression[at : at + 1] != ")":
            raise _TooComplex
        at += 1
    else:
        raise _TooComplex
    quantifier = _QUANTIFIER.match(expression, at)
    if quantifier is None:
        return cost, at
    unbounded, low, high, exact, _ = quantifier.groups()
    if unbounded or low or exact:
        if cost != _Cost(1, 0):  # ways within ways
            raise _TooComplex
        return _Cost(1 if unbounded or exact else abs(int(high) - int(low)) + 1, bool(unbounded)), quantifier.end()
    return _Cost(cost.ways + 1, cost.repeats), quantifier.end()

"""Finds the people that DICOM headers name in a running text, as people write names.

Words are compared by folded keys, never by patterns made of names, so the time is linear in the text. Neither accents,
letter case, apostrophes, hyphens, the order of names nor spaces between ideographs matter.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import accumulate, permutations
from typing import NamedTuple

from medclip.data.name_spelling import fold, inflect
from medclip.data.ordinary_words import (
    ABBREVIATIONS,
    CLINICAL,
    CUES,
    GIVEN_NAMES,
    ORDINARY,
    PARTICLES,
    SUFFIXES,
    TITLES,
)
from medclip.data.unspaced_names import UNSPACED, UNSPACED_RANGES, find_unspaced, fold_unspaced, unspaced_forms

MAX_JOINED_WORDS, MIN_JOINED_LETTERS = 4, 4
_MAX_GAP_CHARACTERS = 40
_NO_NAME_ALONE = ORDINARY | PARTICLES | TITLES | SUFFIXES
APOSTROPHES = "'’‘ʼʻʹʽ`´′＇‛"
_GAP = re.compile(rf"[\s,.^=&/_\-‐‑–—{APOSTROPHES}]*")
_TIGHT_GAP = re.compile(rf"\s?[{APOSTROPHES}\-‐‑]?\s{{0,2}}")
_DOTTED = re.compile(r"(?<![\w.])(?:[^\W\d_]\.[ \-‐]?){1,3}[^\W\d_](?:\.(?!\w)|(?![\w.]))")
_ASTRAL = re.compile("[^\0-\uffff]")
_ASCII_WORD = re.compile("[A-Za-z]+")


class Span(NamedTuple):
    """Where a value is in a text."""

    start: int
    end: int


@lru_cache
def _word_pattern(limit: int = sys.maxunicode // 8) -> re.Pattern[str]:
    """Letters below `limit` of scripts with spaces, with their marks; `re` looks ranges below 2**16 up in a table."""
    characters = "".join(map(chr, range(limit)))
    letters = re.sub(f"[{UNSPACED_RANGES}{APOSTROPHES}]|[\\W\\d_]", "\0", characters)
    marks = "".join(c if unicodedata.category(c)[0] == "M" else "\0" for c in characters)
    letter, mark = (
        "".join(f"{chr(run.start())}-{chr(run.end() - 1)}" for run in re.finditer("[^\0]+", kind))
        for kind in (letters, marks)
    )
    return re.compile(f"[{letter}][{letter}{mark}]*")


def _find_words(text: str) -> Iterator[re.Match[str]]:
    if text.isascii():
        return _ASCII_WORD.finditer(text)
    return (_word_pattern() if _ASTRAL.search(text) else _word_pattern(2**16)).finditer(text)


@dataclass(slots=True)
class _Name:
    """A value of representation PN: folded parts, and patterns of its ideographs."""

    parts: set[str] = field(default_factory=set)
    joined: set[str] = field(default_factory=set)
    compounds: set[str] = field(default_factory=set)
    initials: set[str] = field(default_factory=set)
    inflected: set[str] = field(default_factory=set)
    all_initials: set[str] = field(default_factory=set)
    """Those of the whole name together, in both orders: jd, dj, jqd, djq."""
    particles: set[str] = field(default_factory=set)
    unspaced: re.Pattern[str] | None = None


@lru_cache(1024)
def _parse_name(*values: str) -> _Name:
    """Family, given and middle names of each group; prefixes and suffixes are words of every report (MR, II)."""
    name = _Name()
    forms: dict[str, int] = {}
    for value in values:
        for script in value.split("="):
            components = script.split("^")[:3]
            _add_words(name, components)
            runs = [run for component in components for run in find_unspaced(_compose(component))]
            forms |= unspaced_forms(runs)
    if forms:
        name.unspaced = re.compile("|".join(sorted(forms, key=forms.__getitem__, reverse=True)))
    return name


def _compose(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _add_words(name: _Name, components: list[str]) -> None:
    whole: list[str] = []
    firsts: list[str] = []
    for position, component in enumerate(components):
        is_given = position > 0 or not any(components[1:])  # Ben Jones^, but Ben Ali^Omar
        spelling = _word_pattern().findall(_compose(component))
        for word in spelling:
            name.initials.update(c.lower() for c in word if c.isupper() and not word.isupper())  # XiaoDong
        words = [fold(word) for word in spelling]
        words = [keys for keys in words if keys[0] not in TITLES | SUFFIXES] or words  # Dr. Li, but Lord^Jane
        for keys in words:
            if len(keys[0]) == 1:
                name.initials.add(keys[0])
            elif keys[0] in PARTICLES and len(words) > 1 and not (is_given and keys[0] in GIVEN_NAMES):
                name.particles.update((keys[0], keys[0][0]))  # v. d. Berg
            else:
                name.parts.update(keys)
            name.initials.add(keys[0][0])
        if words and all(keys[0] in PARTICLES for keys in words):
            name.parts.update(*words)
        plain = [keys[0] for keys in words]
        name.inflected.update(
            form for keys in words if not is_ordinary(keys[0]) for key in keys for form in inflect(key)
        )
        firsts += ["".join(key[0] for key in plain if key not in PARTICLES or len(plain) == 1)]
        for start in range(len(plain)):
            for end in range(start + 2, min(start + MAX_JOINED_WORDS, len(plain)) + 1):
                name.joined.update(_spellings(words[start:end]))
        whole += ["".join(plain)] if plain else []
    family, *given = [letters for letters in firsts if letters] or [""]
    for given_name in {"".join(given), *given[:1]} - {""}:
        pairs = {(family, given_name), (family[:1], given_name), (family[:1], given_name[0])}
        name.all_initials.update(f for a, b in pairs for f in (a + b, b + a) if a and f not in ORDINARY)
    for length in range(2, len(whole) + 1):
        for order in permutations(whole, length):
            compounds = ["".join(order), order[0][0] + order[1], order[0] + order[1][0]]  # JaneDoe, JDoe, DoeJ
            name.compounds.update(key for key in compounds if len(key) >= MIN_JOINED_LETTERS and key not in ORDINARY)


def _spellings(words: list[tuple[str, ...]]) -> Iterator[str]:
    for number in range(max(map(len, words))):
        yield "".join(keys[min(number, len(keys) - 1)] for keys in words)


class Words:
    """A text, by the folded keys of its words and of up to four words joined; made once for all names."""

    def __init__(self, text: str) -> None:
        """`text` is in composed form (NFC)."""
        self.text = text
        self.spans = [Span(*match.span()) for match in _find_words(text)]
        self.keys = [fold(text[start:end]) for start, end in self.spans]
        self.unspaced = fold_unspaced(text) if UNSPACED.search(text) else ""
        self.positions: dict[str, list[int]] = {}
        for number, keys in enumerate(self.keys):
            for key in keys:
                self.positions.setdefault(key, []).append(number)
            plain = keys[0]
            if plain[-1] == "s" and len(plain) > 4 and text[self.spans[number][0]].isupper():  # Müllers Lunge
                for key in keys:
                    self.positions.setdefault(key[:-1], []).append(number)
        self._together = "".join([keys[0] for keys in self.keys])
        self.initials = dict(self._find_dotted())

    @cached_property
    def _starts(self) -> dict[int, int]:
        """Words, and their number, by the place in the folded words written together."""
        lengths = accumulate((len(keys[0]) for keys in self.keys), initial=0)
        return {place: number for number, place in enumerate(lengths)}

    def find_joined(self, key: str) -> Iterator[tuple[int, int]]:
        """Where two to four words with nothing of a sentence between them, such as O'Brien, are the key together."""
        place = self._together.find(key)
        while place >= 0:
            first, last = self._starts.get(place), self._starts.get(place + len(key))
            if first is not None and last is not None and 1 < last - first <= MAX_JOINED_WORDS:
                gaps = ((self.spans[n].end, self.spans[n + 1].start) for n in range(first, last - 1))
                if all(_TIGHT_GAP.fullmatch(self.text, *gap) for gap in gaps) and self._is_telling(first, last):
                    yield first, last
            place = self._together.find(key, place + 1)

    def _find_dotted(self) -> Iterator[tuple[int, str]]:
        """Runs of two to four initials with dots, J. D., by their first word."""
        for run in _DOTTED.finditer(self.text):
            letters = "".join(fold(letter)[0] for letter in _word_pattern().findall(run[0]))
            is_panel = " " in run[0] and letters in "abcdefghij"  # A. B. are two panels of a figure
            first = bisect_left(self.spans, (run.start(),))
            is_word = first < len(self.spans) and self.spans[first].start == run.start()
            if run[0].isupper() and is_word and not is_panel:
                yield first, letters

    def gap(self, first: int) -> str | None:
        """What separates a word from the next where it may be inside a name, otherwise None."""
        if not 0 <= first < len(self.spans) - 1:
            return None
        start, end = self.spans[first].end, self.spans[first + 1].start
        is_gap = end - start <= _MAX_GAP_CHARACTERS and _GAP.fullmatch(self.text, start, end)
        return self.text[start:end] if is_gap else None

    def _is_telling(self, first: int, last: int) -> bool:
        """Whether any of these words is neither ordinary nor a letter: x-ray is not, O'Brien is."""
        return any(len(self.keys[n][0]) > 1 and not is_ordinary(self.word(n)) for n in range(first, last))

    def word(self, number: int) -> str:
        """A word as written."""
        return self.text[slice(*self.spans[number])]


@lru_cache(8)
def index_words(text: str) -> Words:
    """The words of a text, kept for the images of one study."""
    return Words(text)


def find_name(words: Words, *values: str) -> tuple[list[Span], int]:
    """Where a value of representation PN, or another reading of it, is named in a text.

    Also how many of its ordinary words stay there.
    """
    name = _parse_name(*values)
    spans, num_ordinary = [], 0
    hits: dict[int, int] = {}
    for key in name.parts | name.joined | name.compounds:
        for first in words.positions.get(key, ()):
            hits.setdefault(first, first + 1)
    for key in name.inflected:
        for first in words.positions.get(key, ()):
            if words.word(first)[0].isupper() and not is_ordinary(words.word(first)):
                hits.setdefault(first, first + 1)
    for key in name.parts | name.joined:
        if len(key) >= MIN_JOINED_LETTERS:
            for first, last in words.find_joined(key):
                hits[first] = max(last, hits.get(first, 0))
    previous = 0
    for first in sorted(hits):
        if first < previous:
            continue
        start, last, weak = _extend(words, name, hits, first)
        previous = last
        if weak and not _reads_as_name(words, start, last, weak):
            num_ordinary += len(weak)
        else:
            spans.append(Span(words.spans[start].start, words.spans[last - 1].end))
    for span, is_name in _find_initials(words, name):
        if not any(start <= span.start < end for start, end in spans):
            spans += [span] if is_name else []
            num_ordinary += not is_name
    if name.unspaced and words.unspaced:
        spans += [Span(*match.span()) for match in name.unspaced.finditer(words.unspaced)]
    return spans, num_ordinary


def _find_initials(words: Words, name: _Name) -> Iterator[tuple[Span, bool]]:
    """Where all initials of a name stand alone: J. D. is the name, JD is where it signs."""
    for first, letters in words.initials.items():
        if letters in name.all_initials:
            last = first + len(letters) - 1
            yield Span(words.spans[first].start, words.spans[last].end), True
    for letters in name.all_initials:
        for number in words.positions.get(letters, ()):
            if words.word(number).isupper() and letters not in ABBREVIATIONS:
                yield words.spans[number], _signs(words, number)


def _signs(words: Words, number: int) -> bool:
    """Whether capitals stand after a title or a word such as *by*, alone in a line, or before a typist's: JD/mk."""
    (start, end), text = words.spans[number], words.text
    before, after = text[max(0, start - 24) : start], text[end : end + 24]
    cue = re.search(r"(\w+)[.:\s(\[]*$", before)
    if cue and cue[1].casefold() in CUES | TITLES:
        return True
    is_first = start == 0 or not before.rpartition("\n")[2].strip(" \t-–—_.,/([")
    is_last = not after.partition("\n")[0].strip(" \t\r-–—_.,/)]")
    has_typist = re.match(r" ?[/:] ?[A-Za-z]{2,3}\s*(?:[.\n]|$)", after) is not None
    return has_typist or (is_first and is_last and len(text) > end - start)


def _extend(words: Words, name: _Name, hits: dict[int, int], first: int) -> tuple[int, int, list[int]]:
    """The run of names, initials and particles around a hit; the hits that are weak, none where one is strong."""
    start, last = first, hits[first]
    strong = not _is_weak(words, first, last)
    weak, is_lower = [first], words.word(first)[0].islower()
    while (gap := words.gap(last - 1)) is not None:
        if last in hits:
            following_weak = _is_weak(words, last, hits[last])
            if following_weak and "." in gap and len(words.word(last - 1)) > 1:
                break  # seen by Doe. Left lung clear
            lower = words.word(last)[0].islower()
            if (following_weak and lower and not is_lower) or (not strong and is_lower and not lower):
                break  # Doe will return
            strong |= not following_weak
            weak.append(last)
            last = hits[last]
        elif _is_initial(words, name, last) or (words.keys[last][0] in name.particles):
            last += 1
        else:
            break
    while start and words.gap(start - 1) is not None:
        if not (_is_initial(words, name, start - 1) or words.keys[start - 1][0] in name.particles):
            break
        start -= 1
    begin = words.spans[last].start if last < len(words.spans) else len(words.text)
    if words.text[words.spans[last - 1].end : begin].isspace():  # not Cruz de la rodilla, but Cruz, Ana de la.
        while last - 1 > first and last - 1 not in hits and words.keys[last - 1][0] in name.particles:
            last -= 1
    return start, last, [] if strong else weak


def _is_initial(words: Words, name: _Name, number: int) -> bool:
    """Whether a word is one to three capital letters of the name, and neither a possessive s nor a part of L4."""
    (start, end), key = words.spans[number], words.keys[number][0]
    if end - start > 3 or not set(key) <= name.initials or not words.text[start:end].isupper():
        return False
    beside = words.text[max(0, start - 1) : start] + words.text[end : end + 1]
    return not any(c.isdigit() for c in beside) and (len(key) == 1 or not is_ordinary(key))


def _is_weak(words: Words, first: int, last: int) -> bool:
    """Whether a hit could be any word: an ordinary one, or one of two letters."""
    if last > first + 1:
        return False
    word, key = words.word(first), words.keys[first][0]
    return is_ordinary(word) or (len(key) < 3 and word.isascii() == key.isascii())  # Li, but neither Lê nor Hồ


def is_ordinary(word: str) -> bool:
    """Whether a word is one of every report. Accents count, where it has any: Colón is a name."""
    lower = word.casefold()
    return lower in _NO_NAME_ALONE or (lower[-1:] == "s" and lower[:-1] in CLINICAL)


def _reads_as_name(words: Words, start: int, last: int, weak: list[int]) -> bool:
    """Whether what stands beside ordinary words, or their letter case, says that they are a name."""
    is_capital = all(not words.word(number)[0].islower() for number in weak)
    has_ordinary = any(is_ordinary(words.word(number)) for number in weak)
    has_initial = last - start > len(weak)
    if (is_capital or not has_ordinary) and (len(weak) > 1 or has_initial):
        return True
    before = words.keys[start - 1][0] if start and words.gap(start - 1) is not None else ""
    after = words.keys[last][0] if words.gap(last - 1) is not None else ""
    if before in TITLES:
        return True
    if not is_capital:
        return False
    text = words.text
    begin, end = words.spans[start].start, words.spans[last - 1].end
    if re.match(r"\W{1,3}M\.?\s?D\b", text[end : end + 8]) or (after in SUFFIXES and words.word(last)[0].isupper()):
        return True
    before_colon = text[max(0, begin - 24) : begin].rstrip(": \t")
    cue = re.search(r"(\w+)$", before_colon)
    if cue and cue[1].casefold() in CUES:
        return True
    if any(words.word(number).casefold() in CLINICAL for number in weak):
        return False
    return _stands_out(words, start, last)


def _stands_out(words: Words, start: int, last: int) -> bool:
    """Whether a capitalized word is in mid-sentence, has a possessive s, or is alone in its line."""
    text, (begin, _), (_, end) = words.text, words.spans[start], words.spans[last - 1]
    if re.match(rf"[{APOSTROPHES}]s\b", text[end : end + 3]):
        return True
    before = text[max(0, begin - 30) : begin].rpartition("\n")[2]
    after = text[end : end + 30].partition("\n")[0]
    is_line = (begin < 30 or "\n" in text[begin - 30 : begin]) and (
        end + 30 > len(text) or "\n" in text[end : end + 30]
    )
    if is_line and len(text) > end - begin and not (before + after).strip(" \t\r-–—_.,/"):
        return True
    is_title_case = words.word(start)[1:].islower()
    return is_title_case and re.search(r"(?:^|\W)[^\W\d_A-Z]\w*,? $", before) is not None

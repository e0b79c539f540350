"""Finds the people that DICOM headers name in a running text, as people write names.

Words are compared by folded keys, never by patterns made of names, so the time is linear in the text. Neither accents,
letter case, apostrophes, hyphens, the order of names nor spaces between ideographs matter.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import permutations
from typing import NamedTuple

from medclip.data.ordinary_words import CLINICAL, CUES, GIVEN_NAMES, ORDINARY, PARTICLES, SUFFIXES, TITLES

MAX_JOINED_WORDS, MIN_JOINED_LETTERS = 4, 4
_MAX_GAP_CHARACTERS = 40
_NO_NAME_ALONE = ORDINARY | PARTICLES | TITLES | SUFFIXES
APOSTROPHES = "'’‘ʼʻʹʽ`´′＇‛"
_UNSPACED_RANGES = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U00020000-\U0003ffff"
)
"""Scripts that write no spaces between words (Han, kana, Thai, Khmer), and Hangul with its particles."""
UNSPACED = re.compile(f"[{_UNSPACED_RANGES}]+")
_HONORIFICS = (
    *("先生", "女士", "小姐", "太太", "医生", "醫生", "医師", "醫師", "主任", "教授", "大夫", "同志"),
    *("さん", "さま", "様", "氏", "君", "くん", "ちゃん", "님", "씨", "선생", "환자", "교수", "의사"),
)
_ORDINARY_IDEOGRAPHS = {
    *("正常", "異常", "异常", "患者", "胸部", "頭部", "腹部", "骨折"),
    *("中心", "高度", "大小", "左右", "上下", "明らか", "정상", "환자", "흉부"),
}
_GAP = re.compile(rf"[\s,.^=&/_\-‐‑–—{APOSTROPHES}]*")
_TIGHT_GAP = re.compile(rf"\s?[{APOSTROPHES}\-‐‑]?\s{{0,2}}")
_UNSPACED_GAP = r"[\s・·•,，、.^=＝\-\u3099\u309a]{0,3}"
_WITHIN_PART = r"[\s\u3099\u309a]{0,2}"
_BASE_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ı": "i", "ħ": "h", "ŧ": "t", "æ": "ae", "œ": "oe", "þ": "th", "ŋ": "n"}
)
_SPELLED_OUT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa", "ð": "dh"})
_ASCII_WORD = re.compile("[A-Za-z]+")
_CONTRACTIONS = re.compile("([aou])e|aa")


class Span(NamedTuple):
    """Where a value is in a text."""

    start: int
    end: int


@lru_cache
def _word_pattern() -> re.Pattern[str]:
    """Letters of scripts with spaces, with their marks."""
    marks = "".join(c for c in map(chr, range(128, sys.maxunicode // 8)) if unicodedata.category(c)[0] == "M")
    letter = rf"(?:(?![{_UNSPACED_RANGES}{APOSTROPHES}])[^\W\d_])"
    return re.compile(f"(?:{letter}[{re.escape(marks)}]*)+")


def _find_words(text: str) -> Iterator[re.Match[str]]:
    return (_ASCII_WORD if text.isascii() else _word_pattern()).finditer(text)


@lru_cache(65536)
def fold(word: str) -> tuple[str, ...]:
    """Keys of the spellings of a word, the plainest first: Müller has muller and mueller; so has Mueller."""
    if word.isascii():
        plain = word.lower()
        spelled_out = plain
    else:
        lower = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", word).replace("İ", "i").casefold())
        plain, spelled_out = _strip_marks(lower), _strip_marks(lower.translate(_SPELLED_OUT))
    keys = [plain, spelled_out]
    if len(plain) > 4:
        keys.append(_CONTRACTIONS.sub(lambda match: match[0][0], plain))
        keys += [f"mc{plain[3:]}"] if plain.startswith("mac") else []
        keys += [f"mac{plain[2:]}"] if plain.startswith("mc") else []
    return tuple(dict.fromkeys(keys))


def _strip_marks(word: str) -> str:
    letters = unicodedata.normalize("NFKD", word).translate(_BASE_LETTERS)
    return "".join(c for c in letters if unicodedata.category(c)[0] != "M" and c != "ـ")


@dataclass(slots=True)
class _Name:
    """A value of representation PN: folded parts, and patterns of its ideographs."""

    parts: set[str] = field(default_factory=set)
    joined: set[str] = field(default_factory=set)
    compounds: set[str] = field(default_factory=set)
    initials: set[str] = field(default_factory=set)
    particles: set[str] = field(default_factory=set)
    unspaced: re.Pattern[str] | None = None


@lru_cache(1024)
def _parse_name(value: str) -> _Name:
    """Family, given and middle names of each group; prefixes and suffixes are words of every report (MR, II)."""
    name = _Name()
    forms: dict[str, None] = {}
    for group in {value, _repair_encoding(value)} if not value.isascii() else {value}:
        for script in group.split("="):
            components = script.split("^")[:3]
            _add_words(name, components)
            runs = [
                re.sub("[\u3099\u309a]", "", fold_unspaced(run))  # the marks of half-width kana are characters
                for component in components
                for run in UNSPACED.findall(_compose(component))
            ]
            forms |= dict.fromkeys(_unspaced_forms(runs))
    if forms:
        name.unspaced = re.compile("|".join(sorted(forms, key=len, reverse=True)))
    return name


def _compose(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _repair_encoding(value: str) -> str:
    """UTF-8 that a header without its character set made Latin-1 of."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _add_words(name: _Name, components: list[str]) -> None:
    whole: list[str] = []
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
        for start in range(len(plain)):
            for end in range(start + 2, min(start + MAX_JOINED_WORDS, len(plain)) + 1):
                name.joined.update(_spellings(words[start:end]))
        whole += ["".join(plain)] if plain else []
    for length in range(2, len(whole) + 1):
        for order in permutations(whole, length):
            compounds = ["".join(order), order[0][0] + order[1], order[0] + order[1][0]]  # JaneDoe, JDoe, DoeJ
            name.compounds.update(key for key in compounds if len(key) >= MIN_JOINED_LETTERS and key not in ORDINARY)


def _spellings(words: list[tuple[str, ...]]) -> Iterator[str]:
    for number in range(max(map(len, words))):
        yield "".join(keys[min(number, len(keys) - 1)] for keys in words)


def fold_unspaced(text: str) -> str:
    """One character for each: full width, hiragana for katakana, without the marks of kana."""
    return "".join(map(_fold_unspaced_character, text))


@lru_cache(65536)
def _fold_unspaced_character(character: str) -> str:
    folded = unicodedata.normalize("NFKC", character)[:1] or character
    if "\u3041" <= folded <= "\u30fe" or "\u3099" <= folded <= "\u309a":
        folded = unicodedata.normalize("NFD", folded)[0]
    return chr(ord(folded) - 0x60) if "\u30a1" <= folded <= "\u30f6" else folded


def _unspaced_forms(runs: list[str]) -> Iterator[str]:
    """Patterns: the whole name in both orders, its parts of two characters or more, a family name with an honorific."""
    if len(runs) == 1 and len(runs[0]) in (3, 4) and not re.search("[\u3041-\u3096]", runs[0]):
        runs = [runs[0][: len(runs[0]) - 2], runs[0][-2:]]  # 王小東 and 山田太郎 without their separator
    for order in permutations(runs[:3]):
        text = "".join(order)
        if len(runs) > 1 and len(text) > 1:
            yield _UNSPACED_GAP.join(map(re.escape, text))
    for run in runs:
        spaced = _WITHIN_PART.join(map(re.escape, run))
        if len(run) == 1:
            yield rf"{spaced}\s?(?:{'|'.join(map(fold_unspaced, _HONORIFICS))})"
        elif run not in _ORDINARY_IDEOGRAPHS:
            # a part of syllables could be inside any word: it begins one
            is_syllables = re.fullmatch("[\u3041-\u3096\uac00-\ud7ff]+", run) is not None
            yield (rf"(?<![\u3041-\u3096\uac00-\ud7ff]){spaced}" if is_syllables else spaced)


class Words:
    """A text, by the folded keys of its words and of up to four words joined; made once for all names."""

    def __init__(self, text: str) -> None:
        """`text` is in composed form (NFC)."""
        self.text = text
        self.spans = [Span(*match.span()) for match in _find_words(text)]
        self.keys = [fold(text[start:end]) for start, end in self.spans]
        self.unspaced = fold_unspaced(text) if UNSPACED.search(text) else ""
        self.positions: dict[str, list[int]] = {}
        self._starts: dict[int, int] = {}  # by the place in the folded words written together
        self._ends: dict[int, int] = {}
        length = 0
        for number, keys in enumerate(self.keys):
            for key in keys:
                self.positions.setdefault(key, []).append(number)
            plain = keys[0]
            if len(plain) > 4 and plain[-1] == "s" and text[self.spans[number].start].isupper():  # Müllers Lunge
                for key in keys:
                    self.positions.setdefault(key[:-1], []).append(number)
            self._starts[length] = number
            length += len(plain)
            self._ends[length] = number + 1
        self._together = "".join(keys[0] for keys in self.keys)

    def find_joined(self, key: str) -> Iterator[tuple[int, int]]:
        """Where two to four words with nothing of a sentence between them, such as O'Brien, are the key together."""
        place = self._together.find(key)
        while place >= 0:
            first, last = self._starts.get(place), self._ends.get(place + len(key))
            if first is not None and last is not None and 1 < last - first <= MAX_JOINED_WORDS:
                gaps = ((self.spans[n].end, self.spans[n + 1].start) for n in range(first, last - 1))
                if all(_TIGHT_GAP.fullmatch(self.text, *gap) for gap in gaps) and self._is_telling(first, last):
                    yield first, last
            place = self._together.find(key, place + 1)

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


def find_name(words: Words, value: str) -> tuple[list[Span], int]:
    """Where a value of representation PN is named in a text, and how many of its ordinary words stay there."""
    name = _parse_name(value)
    spans, num_ordinary = [], 0
    hits: dict[int, int] = {}
    for key in name.parts | name.joined | name.compounds:
        for first in words.positions.get(key, ()):
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
    if name.unspaced and words.unspaced:
        spans += [Span(*match.span()) for match in name.unspaced.finditer(words.unspaced)]
    return spans, num_ordinary


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

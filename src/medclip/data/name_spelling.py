"""The spellings of one word of a name: keys without case and accents, and the cases of Slavic names."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_BASE_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ı": "i", "ħ": "h", "ŧ": "t", "æ": "ae", "œ": "oe", "þ": "th", "ŋ": "n"}
)
_SPELLED_OUT = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa", "ð": "dh"})
_CONTRACTIONS = re.compile("([aou])e|aa")

MIN_STEM_LETTERS = 3
_MASCULINE = "a u ovi owi em iem om"
_ADJECTIVE = "i y ij iy ogo omu im ym om em iem ego emu eho iego iemu a aya oj oy ej iej ou u uyu oi oju"
_DECLENSIONS: tuple[tuple[str, str], ...] = (
    *((f"{end}a", "- a u y i e ou oj oy oyu oju ym em om ovi") for end in ("ov", "ev", "in", "yn")),
    *((end, f"{_MASCULINE} ym e i oj oy ou y") for end in ("ov", "ev")),
    *((stem + end, _ADJECTIVE) for stem in ("sk", "ck", "dzk") for end in ("y", "i", "ij", "iy", "yi", "a", "aya")),
    *((end, "eho emu ym em a ou ej") for end in ("ny", "ly", "ry", "hy")),
    *((end, "ого ому им ым ом его ему ем ая яя ои еи ую юю ою") for end in ("ии", "ыи", "ая", "яя")),
    ("ои", "ого ому ым ом ая ои ую ою"),
    ("а", "- ы и у е ои еи ою"),
    ("я", "и ю е еи ею"),
    ("ь", "я ю и ем ью"),
    ("и", "я ю е ем и"),
    ("a", "y u e i ou oj oy ovi"),
)
"""What a nominative ends in, the first that fits, and its other endings; "-" is none.

Singular, of surnames and given names in Czech, Slovak, Polish, Russian and Ukrainian; as keys of `fold` (й is и).
"""
_CYRILLIC = "а у ым ом ем е ои ою ы ов"
_CONSONANTS = frozenset("bcdfghjklmnpqrstvwxz")


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
    # a word of nothing else, such as a lone ـ, stays: each has a first letter
    return "".join(c for c in letters if unicodedata.category(c)[0] != "M" and c != "ـ") or word


def inflect(key: str) -> set[str]:
    """Other cases of a folded name of four letters or more, and the other sex of a surname: Novákovi, Nováková."""
    if len(key) <= MIN_STEM_LETTERS:
        return set()
    forms = set()
    for end, endings in _DECLENSIONS:
        if key.endswith(end):
            stem = key[: len(key) - _num_replaced(end)]
            forms = _join(stem, endings)
            break
    else:
        if key[-1] in _CONSONANTS:
            forms = _join(key, _MASCULINE) | _join(key, "ova ovou ove")
            if key[-2:] in ("ek", "ec", "el", "ew") and key[-3] in _CONSONANTS:  # Marek is Marka
                forms |= _join(key[:-2] + key[-1], f"{_MASCULINE} e ova ovou ove")
        elif "а" <= key[-1] <= "я":
            forms = _join(key, _CYRILLIC)
    if key.endswith("ova"):  # Nováková is Novák's
        forms |= _join(key[:-3], f"- {_MASCULINE}")
    return {form for form in forms if len(form) > MIN_STEM_LETTERS} - {key}


def _num_replaced(end: str) -> int:
    """Letters of an ending that change: those after the consonants of the stem."""
    vowels = "aeiouyаеиоуыьюя"
    return len(end) - max((end.rfind(letter) for letter in end if letter not in vowels), default=-1) - 1


def _join(stem: str, endings: str) -> set[str]:
    return {stem + ending.strip("-") for ending in endings.split()}

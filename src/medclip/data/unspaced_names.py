"""Names in scripts that write no spaces between words: Han, kana, hangul, Thai, Khmer."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import permutations

from medclip.data.ordinary_words import ORDINARY_IDEOGRAPHS

UNSPACED_RANGES = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U00020000-\U0003ffff"
)
"""Scripts that write no spaces between words (Han, kana, Thai, Khmer), and Hangul with its particles."""
UNSPACED = re.compile(f"[{UNSPACED_RANGES}]+")
_HONORIFICS = (
    *("先生", "女士", "小姐", "太太", "医生", "醫生", "医師", "醫師", "主任", "教授", "大夫", "同志"),
    *("さん", "さま", "様", "氏", "君", "くん", "ちゃん", "님", "씨", "선생", "환자", "교수", "의사"),
)
_IDEOGRAPH_CUES = (
    *("患者", "病人", "姓名", "医生", "醫生", "医師", "醫師", "医师"),
    *("技师", "技師", "签名", "簽名", "署名", "报告者", "報告者"),
)
"""Words before a name, with or without a colon or a space."""
_UNSPACED_GAP = r"[\s・·•,，、.^=＝\-\u3099\u309a]{0,3}"
_WITHIN_PART = r"[\s\u3099\u309a]{0,2}"


def find_unspaced(text: str) -> list[str]:
    """The runs of such scripts in a text, folded; without the marks of half-width kana, which are characters."""
    return [re.sub("[\u3099\u309a]", "", fold_unspaced(run)) for run in UNSPACED.findall(text)]


def fold_unspaced(text: str) -> str:
    """One character for each: full width, hiragana for katakana, without the marks of kana."""
    return "".join(map(_fold_unspaced_character, text))


@lru_cache(65536)
def _fold_unspaced_character(character: str) -> str:
    folded = unicodedata.normalize("NFKC", character)[:1] or character
    if "\u3041" <= folded <= "\u30fe" or "\u3099" <= folded <= "\u309a":
        folded = unicodedata.normalize("NFD", folded)[0]
    return chr(ord(folded) - 0x60) if "\u30a1" <= folded <= "\u30f6" else folded


def unspaced_forms(runs: list[str]) -> dict[str, int]:
    """Patterns with the characters each covers: the whole name in both orders, its parts."""
    if len(runs) == 1 and len(runs[0]) in (3, 4) and not re.search("[\u3041-\u3096]", runs[0]):
        runs = [runs[0][: len(runs[0]) - 2], runs[0][-2:]]  # 王小東 and 山田太郎 without their separator
    forms = {}
    for order in permutations(runs[:3]):
        text = "".join(order)
        if len(runs) > 1 and len(text) > 1:
            forms[_UNSPACED_GAP.join(map(re.escape, text))] = len(text)
    for run in runs:
        spaced = _WITHIN_PART.join(map(re.escape, run))
        if len(run) == 1:
            forms[_lone_form(run)] = 1
        elif run not in ORDINARY_IDEOGRAPHS:
            # a part of syllables could be inside any word: it begins one
            is_syllables = re.fullmatch("[\u3041-\u3096\uac00-\ud7ff]+", run) is not None
            forms[rf"(?<![\u3041-\u3096\uac00-\ud7ff]){spaced}" if is_syllables else spaced] = len(run)
    return forms


def _lone_form(character: str) -> str:
    """A part of one character: before an honorific; if it is no usual word, also after a cue or with none beside it."""
    places = [rf"{character}\s?(?:{'|'.join(map(fold_unspaced, _HONORIFICS))})"]
    if character not in ORDINARY_IDEOGRAPHS:
        cues = "|".join(f"(?<={fold_unspaced(cue)}{gap})" for cue in _IDEOGRAPH_CUES for gap in ("", ":", " ", ": "))
        places += [f"(?:{cues}){character}", f"(?<![{UNSPACED_RANGES}]){character}(?![{UNSPACED_RANGES}])"]
    return "|".join(places)

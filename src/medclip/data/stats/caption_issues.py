"""What is odd about a caption, as far as its words alone tell."""

from __future__ import annotations

import re

_FILE = re.compile(r"\S*[\d_]\S*|.*\.(?:jpe?g|png|tiff?|gif|bmp|dcm|webp)", re.IGNORECASE)
_MARKUP = re.compile(r"</?[a-z][^<>]*>|&(?:#\d+|[a-z]{2,8});|\\(?:[a-z]{4,}|x[0-9a-f]{2}|u[0-9a-f]{4})|https?://", re.I)
_PANEL = re.compile(r"\(([a-h])\)", re.IGNORECASE)
_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*"
_IDENTIFYING = re.compile(
    r"\b\d{1,2}[./-]\d{1,2}[./-](?:19|20)\d\d\b|\b(?:19|20)\d\d-\d\d-\d\d\b|"
    rf"\b\d{{1,2}}(?:st|nd|rd|th)? {_MONTH},? (?:19|20)\d\d\b|\b{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? (?:19|20)\d\d\b|"
    r"\S@\w+\.\w",
    re.IGNORECASE,
)
_ENGLISH = re.compile(
    r"\b(?:the|of|in|and|with|an?|is|are|was|were|to|on|at|from|for|by|after|before|show(?:ing|s|n)|this|that)\b"
)
_FOREIGN = re.compile(
    r"\b(?:de|la|les?|du|des|une?|et|en|el|l[ao]s|del|con|por|una|al|y|und|der|die|das|mit|von|im|de[nm]|di|della|il|"
    r"do|da|d[ao]s|em|com|n[ao]|på|och|med|av)\b"
)


def caption_issues(caption: str) -> list[str]:
    """What is odd about a cleaned caption, of: file name, markup, several panels, not English, date or e-mail."""
    found = {
        "file name": bool(_FILE.fullmatch(caption)),
        "markup": bool(_MARKUP.search(caption)),
        "several panels": len({letter.lower() for letter in _PANEL.findall(caption)}) > 1,
        "not English": _foreign(caption),
        "date or e-mail": bool(_IDENTIFYING.search(caption)),
    }
    return [name for name, is_so in found.items() if is_so]


def skeleton(caption: str) -> list[str]:
    """The words of a caption without case, punctuation and numbers (each "#"): what templates have in common."""
    return ["#" if word.isdigit() else word for word in re.findall(r"\d+|[^\W\d]+", caption.casefold())]


def _foreign(caption: str) -> bool:
    """Two or more little words of other languages and fewer English ones, or mostly letters that are not Latin."""
    lower = caption.lower()
    other = len(_FOREIGN.findall(lower))
    if other > 1 and other > len(_ENGLISH.findall(lower)):
        return True
    letters = [letter for letter in lower if letter.isalpha()]
    return sum(letter > "ʯ" for letter in letters) > len(letters) / 2

"""One form for what sources write in many: captions, license names, split names."""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from collections.abc import Callable

from medclip.errors import UserError

MIN_CAPTION_CHARACTERS = 10  # the founding project's rule; about 0.15 % of ROCO's captions fall under it
# Only entities with their semicolon: without it "&copy" in "A&copy" would become a sign that nobody wrote.
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_FIGURE_LABEL = re.compile(
    r"^(?:(?:suppl(?:ementary|\.)? )?fig(?:ure|\.)? ?\d+ ?(?:[A-Za-z](?:[-–,][A-Za-z])*)? ?(?:[:.|\-–—] ?)+(?!\d))+",
    re.IGNORECASE,
)
_PANEL_LABEL = re.compile(r"^\(?[A-Ha-h]\)[:.]? ?")
_LATER_PANEL_LABEL = re.compile(r"\([B-Zb-z](?: ?[,\-–] ?[A-Za-z])?\)|\b[B-Zb-z]\)")

_CC_URL = re.compile(r"creativecommons\.org/(licenses|publicdomain)/([a-z-]+)")
_CC_NAME = re.compile(r"^cc-?(by(?:-(?:nc|nd|sa))*|0|zero)(?![a-z])")

VALIDATION_FRACTION = 0.1
HASHED_SPLITS = ("train", "validation")
"""The splits that `split_of` assigns."""
_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "validate", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SPLITS = tuple(_SPLIT_WORDS)
_SPLIT_OF_WORD = {word: split for split, words in _SPLIT_WORDS.items() for word in words}
_SPLIT_WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(_SPLIT_OF_WORD, key=len, reverse=True))})(?![a-z])")


def _drop_invisible(caption: str) -> str:
    invisible = [ord(c) for c in set(caption) if unicodedata.category(c) in ("Cc", "Cf") and not c.isspace()]
    return caption.translate(dict.fromkeys(invisible)) if invisible else caption


def _drop_panel_label(caption: str) -> str:
    """Drop a leading "(a)", unless the caption goes on to another panel and so needs its labels."""
    match = _PANEL_LABEL.match(caption)
    return caption if not match or _LATER_PANEL_LABEL.search(caption, match.end()) else caption[match.end() :]


CAPTION_RULES: dict[str, Callable[[str], str]] = {
    "HTML entities decoded": lambda caption: _ENTITY.sub(lambda match: html.unescape(match.group()), caption),
    "invisible characters dropped": _drop_invisible,
    "Unicode composed": lambda caption: unicodedata.normalize("NFC", caption),
    "white space made one space": lambda caption: " ".join(caption.split()),
    "figure label dropped": lambda caption: _FIGURE_LABEL.sub("", caption),
    "panel label dropped": _drop_panel_label,
}
TEXT_RULES = tuple(CAPTION_RULES)[:3]
"""The rules that change characters only."""


def normalize_text(text: str) -> str:
    """Text as `clean_caption` reads it: entities decoded, invisible characters dropped, letters composed (NFC)."""
    while True:
        before = text
        for rule in TEXT_RULES:
            text = CAPTION_RULES[rule](text)
        if text == before:
            return text


def clean_caption(caption: str) -> tuple[str, list[str]]:
    """Apply CAPTION_RULES until none changes the caption; also returns the names of those that did.

    Letter case stays. A leading "Figure 2:" is dropped, and a leading "(a)" where no other panel follows. Stripped
    white space is not reported as a change.
    """
    caption, applied = caption.strip(), []
    while True:
        before = caption
        for name, rule in CAPTION_RULES.items():
            after = rule(caption)
            if after != caption and name not in applied:
                applied.append(name)
            caption = after
        if caption == before:
            return caption, applied


def casefold_whitespace(text: str) -> str:
    """Text without letter case and with single spaces, for comparing captions."""
    return " ".join(text.casefold().split())


def license_name(text: str) -> str:
    """A license's usual short name, without version: "cc-by", "cc-by-nc-sa", "cc0"; others in lower case.

    "CC BY", "CC-BY-4.0", "cc by 4.0" and "https://creativecommons.org/licenses/by/4.0/" are all "cc-by". A bare "CC",
    which does not say which Creative Commons license, stays "cc"; no license is "".
    """
    if match := _CC_URL.search(text.lower()):
        kind, name = match.groups()
        return f"cc-{name}" if kind == "licenses" else "cc0" if name == "zero" else "public-domain"
    name = re.sub(r"[\s_/]+", "-", text.strip().lower())
    if match := _CC_NAME.match(name):
        return "cc0" if match.group(1) in ("0", "zero") else f"cc-{match.group(1)}"
    return name


def license_set(text: str) -> frozenset[str]:
    """The licenses of a comma-separated list such as "cc-by,cc0". UserError where it names none."""
    names = frozenset(license_name(part) for part in text.split(",") if part.strip())
    if not names:
        raise UserError("--licenses names no license: write for example --licenses cc-by,cc0.")
    return names


def canonical_split(split: str) -> str:
    """A source's name for a split in medclip's spelling ("val" is "validation"); other names stay."""
    return _SPLIT_OF_WORD.get(split.strip().lower(), split.strip())


def split_in(path: str) -> str:
    """The split that a file's path names ("data/val-00000.parquet"), its last word first; "" where it names none."""
    words = _SPLIT_WORD.findall(path.lower())
    return _SPLIT_OF_WORD[words[-1]] if words else ""


def split_of(group: str) -> str:
    """The split of an article or patient, by a hash of its name: it stays the same however the dataset grows."""
    digest = hashlib.blake2b(group.encode(errors="surrogatepass"), digest_size=8).digest()
    return "validation" if int.from_bytes(digest) < VALIDATION_FRACTION * 2**64 else "train"

"""One form for what sources write in many: captions, license names, split names."""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from collections.abc import Callable

from medclip.errors import UserError

MIN_CAPTION_CHARACTERS = 10  # the founding project's rule; about 0.15 % of ROCO's captions fall under it
MAX_CAPTION_CHARACTERS = 100_000  # the longest reports have about 20,000
CAPTION_TOO_LONG = f"caption over {MAX_CAPTION_CHARACTERS:,} characters"
# Only entities with their semicolon: without it "&copy" in "A&copy" would become a sign that nobody wrote.
_MAX_ENTITY_CHARACTERS = 34
_LAST_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});\Z")
_FIGURE_LABEL = re.compile(
    r"(?:(?:suppl(?:ementary|\.)? )?fig(?:ure|\.)? ?\d+ ?(?:[A-Za-z](?:[-–,][A-Za-z])*)? ?(?:[:.|\-–—] ?)+(?!\d))+",
    re.IGNORECASE,
)
_PANEL_LABEL = re.compile(r"\(?[A-Ha-h]\)[:.]? ?")
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


def _decode_entities(text: str) -> str:
    """Entities decoded until none is left, as "&amp;amp;lt;" is "<": each where its semicolon is written."""
    if "&" not in text or ";" not in text:
        return text
    out: list[str] = []
    for character in text:
        out.append(character)
        while out[-1] == ";" and (match := _LAST_ENTITY.search("".join(out[-_MAX_ENTITY_CHARACTERS:]))):
            decoded = html.unescape(match.group())
            if decoded == match.group():
                break
            del out[-len(match.group()) :]
            out += decoded
    return "".join(out)


def _drop_invisible(caption: str) -> str:
    invisible = [ord(c) for c in set(caption) if unicodedata.category(c) in ("Cc", "Cf") and not c.isspace()]
    return caption.translate(dict.fromkeys(invisible)) if invisible else caption


TEXT_RULES: dict[str, Callable[[str], str]] = {
    "HTML entities decoded": _decode_entities,
    "invisible characters dropped": _drop_invisible,
    "Unicode composed": lambda caption: unicodedata.normalize("NFC", caption),
}
"""The rules that change characters only."""
_SPACE, _FIGURE, _PANEL = "white space made one space", "figure label dropped", "panel label dropped"
CAPTION_RULES = (*TEXT_RULES, _SPACE, _FIGURE, _PANEL)
_MAX_PASSES = 10
"""A caption that two passes do not clean is a riddle; each takes a time that grows with the caption's length alone."""


def is_rtf(text: str) -> bool:
    """Whether a text is a document of word processors, whose commands are no words of a caption."""
    return text.lstrip().startswith("{\\rtf")


def normalize_text(text: str) -> str:
    """Text as `clean_caption` reads it: entities decoded, invisible characters dropped, letters composed (NFC)."""
    return _apply_text_rules(text)[0]


def _apply_text_rules(text: str) -> tuple[str, list[str]]:
    applied: dict[str, None] = {}
    for _ in range(_MAX_PASSES):
        before = text
        for name, rule in TEXT_RULES.items():
            after = rule(text)
            if after != text:
                applied[name] = None
            text = after
        if text == before:
            break
    return text, list(applied)


def clean_caption(caption: str) -> tuple[str, list[str]]:
    """Apply CAPTION_RULES until none changes the caption; also returns the names of those that did.

    Letter case stays. A leading "Figure 2:" is dropped, and a leading "(a)" where no other panel follows. Stripped
    white space is not reported as a change.
    """
    caption, applied = caption.strip(), dict[str, None]()
    for _ in range(_MAX_PASSES):
        before = caption
        caption, names = _apply_text_rules(caption)
        single = " ".join(caption.split())
        names += [_SPACE] * (single != caption)
        caption, labels = _drop_labels(single)
        applied |= dict.fromkeys(names + labels)
        if caption == before:
            break
    return caption, list(applied)


def _drop_labels(caption: str) -> tuple[str, list[str]]:
    """The caption without leading labels of figures and panels, and the names of the rules for these.

    A panel's label stays where the caption goes on to another panel, and so needs its labels.
    """
    start, labels, is_alone = 0, dict[str, None](), False
    while True:
        if match := _FIGURE_LABEL.match(caption, start):
            labels[_FIGURE] = None
        elif match := _PANEL_LABEL.match(caption, start):
            is_alone = is_alone or not _LATER_PANEL_LABEL.search(caption, match.end())  # what follows only gets less
            if not is_alone:
                break
            labels[_PANEL] = None
        else:
            break
        start = match.end()
    return caption[start:], list(labels)


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

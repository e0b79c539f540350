"""The rules that turn a source's caption into the one a model sees."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable

MIN_CHARACTERS = 10  # the founding project's rule; about 0.15 % of ROCO's captions fall under it
# Only entities with their semicolon: without it "&copy" in "A&copy" would become a sign that nobody wrote.
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_FIGURE = re.compile(
    r"^(?:(?:suppl(?:ementary|\.)? )?fig(?:ure|\.)? ?\d+ ?(?:[A-Za-z](?:[-–,][A-Za-z])*)? ?(?:[:.|\-–—] ?)+(?!\d))+",
    re.IGNORECASE,
)
_PANEL = re.compile(r"^\(?[A-Ha-h]\)[:.]? ?")
_SECOND_PANEL = re.compile(r"\([B-Zb-z](?: ?[,\-–] ?[A-Za-z])?\)|\b[B-Zb-z]\)")


def _visible(caption: str) -> str:
    return "".join(c for c in caption if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))


def _without_panel(caption: str) -> str:
    """Without a leading "(a)", unless the caption goes on to another panel and so needs its labels."""
    found = _PANEL.match(caption)
    return caption if not found or _SECOND_PANEL.search(caption, found.end()) else caption[found.end() :]


RULES: dict[str, Callable[[str], str]] = {
    "HTML entities decoded": lambda caption: _ENTITY.sub(lambda found: html.unescape(found.group()), caption),
    "invisible characters dropped": _visible,
    "Unicode composed": lambda caption: unicodedata.normalize("NFC", caption),
    "white space made one space": lambda caption: " ".join(caption.split()),
    "figure label dropped": lambda caption: _FIGURE.sub("", caption),
    "panel label dropped": _without_panel,
}


def clean_caption(caption: str) -> tuple[str, list[str]]:
    """The caption by RULES, applied until none changes it; and the rules that did. Letter case is kept.

    A "Figure 2:" at its head goes, and a "(a)" where no other panel follows. White space at the ends is no change
    worth naming.
    """
    caption, used = caption.strip(), []
    while True:
        before = caption
        for name, rule in RULES.items():
            after = rule(caption)
            if after != caption and name not in used:
                used.append(name)
            caption = after
        if caption == before:
            return caption, used


def casefold_whitespace(text: str) -> str:
    """A caption without letter case and spacing."""
    return " ".join(text.casefold().split())

"""The rules that turn a source's caption into the one a model sees."""

from __future__ import annotations

import unicodedata

MIN_CHARACTERS = 10  # the founding project's rule; about 0.15 % of ROCO's captions fall under it


def clean_caption(caption: str) -> str:
    """Unicode NFC, control characters dropped, white space runs as one space, ends trimmed; case is kept."""
    composed = unicodedata.normalize("NFC", caption)
    spaced = " ".join(composed.split())
    return "".join(c for c in spaced if unicodedata.category(c) not in ("Cc", "Cf"))

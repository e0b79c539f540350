"""The rules that turn a source's caption into the one a model sees."""

from __future__ import annotations

import unicodedata

MIN_CHARACTERS = 10  # the founding project's rule; about 0.15 % of ROCO's captions fall under it


def clean_caption(caption: str) -> str:
    """Unicode NFC, control characters dropped, white space runs as one space, ends trimmed; case is kept."""
    seen = "".join(c for c in caption if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
    return " ".join(unicodedata.normalize("NFC", seen).split())

"""What licences are called: one name for each, however a source writes it."""

from __future__ import annotations

import re

from medclip.errors import UserError

_URL = re.compile(r"creativecommons\.org/(licenses|publicdomain)/([a-z-]+)")
_CREATIVE = re.compile(r"^cc-?(by(?:-(?:nc|nd|sa))*|0|zero)(?![a-z])")


def licence_name(written: str) -> str:
    """A licence by its usual short name, without version: "cc-by", "cc-by-nc-sa", "cc0"; others in lower case.

    "CC BY", "CC-BY-4.0", "cc by 4.0" and "https://creativecommons.org/licenses/by/4.0/" are all "cc-by". What only says
    that there is a Creative Commons licence ("CC") stays "cc", and what is not stated is "".
    """
    if found := _URL.search(written.lower()):
        kind, name = found.groups()
        return f"cc-{name}" if kind == "licenses" else "cc0" if name == "zero" else "public-domain"
    said = re.sub(r"[\s_/]+", "-", written.strip().lower())
    if found := _CREATIVE.match(said):
        return "cc0" if found.group(1) in ("0", "zero") else f"cc-{found.group(1)}"
    return said


def licence_set(asked: str) -> frozenset[str]:
    """The licences of a list such as "cc-by,cc0". UserError where it names none."""
    names = frozenset(licence_name(part) for part in asked.split(",") if part.strip())
    if not names:
        raise UserError("--licences names no licence: write for example --licences cc-by,cc0.")
    return names

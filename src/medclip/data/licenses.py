"""What licenses are called: one name for each, however a source writes it."""

from __future__ import annotations

import re

from medclip.errors import UserError

_URL = re.compile(r"creativecommons\.org/(licenses|publicdomain)/([a-z-]+)")
_CREATIVE = re.compile(r"^cc-?(by(?:-(?:nc|nd|sa))*|0|zero)(?![a-z])")


def license_name(written: str) -> str:
    """A license by its usual short name, without version: "cc-by", "cc-by-nc-sa", "cc0"; others in lower case.

    "CC BY", "CC-BY-4.0", "cc by 4.0" and "https://creativecommons.org/licenses/by/4.0/" are all "cc-by". What only says
    that there is a Creative Commons license ("CC") stays "cc", and what is not stated is "".
    """
    if found := _URL.search(written.lower()):
        kind, name = found.groups()
        return f"cc-{name}" if kind == "licenses" else "cc0" if name == "zero" else "public-domain"
    said = re.sub(r"[\s_/]+", "-", written.strip().lower())
    if found := _CREATIVE.match(said):
        return "cc0" if found.group(1) in ("0", "zero") else f"cc-{found.group(1)}"
    return said


def license_set(asked: str) -> frozenset[str]:
    """The licenses of a list such as "cc-by,cc0". UserError where it names none."""
    names = frozenset(license_name(part) for part in asked.split(",") if part.strip())
    if not names:
        raise UserError("--licenses names no license: write for example --licenses cc-by,cc0.")
    return names

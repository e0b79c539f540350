"""The user's own folders, by the XDG Base Directory specification (version 0.8)."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """`$XDG_CACHE_HOME/medclip`, or `~/.cache/medclip`; None where this user has no home folder."""
    return _folder("XDG_CACHE_HOME", ".cache")


def config_folder() -> Path | None:
    """`$XDG_CONFIG_HOME/medclip`, or `~/.config/medclip`; None where this user has no home folder."""
    return _folder("XDG_CONFIG_HOME", ".config")


def _folder(variable: str, default: str) -> Path | None:
    """An empty variable counts as unset and a relative one is ignored, as the specification says."""
    base = Path(os.environ.get(variable, ""))
    if base.is_absolute():
        return base / "medclip"
    try:
        home = Path.home() if os.environ.get("HOME") != "" else Path()
    except RuntimeError:  # HOME is unset, and the user id has no entry
        return None
    return home / default / "medclip" if home.is_absolute() else None

"""Which libraries made a number: a resume under others may end with other numbers."""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError, version

from medclip import __version__


@functools.cache
def library_versions(*packages: str) -> dict[str, str]:
    """The versions of medclip and of those packages that are installed."""
    versions = {"medclip": __version__}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions

"""Which software made a number: the commit of the checkout that runs, and the libraries beside it."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from medclip import __version__

CHANGES = "+changes"
_PROCESSOR_FIELDS = ("model name", "flags", "CPU implementer", "CPU part", "Features")  # the last three of ARM


@functools.cache
def library_versions(*packages: str) -> dict[str, str]:
    """The versions of medclip and of those packages that are installed: a resume under others may end otherwise."""
    versions = {"medclip": __version__}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


@functools.cache
def source_digest(*modules: str) -> str:
    """SHA-256 of the source of modules, by their names: another version of any of them may give other numbers."""
    digest = hashlib.sha256()
    for name in modules:
        spec = importlib.util.find_spec(name)
        assert spec and spec.origin
        digest.update(Path(spec.origin).read_bytes())
    return digest.hexdigest()


@functools.cache
def processor_models() -> tuple[str, ...]:
    """The processors of this machine with their instruction sets (proc(5)): another may round otherwise."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return (platform.machine(), platform.processor())
    return (platform.machine(), *sorted({line for line in lines if line.startswith(_PROCESSOR_FIELDS)}))


@functools.cache
def source_commit() -> str | None:
    """The commit of this package's checkout, with CHANGES where its files differ; None for an installed package.

    An installed package may lie inside another project's checkout, whose commit says nothing: this file must be
    tracked.
    """
    if _git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = _git("rev-parse", "HEAD")
    return commit and commit + (CHANGES if _git("status", "--porcelain", "--untracked-files=no", ".") else "")


def _git(*arguments: str) -> str | None:
    """What git prints in this package's folder; None where it fails, or is absent."""
    try:
        done = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None

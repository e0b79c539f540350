"""Files against the hashes that their manifest records."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from medclip.atomic_io import CHECKSUM, has_checksum, json_text, read_object, sha256
from medclip.errors import UserError
from medclip.folder_locks import NOTES
from medclip.recorded_files import BEFORE, CHECKSUMS_FILE

HASHES = "sha256"
"""The field of a manifest with the hash of each of its files, by their paths below the folder."""
CHANGED, ABSENT = "is not as it was written", "is absent"
Hashes = Mapping[str, str]


@dataclass(frozen=True)
class Finding:
    """A file that is damaged, absent or left over."""

    file: str
    """Its path below the folder."""
    problem: str
    """What is wrong, to be read after the name: "is absent"."""
    ids: tuple[str, ...] = ()
    """Of the pairs that it touches; where the damage cannot be located, of all that the file holds."""


def read_manifest(folder: Path, name: str) -> Generator[Finding, None, dict[str, Any]]:
    """The content of a manifest, {} where it cannot be read; a finding unless it is as it was written."""
    try:
        content = read_object(folder / name, "verified")
        is_whole = has_checksum(content) and json_text(content).encode() == (folder / name).read_bytes()
    except (UserError, RecursionError, OSError):
        yield Finding(name, "cannot be read")
        return {}
    if not is_whole:
        yield Finding(name, CHANGED)
    return content


def check_manifest(folder: Path, name: str) -> Generator[Finding, None, Hashes]:
    """The hashes that a manifest records; findings as of `read_manifest`."""
    content = yield from read_manifest(folder, name)
    return valid_hashes(content.get(HASHES))


def check_recorded(folder: Path, also: Iterable[str] = ()) -> Generator[Finding, None, Hashes]:
    """The hashes of `checksums.json`, where there is one; findings of those files, and of others not in `also`."""
    content: Mapping[str, Any] = {}
    if os.path.lexists(folder / CHECKSUMS_FILE):
        content = yield from read_manifest(folder, CHECKSUMS_FILE)
        if content.keys() - {HASHES, BEFORE, CHECKSUM}:
            yield Finding(CHECKSUMS_FILE, "is another manifest")
    hashes, before = valid_hashes(content.get(HASHES)), content.get(BEFORE)
    for finding in check_hashes(folder, hashes):
        if not (isinstance(before, dict) and finding.file in before and _is_as_before(folder, finding, before)):
            yield finding
    yield from left_over(folder, {*also, *hashes, CHECKSUMS_FILE}, "*")
    return hashes


def _is_as_before(folder: Path, finding: Finding, before: Mapping[str, Any]) -> bool:
    """Whether a killed command had not yet replaced a file."""
    digest = before[finding.file]
    return finding.problem == ABSENT if digest is None else file_problem(folder / finding.file, str(digest)) is None


def valid_hashes(value: Any) -> Hashes:
    """The entries of a mapping from paths below a folder to hashes; others, of a damaged manifest, are left out."""
    entries = value.items() if isinstance(value, dict) else ()
    return {name: str(digest) for name, digest in entries if _is_below(name)}


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def check_hashes(folder: Path, hashes: Hashes) -> Iterator[Finding]:
    """A finding for each file that is absent or whose hash differs."""
    for name, digest in hashes.items():
        if (problem := file_problem(folder / name, digest)) is not None:
            yield Finding(name, problem)


def file_problem(path: Path, digest: str | None) -> str | None:
    """What is wrong with a file of that hash; None: nothing."""
    try:
        if digest is None:
            return "has no recorded hash"
        return None if sha256(path) == digest else CHANGED
    except FileNotFoundError:
        return ABSENT
    except OSError as error:
        return f"cannot be read ({error.strerror or type(error).__name__})"
    except ValueError:
        return "is a name that no file can have"


def left_over(folder: Path, known: Iterable[str], *patterns: str) -> Iterator[Finding]:
    """A finding for each file that the patterns give and that is not `known`; partial files go by `partial_files`."""
    known = set(known)
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name not in known and not _is_partial(path.relative_to(folder)):
            yield Finding(name, "is in no manifest")


def partial_files(folder: Path) -> Iterator[Finding]:
    """A finding for each file that a killed command left unfinished."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and _is_partial(path.relative_to(folder)):
            yield Finding(path.relative_to(folder).as_posix(), "is partial: a killed command left it")


def _is_partial(path: Path) -> bool:
    return any(part == NOTES or part.endswith((".partial", ".unfinished")) for part in path.parts)

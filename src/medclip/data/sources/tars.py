"""Reads WebDataset archives: files that share a name up to its first dot are one sample."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path, PurePosixPath

from medclip.data.pairs import Dropped, Pair
from medclip.data.sources.folders import SUFFIXES
from medclip.data.sources.known import known, strings
from medclip.data.splits import split_of
from medclip.errors import UserError


def read_tars(paths: list[Path]) -> Iterator[Pair | Dropped]:
    """Every sample of the archives, in order: a picture with a caption in KEY.txt or in KEY.json.

    KEY.json may hold id, caption, article, licence, concepts and split, and what else `medclip export` writes. Raises
    UserError for an archive that is damaged, naming the sample before the damage.
    """
    for path in paths:
        for key, files in _samples(path):
            yield _pair(key, files, path)


def _pair(key: str, files: Mapping[str, bytes], path: Path) -> Pair | Dropped:
    try:
        said = json.loads(files.get(".json") or b"{}")
        text = said.get("caption")
        text = files[".txt"].decode() if ".txt" in files else text
    except (ValueError, AttributeError):
        return Dropped(key, split_of(key), "caption unreadable", path.name)
    group = str(said.get("article") or key)
    split = str(said.get("split") or split_of(group))
    image = next((data for suffix, data in files.items() if suffix in SUFFIXES), None)
    if image is None or not text:
        return Dropped(key, split, "row without image or caption", path.name)
    licence = str(said.get("licence") or said.get("license") or "")
    return Pair(
        id=str(said.get("id") or key),
        image=image,
        caption=str(text),
        split=split,
        article=group,
        licence=licence,
        concepts=strings(said.get("concepts")),
        **{"source": path.stem} | known(said),
    )


def _samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    last = "its beginning"
    try:
        with tarfile.open(path, "r|*") as archive:
            files = ((member, archive.extractfile(member)) for member in archive if member.isfile())
            for key, group in groupby(files, key=lambda file: _key(file[0].name)):
                yield key, {_suffix(member.name): handle.read() for member, handle in group}
                last = f"sample {key}"
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path} is damaged after {last} ({error}). Fetch it again.") from None


def _key(name: str) -> str:
    path = PurePosixPath(name)
    return (path.parent / path.name.partition(".")[0]).as_posix()


def _suffix(name: str) -> str:
    return f".{PurePosixPath(name).name.partition('.')[2].lower()}"

"""Reads WebDataset archives: files that share a name up to its first dot are one sample."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import PurePosixPath

from medclip.data.normalize import canonical_split, split_in, split_of
from medclip.data.paths import AnyPath
from medclip.data.schema import Dropped, Pair
from medclip.data.sources.image_caption_folder import IMAGE_SUFFIXES
from medclip.data.sources.pair_fields import as_strings, extra_fields
from medclip.errors import UserError


def read_tars(paths: list[AnyPath]) -> Iterator[Pair | Dropped]:
    """Every sample of the archives, in order: an image with a caption in KEY.txt or in KEY.json.

    KEY.json may hold id, caption, article, license, concepts and split, and what else `medclip export` writes. Where it
    names no split the archive's name may, and where neither does, a hash decides. Raises UserError for an archive that
    is damaged, naming the sample before the damage.
    """
    named = {path: split_in(path.name) for path in paths}
    if set(named.values()) == {"train"}:  # how a collection without splits calls its archives
        named = {}
    for path in paths:
        for key, files in _samples(path):
            yield _pair(key, files, path, named.get(path, ""))


def _pair(key: str, files: Mapping[str, bytes], path: AnyPath, split: str) -> Pair | Dropped:
    try:
        said = json.loads(files.get(".json") or b"{}")
        text = said.get("caption")
        text = files[".txt"].decode() if ".txt" in files else text
    except (ValueError, AttributeError):
        return Dropped(key, split or split_of(key), "caption unreadable", path.name)
    group = str(said.get("article") or key)
    split = canonical_split(str(said.get("split") or "")) or split or split_of(group)
    image = next((data for suffix, data in files.items() if suffix in IMAGE_SUFFIXES), None)
    if image is None or not text:
        return Dropped(key, split, "row without image or caption", path.name)
    return Pair(
        id=str(said.get("id") or key),
        image=image,
        caption=str(text),
        split=split,
        article=group,
        license=str(said.get("license") or said.get("license") or ""),
        attribution=str(said.get("attribution") or ""),
        concepts=as_strings(said.get("concepts")),
        **{"source": path.stem} | extra_fields(said),
    )


def _samples(path: AnyPath) -> Iterator[tuple[str, dict[str, bytes]]]:
    last = "its beginning"
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r|*") as archive:
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

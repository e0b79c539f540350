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
from medclip.data.sources.reports import OTHER_SECTIONS, select_reading
from medclip.data.sources.tables import NO_IMAGE_OR_CAPTION, as_strings, extra_fields
from medclip.errors import UserError


def read_tars(paths: list[AnyPath]) -> Iterator[Pair | Dropped]:
    """Every sample of the archives, in order: an image with a caption in KEY.txt or in KEY.json.

    KEY.json may hold id, caption, article, license, concepts, split and the other fields of `medclip export`. The split
    is that of KEY.json, else of the archive's name, else a hash decides. Raises UserError for a damaged archive, with
    the last sample before the damage.
    """
    splits = {path: split_in(path.name) for path in paths}
    if set(splits.values()) == {"train"}:  # the name that collections without splits give their archives
        splits = {}
    for path in paths:
        for key, files in _read_samples(path):
            yield _parse_sample(key, files, path, splits.get(path, ""))


def _parse_sample(key: str, files: Mapping[str, bytes], path: AnyPath, split: str) -> Pair | Dropped:
    try:
        fields = json.loads(files.get(".json") or b"{}")
        caption = fields.get("caption")
        caption = files[".txt"].decode() if ".txt" in files else caption
    except (ValueError, AttributeError):
        return Dropped(key, split or split_of(key), "caption unreadable", path.name)
    group = str(fields.get("article") or key)
    split = canonical_split(str(fields.get("split") or "")) or split or split_of(group)
    image = next((data for suffix, data in files.items() if suffix in IMAGE_SUFFIXES), None)
    if image is None or not caption:
        return Dropped(key, split, NO_IMAGE_OR_CAPTION, path.name)
    reading = select_reading(str(caption))
    return Pair(
        id=str(fields.get("id") or key),
        image=image,
        caption=reading,
        split=split,
        article=group,
        license=str(fields.get("licence") or fields.get("license") or ""),
        attribution=str(fields.get("attribution") or ""),
        concepts=as_strings(fields.get("concepts")),
        removed=(OTHER_SECTIONS,) if reading != str(caption) else (),
        **extra_fields(fields, path.stem),
    )


def _read_samples(path: AnyPath) -> Iterator[tuple[str, dict[str, bytes]]]:
    position = "its beginning"
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r|*") as archive:
            files = (
                (member.name, file) for member in archive if member.isfile() and (file := archive.extractfile(member))
            )
            for key, group in groupby(files, key=lambda file: _key(file[0])):
                yield key, {_suffix(name): file.read() for name, file in group}
                position = f"sample {key}"
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path} is damaged after {position} ({error}). Fetch it again.") from None


def _key(name: str) -> str:
    path = PurePosixPath(name)
    return (path.parent / path.name.partition(".")[0]).as_posix()


def _suffix(name: str) -> str:
    return f".{PurePosixPath(name).name.partition('.')[2].lower()}"

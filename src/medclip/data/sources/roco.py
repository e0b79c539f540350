"""Reads the public ROCO layout: SPLIT/radiology/{captions,dlinks,cuis}.txt, licences.txt, images/."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from medclip.data.pairs import Dropped, Pair
from medclip.errors import UserError

SPLITS = ("train", "validation", "test")
_ARTICLE = re.compile(r"PMC\d+")


def is_roco(folder: Path) -> bool:
    """Whether any split of `folder` has its captions where ROCO keeps them."""
    return any((folder / split / "radiology" / "captions.txt").is_file() for split in SPLITS)


def read_roco(folder: Path) -> Iterator[Pair | Dropped]:
    """Every listed row of every split present, in file order.

    An absent image is not looked into here: preparation counts it. Raises UserError for another layout.
    """
    if not is_roco(folder):
        wanted = ", ".join(f"{split}/radiology/captions.txt" for split in SPLITS)
        raise UserError(f"{folder} is no ROCO folder: looked for one of {wanted} and found none.")
    places = [(folder / split / "radiology", split) for split in SPLITS]
    found = [_read_split(place, split) for place, split in places if (place / "captions.txt").is_file()]
    return chain.from_iterable(found)


def count_roco(folder: Path) -> list[int]:
    """Listed rows of every split present."""
    listed = (folder / split / "radiology" / "captions.txt" for split in SPLITS)
    return [sum(1 for _ in _lines(path)) for path in listed if path.is_file()]


def _read_split(folder: Path, split: str) -> Iterator[Pair | Dropped]:
    links = _columns(folder / "dlinks.txt")
    concepts = _columns(folder / "cuis.txt")
    keywords = _columns(folder / "keywords.txt")
    types = _columns(folder / "semtypes.txt")
    licences = _table(folder / "licences.txt", "ROCO_ID")
    labels = _table(folder / "labels.csv", "id")
    for number, line in enumerate(_lines(folder / "captions.txt"), start=1):
        id, tab, caption = line.partition("\t")
        if not tab or not id.strip():
            yield Dropped(id.strip(), split, "row without id and caption", f"captions.txt line {number}")
            continue
        id = id.strip()
        link, licence = links.get(id, []), licences.get(id, {})
        article = _ARTICLE.search(" ".join((*link, licence.get("PMC_ID", ""))))
        pmc_name = licence.get("PMC_ID", "")
        if not pmc_name and article and len(link) > 1:
            pmc_name = f"{article.group()}_{link[-1]}"
        yield Pair(
            id=id,
            image=_image_file(folder / "images", f"{id}.jpg", pmc_name),
            caption=caption,
            split=split,
            article=article.group() if article else id,
            licence=licence.get("CC", ""),
            concepts=tuple(concepts.get(id, ())),
            keywords=tuple(keywords.get(id, ())),
            semantic_types=tuple(types.get(id, ())[1::2]),  # the row alternates code and name
            labels={k: v for k, v in labels.get(id, {}).items() if v and k != "id"},
            source="ROCO",
        )


def _image_file(images: Path, by_id: str, by_article: str) -> Path:
    """The fetch scripts name a picture by its ROCO id or by article and file; the first is the default."""
    if by_article and Path(by_article).name == by_article and (images / by_article).is_file():
        return images / by_article
    return images / Path(by_id).name


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as handle:
            yield from (line.rstrip("\r\n") for line in handle if line.strip())
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}). Convert it first.") from None


def _columns(path: Path) -> dict[str, list[str]]:
    """Tab-separated rows by their first column; an absent file is an empty table."""
    if not path.is_file():
        return {}
    rows = (line.split("\t") for line in _lines(path))
    return {row[0].strip(): [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}


def _table(path: Path, key: str) -> dict[str, dict[str, str]]:
    """A CSV file by its `key` column; an absent file is an empty table."""
    if not path.is_file():
        return {}
    reader = csv.DictReader(_lines(path))
    if key not in (reader.fieldnames or ()):
        raise UserError(f"{path} has no column {key!r}; its first line reads {reader.fieldnames}.")
    return {row[key].strip(): {k: (v or "").strip() for k, v in row.items() if k} for row in reader}

"""Reads the public ROCO layouts: SPLIT/radiology/ with images/, tables beside, and captions.txt or traindata.csv."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import PurePosixPath

from medclip.data.paths import AnyPath
from medclip.data.schema import Dropped, Pair
from medclip.data.sources.beside import list_names, read_csv_by, read_lines, read_tsv_by_id
from medclip.data.sources.table_files import read_rows
from medclip.errors import UserError

SPLITS = ("train", "validation", "test")
ARTICLE = re.compile(r"PMC\d+")
_SHORT = {"train": "train", "validation": "val", "test": "test"}


def is_roco(folder: AnyPath) -> bool:
    """Whether any split of `folder` has its captions where ROCO keeps them."""
    return any(_listing(folder, split) for split in SPLITS)


def read_roco(folder: AnyPath, limit: int | None = None) -> Iterator[Pair | Dropped]:
    """Every listed row of every split present, or the first `limit` of each, in file order.

    An absent image is not looked into here: preparation counts it. Raises UserError for another layout.
    """
    found = [(listing, split) for split in SPLITS if (listing := _listing(folder, split))]
    if not found:
        wanted = ", ".join(f"{split}/radiology/captions.txt" for split in SPLITS)
        raise UserError(f"{folder} is no ROCO folder: looked for one of {wanted} (or traindata.csv) and found none.")
    splits = (_read_split(folder / split / "radiology", listing, split) for listing, split in found)
    return chain.from_iterable(islice(rows, limit) for rows in splits)


def count_roco(folder: AnyPath) -> list[int]:
    """Listed rows of every split present."""
    listed = filter(None, (_listing(folder, split) for split in SPLITS))
    return [sum(1 for _ in (read_lines(path) if path.suffix == ".txt" else read_rows(path))) for path in listed]


def _listing(folder: AnyPath, split: str) -> AnyPath | None:
    """Where a split's captions are; captions.txt first, for it lists also what could not be downloaded."""
    table = f"{_SHORT[split]}data.csv"
    names = ("radiology/captions.txt", f"radiology/{table}", f"radiology{table}")
    return next((path for name in names if (path := folder / split / name).is_file()), None)


def _listed(path: AnyPath) -> Iterator[tuple[str, str, str]]:
    """Id, name of the image and caption of each row; "" for what it does not say."""
    if path.suffix == ".txt":
        for line in read_lines(path):
            id, _, caption = line.partition("\t")
            yield id.strip(), "", caption
        return
    for row in read_rows(path):
        if "id" not in row or "caption" not in row:
            raise UserError(f"{path} has no columns id and caption; its first line reads {', '.join(row)}.")
        yield (row["id"] or "").strip(), PurePosixPath((row.get("name") or "").strip()).name, row["caption"] or ""


def _read_split(folder: AnyPath, listing: AnyPath, split: str) -> Iterator[Pair | Dropped]:
    links = read_tsv_by_id(folder / "dlinks.txt")
    concepts = read_tsv_by_id(folder / "cuis.txt")
    keywords = read_tsv_by_id(folder / "keywords.txt")
    types = read_tsv_by_id(folder / "semtypes.txt")
    licenses = read_csv_by(folder / "licences.txt", "roco_id")
    labels = read_csv_by(folder / "labels.csv", "id")
    pictures = list_names(folder / "images")
    for number, (id, name, caption) in enumerate(_listed(listing), start=1):
        if not id or not caption:
            yield Dropped(id, split, "row without id and caption", f"{listing.name} row {number}")
            continue
        license = licenses.get(id, {})
        article, figure = _published(links.get(id, []), license.get("pmc_id", ""), name)
        # The fetch scripts name an image by its ROCO id or by article and file; the first is the default.
        names = (name, license.get("pmc_id", ""), f"{article}_{figure}")
        yield Pair(
            id=id,
            image=folder / "images" / next((n for n in names if n in pictures), PurePosixPath(f"{id}.jpg").name),
            caption=caption,
            split=split,
            article=article or id,
            license=license.get("cc", ""),
            attribution=", ".join(filter(None, (article, figure))),
            concepts=tuple(concepts.get(id, ())),
            keywords=tuple(keywords.get(id, ())),
            semantic_types=tuple(types.get(id, ())[1::2]),  # the row alternates code and name
            labels={k: v for k, v in labels.get(id, {}).items() if v and k != "id"},
            source="ROCO",
        )


def _published(link: list[str], *names: str) -> tuple[str, str]:
    """The article and its figure's file, from names such as PMC1_fig.jpg, or from the link to the article's files."""
    for name in names:
        article, _, figure = name.partition("_")
        if ARTICLE.fullmatch(article):
            return article, figure
    found = ARTICLE.search(" ".join((*link, *names)))
    return (found.group(), link[-1] if len(link) > 1 else "") if found else ("", "")

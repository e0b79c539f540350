"""Reads ROCOv2 as Zenodo has it: SPLIT_captions.csv, tables of concepts and licenses, a folder of images a split."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import PurePosixPath

from medclip.data.paths import AnyPath
from medclip.data.schema import Dropped, Pair
from medclip.data.sources.beside import list_names, read_csv_by
from medclip.data.sources.roco import ARTICLE
from medclip.data.sources.table_files import read_rows
from medclip.errors import UserError

_SHORT = {"train": "train", "validation": "valid", "test": "test"}
# "CC BY-NC [Jones et al. (2020)]": the terms come first, then whose the image is.
_TERMS = re.compile(r"(CC0|CC[ -]BY(?:-(?:NC|ND|SA))*|public domain)\b", re.IGNORECASE)

Table = Mapping[str, Mapping[str, str]]


def is_rocov2(folder: AnyPath) -> bool:
    """Whether any split of `folder` has its captions where ROCOv2 keeps them."""
    return any((folder / f"{short}_captions.csv").is_file() for short in _SHORT.values())


def read_rocov2(folder: AnyPath, limit: int | None = None) -> Iterator[Pair | Dropped]:
    """Every row of every split present, or the first `limit` of each, in file order.

    Concepts are those found by machine and by hand, keywords their canonical names. Tables other than the captions may
    be absent; without licenses, an image is its own article.
    """
    licenses = read_csv_by(folder / "license_information.csv", "id")
    names = read_csv_by(folder / "cui_mapping.csv", "cui")
    there = [split for split, short in _SHORT.items() if (folder / f"{short}_captions.csv").is_file()]
    splits = (_read_split(folder, split, licenses, names) for split in there)
    return chain.from_iterable(islice(rows, limit) for rows in splits)


def _read_split(folder: AnyPath, split: str, licenses: Table, names: Table) -> Iterator[Pair | Dropped]:
    short = _SHORT[split]
    concepts = [read_csv_by(folder / f"{short}_concepts{kind}.csv", "id") for kind in ("", "_manual")]
    pictures = _pictures(folder, short)
    listing = folder / f"{short}_captions.csv"
    for number, row in enumerate(read_rows(listing), start=1):
        cells = {name.strip().lower(): cell or "" for name, cell in row.items()}
        if not {"id", "caption"} <= cells.keys():
            raise UserError(f"{listing} has no columns ID and Caption; its first line reads {', '.join(row)}.")
        id = cells["id"].strip()
        if not id or not cells["caption"]:
            yield Dropped(id, split, "row without id and caption", f"{listing.name} row {number}")
            continue
        license = licenses.get(id, {})
        attribution, link = license.get("attribution", ""), license.get("link", "")
        article = ARTICLE.search(f"{license.get('pmcid', '')} {link}")
        terms = _TERMS.search(license.get("license", attribution))
        cuis = [cui for table in concepts for cui in _cuis(table.get(id, {}).get("cuis", ""))]
        cuis = list(dict.fromkeys(cuis))
        yield Pair(
            id=id,
            image=pictures.get(PurePosixPath(id).name) or folder / short / f"{PurePosixPath(id).name}.jpg",
            caption=cells["caption"],
            split=split,
            article=article.group() if article else id,
            license=terms.group() if terms else "",
            attribution=" ".join(filter(None, (attribution, link or (article.group() if article else "")))),
            concepts=tuple(cuis),
            keywords=tuple(name for cui in cuis if (name := names.get(cui, {}).get("canonical name"))),
            source="ROCOv2",
        )


def _cuis(cell: str) -> list[str]:
    return [cui.strip() for cui in cell.split(";") if cui.strip()]


def _pictures(folder: AnyPath, short: str) -> dict[str, AnyPath]:
    """The images of a split by name without suffix, wherever the archive was unpacked."""
    places = (folder / short, folder / f"{short}_images" / short, folder / f"{short}_images")
    return {PurePosixPath(name).stem: place / name for place in reversed(places) for name in list_names(place)}

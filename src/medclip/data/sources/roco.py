"""Reads ROCO (SPLIT/radiology/ with captions.txt or traindata.csv) and ROCOv2 (SPLIT_captions.csv, as on Zenodo)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import PurePosixPath

from medclip.data.normalize import SPLITS
from medclip.data.paths import AnyPath, check_link
from medclip.data.schema import Dropped, Pair
from medclip.data.sources.image_cells import UsedFiles
from medclip.data.sources.table_files import open_text_bytes, read_rows
from medclip.errors import UserError

_TABLE_NAMES = {"train": "train", "validation": "val", "test": "test"}
"""Splits as the names of ROCO's CSV files have them (valdata.csv)."""
_V2_NAMES = {"train": "train", "validation": "valid", "test": "test"}
_SPLIT_TABLES = ("dlinks.txt", "cuis.txt", "keywords.txt", "semtypes.txt", "licences.txt", "labels.csv")
_ARTICLE = re.compile(r"PMC\d+")
# ROCOv2's "CC BY-NC [Jones et al. (2020)]": the terms come first, then the owner of the image.
_TERMS = re.compile(r"(CC0|CC[ -]BY(?:-(?:NC|ND|SA))*|public domain)\b", re.IGNORECASE)

Table = Mapping[str, Mapping[str, str]]


def is_roco(folder: AnyPath) -> bool:
    """Whether any split of `folder` has its captions where ROCO keeps them."""
    return any(_captions_file(folder, split) for split in SPLITS)


def read_roco(
    folder: AnyPath, max_samples: int | None = None, used: UsedFiles | None = None
) -> Iterator[Pair | Dropped]:
    """Every listed row of every split present, or the first `max_samples` of each, in file order.

    Images are not opened; preparation counts absent ones. Raises UserError for another layout.
    """
    used = used or UsedFiles()
    files = {split: path for split in SPLITS if (path := _captions_file(folder, split))}
    if not files:
        expected = ", ".join(f"{split}/radiology/captions.txt" for split in SPLITS)
        raise UserError(f"{folder} is not a ROCO folder: it has none of {expected} (or traindata.csv).")
    splits = (_read_split(folder / split / "radiology", path, split, used) for split, path in files.items())
    return chain.from_iterable(islice(rows, max_samples) for rows in splits)


def count_roco(folder: AnyPath) -> list[int]:
    """Number of listed rows of every split present."""
    files = filter(None, (_captions_file(folder, split) for split in SPLITS))
    return [sum(1 for _ in (_read_lines(path) if path.suffix == ".txt" else read_rows(path))) for path in files]


def _captions_file(folder: AnyPath, split: str) -> AnyPath | None:
    """The file with the captions of a split; captions.txt first, for it also lists images that failed to download."""
    table = f"{_TABLE_NAMES[split]}data.csv"
    names = ("radiology/captions.txt", f"radiology/{table}", f"radiology{table}")
    return next((path for name in names if (path := folder / split / name).is_file()), None)


def _read_captions(path: AnyPath) -> Iterator[tuple[str, str, str]]:
    """Id, image file and caption of each row; "" for what it does not state."""
    if path.suffix == ".txt":
        for line in _read_lines(path):
            id, _, caption = line.partition("\t")
            yield id.strip(), "", caption
        return
    for row in read_rows(path):
        if "id" not in row or "caption" not in row:
            raise UserError(f"{path} has no columns id and caption; its first line reads {', '.join(row)}.")
        yield (row["id"] or "").strip(), PurePosixPath((row.get("name") or "").strip()).name, row["caption"] or ""


def _read_split(folder: AnyPath, captions: AnyPath, split: str, used: UsedFiles) -> Iterator[Pair | Dropped]:
    for path in (captions, *(folder / name for name in _SPLIT_TABLES)):
        used.add(check_link(path, folder.parent.parent))
    links = _read_tsv_by_id(folder / "dlinks.txt")
    concepts = _read_tsv_by_id(folder / "cuis.txt")
    keywords = _read_tsv_by_id(folder / "keywords.txt")
    semantic_types = _read_tsv_by_id(folder / "semtypes.txt")
    licenses = _read_csv_by(folder / "licences.txt", "roco_id")
    labels = _read_csv_by(folder / "labels.csv", "id")
    images = _list_names(folder / "images")
    for number, (id, name, caption) in enumerate(_read_captions(captions), start=1):
        license = licenses.get(id, {})
        article, figure = _article_figure(links.get(id, []), license.get("pmc_id", ""), name)
        # The fetch scripts name an image by its ROCO id (the default) or by article and figure.
        names = (name, license.get("pmc_id", ""), f"{article}_{figure}")
        image = folder / "images" / next((n for n in names if n in images), PurePosixPath(f"{id}.jpg").name)
        if not id or not caption:
            used.add(image)
            yield Dropped(id, split, "row without id and caption", f"{captions.name} row {number}")
            continue
        yield Pair(
            id=id,
            image=image,
            caption=caption,
            split=split,
            article=article or id,
            license=license.get("cc", ""),
            attribution=", ".join(filter(None, (article, figure))),
            concepts=tuple(concepts.get(id, ())),
            keywords=tuple(keywords.get(id, ())),
            semantic_types=tuple(semantic_types.get(id, ())[1::2]),  # the row alternates code and name
            labels={k: v for k, v in labels.get(id, {}).items() if v and k != "id"},
            source="ROCO",
        )


def _article_figure(link: list[str], *names: str) -> tuple[str, str]:
    """Article and figure file, from a name such as PMC1_fig.jpg or from the link to the article's archive."""
    for name in names:
        article, _, figure = name.partition("_")
        if _ARTICLE.fullmatch(article):
            return article, figure
    match = _ARTICLE.search(" ".join((*link, *names)))
    return (match.group(), link[-1] if len(link) > 1 else "") if match else ("", "")


def is_rocov2(folder: AnyPath) -> bool:
    """Whether any split of `folder` has its captions where ROCOv2 keeps them."""
    return any((folder / f"{name}_captions.csv").is_file() for name in _V2_NAMES.values())


def read_rocov2(
    folder: AnyPath, max_samples: int | None = None, used: UsedFiles | None = None
) -> Iterator[Pair | Dropped]:
    """Every row of every split present, or the first `max_samples` of each, in file order.

    Concepts are the automatic and the manual ones, keywords their canonical names. Only the captions are required;
    without the table of licenses, every image is its own article.
    """
    used = used or UsedFiles()
    for name in ("license_information.csv", "cui_mapping.csv"):
        used.add(check_link(folder / name, folder))
    licenses = _read_csv_by(folder / "license_information.csv", "id")
    concept_names = _read_csv_by(folder / "cui_mapping.csv", "cui")
    present = [split for split, name in _V2_NAMES.items() if (folder / f"{name}_captions.csv").is_file()]
    splits = (_read_v2_split(folder, split, licenses, concept_names, used) for split in present)
    return chain.from_iterable(islice(rows, max_samples) for rows in splits)


def _read_v2_split(
    folder: AnyPath, split: str, licenses: Table, concept_names: Table, used: UsedFiles
) -> Iterator[Pair | Dropped]:
    prefix = _V2_NAMES[split]
    concept_tables = [folder / f"{prefix}_concepts{kind}.csv" for kind in ("", "_manual")]
    captions = folder / f"{prefix}_captions.csv"
    for path in (captions, *concept_tables):
        used.add(check_link(path, folder))
    concepts = [_read_csv_by(path, "id") for path in concept_tables]
    images = _v2_images(folder, prefix)
    for number, row in enumerate(read_rows(captions), start=1):
        cells = {name.strip().lower(): cell or "" for name, cell in row.items()}
        if not {"id", "caption"} <= cells.keys():
            raise UserError(f"{captions} has no columns ID and Caption; its first line reads {', '.join(row)}.")
        id = cells["id"].strip()
        image = images.get(PurePosixPath(id).name) or folder / prefix / f"{PurePosixPath(id).name}.jpg"
        if not id or not cells["caption"]:
            used.add(image)
            yield Dropped(id, split, "row without id and caption", f"{captions.name} row {number}")
            continue
        license = licenses.get(id, {})
        attribution, link = license.get("attribution", ""), license.get("link", "")
        match = _ARTICLE.search(f"{license.get('pmcid', '')} {link}")
        article = match.group() if match else ""
        terms = _TERMS.search(license.get("license", attribution))
        cuis = list(dict.fromkeys(cui for table in concepts for cui in _split_cuis(table.get(id, {}).get("cuis", ""))))
        yield Pair(
            id=id,
            image=image,
            caption=cells["caption"],
            split=split,
            article=article or id,
            license=terms.group() if terms else "",
            attribution=" ".join(filter(None, (attribution, link or article))),
            concepts=tuple(cuis),
            keywords=tuple(name for cui in cuis if (name := concept_names.get(cui, {}).get("canonical name"))),
            source="ROCOv2",
        )


def _split_cuis(cell: str) -> list[str]:
    return [cui.strip() for cui in cell.split(";") if cui.strip()]


def _v2_images(folder: AnyPath, prefix: str) -> dict[str, AnyPath]:
    """The images of a split by name without suffix, wherever its archive was unpacked."""
    folders = (folder / prefix, folder / f"{prefix}_images" / prefix, folder / f"{prefix}_images")
    return {PurePosixPath(name).stem: path / name for path in reversed(folders) for name in _list_names(path)}


def _list_names(folder: AnyPath) -> frozenset[str]:
    """The names in a folder, none where it is absent: one listing instead of one request per image."""
    return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()


def _read_lines(path: AnyPath) -> Iterator[str]:
    """The non-blank lines of a text file. Raises UserError where it is not UTF-8, or a line is too long."""
    try:
        with open_text_bytes(path) as stored, io.BufferedReader(stored) as buffered:
            for line in io.TextIOWrapper(buffered, encoding="utf-8-sig", newline="\n"):
                stored.start_row()
                if line.strip():
                    yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}). Convert it first.") from None


def _read_tsv_by_id(path: AnyPath) -> dict[str, list[str]]:
    """Tab-separated rows by their first column; an absent file is an empty table."""
    if not path.is_file():
        return {}
    rows = (line.split("\t") for line in _read_lines(path))
    return {row[0].strip(): [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}


def _read_csv_by(path: AnyPath, key: str) -> dict[str, dict[str, str]]:
    """A CSV file by its column `key`, column names in lower case; an absent file is an empty table.

    Raises UserError where the column is absent.
    """
    if not path.is_file():
        return {}
    reader = csv.DictReader(_read_lines(path), skipinitialspace=True)
    try:
        names = {name: name.strip().lower() for name in reader.fieldnames or ()}
        if key not in names.values():
            raise UserError(f"{path} has no column {key!r}; its first line reads {reader.fieldnames}.")
        rows = ({names[k]: (v or "").strip() for k, v in row.items() if k in names} for row in reader)
        return {row[key]: row for row in rows}
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num} is not CSV ({error}).") from None

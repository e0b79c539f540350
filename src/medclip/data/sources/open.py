"""What SOURCE means: which reader a folder, a file or a name is for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from medclip.data.images import is_dicom
from medclip.data.pairs import Dropped, Pair
from medclip.data.phantoms import phantoms
from medclip.data.privacy import Studies
from medclip.data.sources import tables
from medclip.data.sources.columns import Columns
from medclip.data.sources.folders import SUFFIXES as PICTURES
from medclip.data.sources.folders import has_captions_beside, read_folder
from medclip.data.sources.roco import is_roco, read_roco
from medclip.data.sources.tables import read_table
from medclip.data.sources.tars import read_tars
from medclip.errors import UserError

_KINDS = (
    "a ROCO folder (train/radiology/captions.txt), a folder of pictures with captions beside them (x.jpg, x.txt), a "
    f"folder of DICOM studies, a table ({', '.join(tables.SUFFIXES)}), WebDataset archives (.tar), or phantoms[:COUNT]"
)


def open_source(
    source: str, seed: int = 0, columns: Columns | None = None, studies: Studies | None = None
) -> Iterator[Pair | Dropped]:
    """The rows of SOURCE. Raises UserError where it is nothing that can be read."""
    name, _, pairs = source.partition(":")
    if name == "phantoms":
        if pairs and not (pairs.isdecimal() and int(pairs)):
            raise UserError(f"{source}: write phantoms:COUNT, for example phantoms:4000.")
        return phantoms(int(pairs or 4000), seed)
    path, columns = Path(source), columns or Columns()
    if path.is_file() and path.suffix.lower() in tables.SUFFIXES:
        return read_table(path, columns)
    if path.is_file() and path.suffix.lower() == ".tar":
        return read_tars([path])
    if path.is_dir():
        return _open_folder(path, studies or Studies())
    raise UserError(f"{source} cannot be read: it is neither {_KINDS}.")


def holds_studies(folder: Path) -> bool:
    """Whether `folder` is one of DICOM studies: no ROCO folder, and a DICOM file lies somewhere in it."""
    others = (*PICTURES, ".txt", ".csv", ".json")
    files = (path for path in folder.rglob("*") if path.suffix.lower() not in others and path.is_file())
    files = (path for path in files if os.access(path, os.R_OK))
    return folder.is_dir() and not is_roco(folder) and any(map(is_dicom, files))


def _open_folder(folder: Path, studies: Studies) -> Iterator[Pair | Dropped]:
    if is_roco(folder):
        return read_roco(folder)
    if holds_studies(folder):
        from medclip.data.sources.studies import read_studies

        return read_studies(folder, studies)
    if archives := sorted(folder.glob("*.tar")):
        return read_tars(archives)
    if has_captions_beside(folder):
        return read_folder(folder)
    raise UserError(f"{folder} cannot be read: it is neither {_KINDS}.")

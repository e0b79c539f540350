"""What SOURCE means: which reader a folder, a file, a URL or a name is for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain

from medclip.data.images import is_dicom
from medclip.data.normalize import canonical_split
from medclip.data.paths import AnyPath, is_url, parse_path, storage_errors
from medclip.data.phantoms.cases import NUM_VALIDATION, phantoms
from medclip.data.prepare_config import DEFAULT, PrepareConfig
from medclip.data.schema import Dropped, Pair
from medclip.data.sources.columns import Columns
from medclip.data.sources.huggingface import find_named_tables, find_saved_tables
from medclip.data.sources.image_caption_folder import IMAGE_SUFFIXES as PICTURES
from medclip.data.sources.image_caption_folder import has_caption_files, read_image_folder
from medclip.data.sources.roco import count_roco, is_roco, read_roco
from medclip.data.sources.rocov2 import is_rocov2, read_rocov2
from medclip.data.sources.table_files import TABLE_SUFFIXES, count_rows
from medclip.data.sources.tables import read_tables
from medclip.data.sources.webdataset import read_tars
from medclip.errors import UserError

_KINDS = (
    "a ROCO folder (train/radiology/captions.txt or traindata.csv), a ROCOv2 folder (train_captions.csv), a Hugging "
    "Face dataset (hf://OWNER/NAME, a folder of it or what save_to_disk wrote), a folder of DICOM studies, a folder "
    f"of images with captions beside them (x.jpg, x.txt), a table ({', '.join(TABLE_SUFFIXES)}), WebDataset "
    "archives (.tar), any of these behind a URL (s3://…), or phantoms[:COUNT]"
)


def open_source(source: str, how: PrepareConfig = DEFAULT) -> Iterator[Pair | Dropped]:
    """The rows of SOURCE; where it says its splits, no more than the first `how.limit` of each are read.

    The first row is read at once. Raises UserError where there is none, or nothing that can be read.
    """
    name, _, pairs = source.partition(":")
    if name == "phantoms":
        if pairs and not (pairs.isdecimal() and int(pairs)):
            raise UserError(f"{source}: write phantoms:COUNT, for example phantoms:4000.")
        return phantoms(int(pairs or 4000), how.seed)
    path = parse_path(source)
    rows = _read(path, how)
    rows = _reached(path, rows) if is_url(path) else rows
    first = next(rows, None)
    if first is None:
        raise UserError(f"{source} holds no rows.")
    return chain([first], rows)


def is_dicom_folder(source: str) -> bool:
    """Whether SOURCE is a folder of DICOM studies."""
    path = parse_path(source)
    local = not is_url(path) and path.is_dir()  # a store is not asked what it cannot answer with yes
    return local and not is_roco(path) and not is_rocov2(path) and _has_dicom(path)


def _has_dicom(folder: AnyPath) -> bool:
    """Whether a DICOM file lies somewhere in a folder of this machine."""
    if is_url(folder):
        return False
    others = (*PICTURES, *TABLE_SUFFIXES, ".txt", ".tar")
    files = (path for path in folder.rglob("*") if path.suffix.lower() not in others and path.is_file())
    return any(is_dicom(path) for path in files if os.access(path, os.R_OK))


def source_length(source: str, limit: int | None = None) -> int | None:
    """How many rows `open_source` yields, at most `limit` of each split; None where only reading them would tell."""
    name, _, pairs = source.partition(":")
    if name == "phantoms":
        rows = [int(pairs or 4000), NUM_VALIDATION]
    elif is_url(path := parse_path(source)):
        return None
    elif path.is_dir() and is_roco(path):
        rows = count_roco(path)
    else:
        return count_rows(path) if path.is_file() and limit is None else None  # whose splits are not known
    return sum(min(n, limit or n) for n in rows)


def _read(path: AnyPath, how: PrepareConfig) -> Iterator[Pair | Dropped]:
    suffix = path.suffix.lower()
    if suffix in TABLE_SUFFIXES and path.is_file():
        yield from read_tables([path], how.columns, limit=how.max_samples)
    elif suffix == ".tar" and path.is_file():
        yield from read_tars([path])
    elif path.is_dir():
        yield from _read_folder(path, how)
    else:
        raise UserError(f"{path} cannot be read: it is neither {_KINDS}.")


def _read_folder(folder: AnyPath, how: PrepareConfig) -> Iterator[Pair | Dropped]:
    if is_roco(folder):
        return read_roco(folder, how.max_samples)
    if is_rocov2(folder):
        return read_rocov2(folder, how.max_samples)
    if _has_dicom(folder):
        from medclip.data.sources.dicom_studies import read_studies

        return read_studies(folder, how.studies)
    if splits := find_saved_tables(folder):
        return _read_splits(splits, how.columns, how.max_samples)
    if archives := sorted(chain(folder.glob("*.tar"), folder.glob("data/*.tar")), key=str):
        return read_tars(archives)
    if has_caption_files(folder):
        return read_image_folder(folder)
    if splits := find_named_tables(folder):
        return _read_splits(splits, how.columns, how.max_samples)
    raise UserError(f"{folder} cannot be read: it is neither {_KINDS}.")


def _read_splits(splits: dict[str, list[AnyPath]], columns: Columns, limit: int | None) -> Iterator[Pair | Dropped]:
    tables = (read_tables(paths, columns, canonical_split(split), limit) for split, paths in splits.items())
    return chain.from_iterable(tables)


def _reached(path: AnyPath, rows: Iterator[Pair | Dropped]) -> Iterator[Pair | Dropped]:
    with storage_errors(path):
        yield from rows

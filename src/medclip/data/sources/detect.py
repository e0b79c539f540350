"""What SOURCE means: the reader for a folder, a file, a URL or a name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sized
from itertools import chain
from pathlib import Path
from typing import Any

from medclip.data.images import is_dicom
from medclip.data.normalize import canonical_split
from medclip.data.paths import AnyPath, is_url, parse_path, storage_errors
from medclip.data.phantoms.cases import NUM_VALIDATION, phantoms
from medclip.data.prepare_config import DEFAULT, Columns, PrepareConfig
from medclip.data.schema import Dropped, Pair
from medclip.data.sources.huggingface import find_lone_table, find_named_tables, find_saved_tables
from medclip.data.sources.image_caption_folder import (
    IMAGE_SUFFIXES,
    count_other_files,
    has_caption_files,
    has_images,
    read_image_folder,
)
from medclip.data.sources.memory import read_memory
from medclip.data.sources.mimic_cxr import is_mimic_cxr, read_mimic_cxr
from medclip.data.sources.openi import find_projections, is_openi, read_openi, read_projections
from medclip.data.sources.published_tables import find_published
from medclip.data.sources.roco import count_roco, is_roco, is_rocov2, read_roco, read_rocov2
from medclip.data.sources.table_files import TABLE_SUFFIXES, count_rows, table_suffix
from medclip.data.sources.tables import read_tables
from medclip.data.sources.webdataset import read_tars, read_zip
from medclip.errors import UserError, WorkError

DEFAULT_NUM_PHANTOMS = 4000
_READABLE = (
    "a ROCO folder (train/radiology/captions.txt or traindata.csv), a ROCOv2 folder (train_captions.csv), a Hugging "
    "Face dataset (hf://OWNER/NAME, a folder of it or what save_to_disk wrote), a folder of DICOM studies, a folder "
    f"of images with captions beside them (x.jpg, x.txt), a table ({', '.join(TABLE_SUFFIXES)}), WebDataset "
    "archives (.tar, .zip), MIMIC-CXR-JPG, Open-i, PadChest, MedICaT or R2Gen's annotation.json as published, any of "
    "these behind a URL (s3://…), or phantoms[:COUNT]"
)


Source = str | os.PathLike[str] | Iterable[Any]
"""A folder, a file, a URL or phantoms[:COUNT]; or a value in memory, as `read_memory` takes it."""


def source_path(source: Source) -> str | None:
    """The text of a path or a URL; None for a value in memory."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else None


def open_source(source: Source, config: PrepareConfig = DEFAULT) -> Iterator[Pair | Dropped]:
    """The rows of SOURCE; where it names splits, at most `config.max_samples` of each.

    The first row is read at once. Raises WorkError where there is none, UserError where nothing can be read.
    """
    if not isinstance(source, str | os.PathLike):
        return _not_empty("the source", read_memory(source, config.columns))
    name = os.fspath(source)
    if (count := _num_phantoms(name)) is not None:
        return phantoms(count, config.seed)
    path = parse_path(name)
    rows = _read(path, config)
    rows = _read_url(path, rows) if is_url(path) else rows
    return _not_empty(name, rows)


def _not_empty(source: str, rows: Iterator[Pair | Dropped]) -> Iterator[Pair | Dropped]:
    first_row = next(rows, None)
    if first_row is None:
        raise WorkError(f"no row of {source} became a pair: it holds no rows.")
    return chain([first_row], rows)


def is_phantoms(source: str) -> bool:
    """Whether SOURCE is phantoms[:COUNT], not a folder."""
    return source.partition(":")[0] == "phantoms"


def is_dicom_folder(source: Source) -> bool:
    """Whether SOURCE is a folder of DICOM studies; on this machine only."""
    name = source_path(source)
    if name is None or is_url(path := parse_path(name)) or not path.is_dir():
        return False
    return not (is_roco(path) or is_rocov2(path) or _find_layout(path, DEFAULT)) and _has_dicom(path)


def source_length(source: Source, max_samples: int | None = None) -> int | None:
    """Rows that `open_source` yields, at most `max_samples` of each split; None where counting means reading."""
    if not isinstance(source, str | os.PathLike):
        return (
            len(source) if isinstance(source, Sized) and not isinstance(source, Mapping) and not max_samples else None
        )
    name = os.fspath(source)
    if (count := _num_phantoms(name)) is not None:
        counts = [count, NUM_VALIDATION]
    elif is_url(path := parse_path(name)):
        return None
    elif path.is_dir() and is_roco(path):
        counts = count_roco(path)
    else:
        return count_rows(path) if path.is_file() and max_samples is None else None  # its splits are unknown
    return sum(min(n, max_samples or n) for n in counts)


def _num_phantoms(source: str) -> int | None:
    """COUNT of phantoms[:COUNT]; None for another source. Raises UserError where COUNT is not a positive number."""
    if not is_phantoms(source):
        return None
    count = source.partition(":")[2]
    if count and not (count.isdecimal() and int(count)):
        raise UserError(f"{source}: write phantoms:COUNT, for example phantoms:{DEFAULT_NUM_PHANTOMS}.")
    return int(count or DEFAULT_NUM_PHANTOMS)


def _has_dicom(folder: Path) -> bool:
    """Whether a folder holds a DICOM file at any depth."""
    others = (*IMAGE_SUFFIXES, *TABLE_SUFFIXES, ".txt", ".tar")
    files = (path for path in folder.rglob("*") if path.suffix.lower() not in others and path.is_file())
    return any(is_dicom(path) for path in files if os.access(path, os.R_OK))


def _read(path: AnyPath, config: PrepareConfig) -> Iterator[Pair | Dropped]:
    suffix = table_suffix(path)
    if path.is_file() and (published := find_published(path)):
        table, read_published = published
        yield from read_published(table, config.columns)
    elif suffix in TABLE_SUFFIXES and path.is_file():
        yield from read_tables([path], config.columns, max_samples=config.max_samples)
    elif suffix == ".tar" and path.is_file():
        yield from read_tars([path])
    elif suffix == ".zip" and path.is_file():
        yield from read_zip(path)
    elif path.is_dir():
        yield from _read_folder(path, config)
    elif not path.exists():
        raise UserError(f"{path} does not exist, so it cannot be read. Sources are: {_READABLE}.")
    else:
        raise UserError(f"{path} cannot be read. {_remedy(path.name)}Sources are: {_READABLE}.")


def _remedy(name: str) -> str:
    """What to do about a file of a kind that is not read."""
    if name.lower().endswith((".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers")):
        return "It is a spreadsheet: save its sheet as CSV (UTF-8) and give that. "
    if name.lower().endswith((".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")):
        return "It is compressed: unpack it and give what is inside. "
    return ""


def _read_folder(folder: AnyPath, config: PrepareConfig) -> Iterator[Pair | Dropped]:
    if is_roco(folder):
        return read_roco(folder, config.max_samples)
    if is_rocov2(folder):
        return read_rocov2(folder, config.max_samples)
    if layout := _find_layout(folder, config):
        return layout
    if not is_url(folder) and _has_dicom(folder):
        from medclip.data.sources.dicom_studies import read_studies

        return read_studies(folder, config.studies)
    if splits := find_saved_tables(folder):
        return _read_splits(splits, config.columns, config.max_samples)
    if archives := sorted(chain(folder.glob("*.tar"), folder.glob("data/*.tar")), key=str):
        others = (count_other_files(place, ".tar") for place in dict.fromkeys(path.parent for path in archives))
        return chain(read_tars(archives), chain.from_iterable(others))
    if has_caption_files(folder):
        return read_image_folder(folder)
    if splits := find_named_tables(folder):
        return _read_splits(splits, config.columns, config.max_samples)
    if table := find_lone_table(folder):
        return read_tables([table], config.columns, max_samples=config.max_samples)
    if has_images(folder):
        return read_image_folder(folder)
    if next(folder.iterdir(), None) is None:
        return iter(())
    raise UserError(f"{folder} cannot be read. Sources are: {_READABLE}.")


def _find_layout(folder: AnyPath, config: PrepareConfig) -> Iterator[Pair | Dropped] | None:
    """The rows of a folder in the layout of a published dataset of reports or figures; None where it has none."""
    if is_mimic_cxr(folder):
        return read_mimic_cxr(folder, config.max_samples)
    if projections := find_projections(folder):
        return read_projections(*projections)
    if is_openi(folder):
        return read_openi(folder)
    if published := find_published(folder):
        table, read_published = published
        return read_published(table, config.columns)
    return None


def _read_splits(
    splits: dict[str, list[AnyPath]], columns: Columns, max_samples: int | None
) -> Iterator[Pair | Dropped]:
    tables = (read_tables(paths, columns, canonical_split(split), max_samples) for split, paths in splits.items())
    return chain.from_iterable(tables)


def _read_url(url: AnyPath, rows: Iterator[Pair | Dropped]) -> Iterator[Pair | Dropped]:
    with storage_errors(url):
        yield from rows

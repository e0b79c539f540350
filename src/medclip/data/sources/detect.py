"""What SOURCE means: the reader for a folder, a file, a URL or a name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

from medclip.data.images import is_dicom
from medclip.data.normalize import canonical_split
from medclip.data.paths import (
    LEAVES_FOLDER,
    NOT_REGULAR,
    AnyPath,
    check_link,
    is_url,
    leaves_folder,
    offline_remark,
    parse_path,
    special_kind,
    storage_errors,
)
from medclip.data.phantoms.cases import NUM_VALIDATION, phantoms
from medclip.data.prepare_config import DEFAULT, PrepareConfig
from medclip.data.schema import DicomFrame, Dropped, Pair
from medclip.data.sources.huggingface import description_files, find_lone_table, find_named_tables, find_saved_tables
from medclip.data.sources.image_caption_folder import (
    IMAGE_SUFFIXES,
    has_caption_files,
    has_images,
    read_image_folder,
)
from medclip.data.sources.image_cells import UsedFiles
from medclip.data.sources.memory import read_memory
from medclip.data.sources.mimic_cxr import is_mimic_cxr, read_mimic_cxr
from medclip.data.sources.openi import find_projections, is_openi, read_openi, read_projections
from medclip.data.sources.published_tables import find_published
from medclip.data.sources.roco import count_roco, is_roco, is_rocov2, read_roco, read_rocov2
from medclip.data.sources.table_files import TABLE_SUFFIXES, count_rows, table_suffix
from medclip.data.sources.tables import read_tables
from medclip.data.sources.unlisted_files import count_unlisted, count_unlisted_images
from medclip.data.sources.webdataset import is_tar, read_tars, read_zips
from medclip.data.unread_files import remedy_of_kind
from medclip.errors import UserError, WorkError
from medclip.folder_kinds import EXPORTED_DATASET, folder_kind
from medclip.require import require

DEFAULT_NUM_PHANTOMS = 4000
_LONE_SUFFIXES = tuple(suffix for suffix in TABLE_SUFFIXES if suffix != ".json")  # which may be about one image each
_READABLE = (
    "a ROCO folder (train/radiology/captions.txt or traindata.csv), a ROCOv2 folder (train_captions.csv), a Hugging "
    "Face dataset (hf://OWNER/NAME, a folder of it or what save_to_disk wrote), a folder of DICOM studies, a "
    "DICOMweb server (dicomweb://HOST/PATH), a folder "
    f"of images with captions beside them (x.jpg, x.txt), a table ({', '.join(TABLE_SUFFIXES)}), WebDataset "
    "archives (.tar, .zip), MIMIC-CXR-JPG, Open-i, PadChest, MedICaT or R2Gen's annotation.json as published, any of "
    "these behind a URL (s3://…), or phantoms[:COUNT]"
)


Source = str | os.PathLike[str] | Iterable[Any]
"""A folder, a file, a URL or phantoms[:COUNT]; or a value in memory, as `read_memory` takes it."""


def source_path(source: Source) -> str | None:
    """The text of a path or a URL; None for a value in memory."""
    return _path_text(source) if isinstance(source, str | os.PathLike) else None


def _path_text(path: str | os.PathLike[str]) -> str:
    """The text of a path, of which the last part is a name: that of the folder for `.` and `..`."""
    name = os.fspath(path)
    return str(Path(name).resolve()) if Path(name).name in ("", "..") else name


def open_source(source: Source, config: PrepareConfig = DEFAULT) -> Iterator[Pair | Dropped]:
    """The rows of SOURCE; where it names splits, at most `config.max_samples` of each.

    The first row is read at once. Raises WorkError where there is none, UserError where nothing can be read.
    """
    if not isinstance(source, str | os.PathLike):
        return _not_empty("the source", read_memory(source, config.columns))
    name = _path_text(source)
    if is_phantoms(name):
        _refuse_columns(name, config, "synthetic phantoms")
        return phantoms(*_phantom_counts(name, config.max_samples), config.seed)
    if is_dicomweb(name):
        from medclip.data.dicomweb import parse_address
        from medclip.data.sources.dicomweb_studies import read_web_studies

        address = parse_address(name)
        _refuse_columns(address.url, config, "DICOM studies")
        return read_web_studies(address, config.studies, config.max_samples)
    path = parse_path(name)
    rows = _drop_links(_read(path, config), path, config)
    rows = _read_url(path, rows) if is_url(path) else rows
    return _not_empty(name, rows)


def _drop_links(rows: Iterator[Pair | Dropped], path: AnyPath, config: PrepareConfig) -> Iterator[Pair | Dropped]:
    """The rows, where each whose image is a link that leaves the source and --image-root is dropped."""
    roots = [root for root in (path if path.is_dir() else None, _image_root(config)) if root] or [path.parent]
    for row in rows:
        if isinstance(row, Pair):
            file = row.image.file if isinstance(row.image, DicomFrame) else row.image
            if isinstance(file, Path) and all(leaves_folder(file, root) for root in roots):
                row = Dropped(
                    row.id, row.split, f"image: {LEAVES_FOLDER}", "", row.private, row.identifying, row.origin
                )
        yield row


def _image_root(config: PrepareConfig) -> AnyPath | None:
    """The folder that --image-root names."""
    return parse_path(config.columns.image_root) if config.columns.image_root else None


def _refuse_columns(source: AnyPath | str, config: PrepareConfig, kind: str, flags: Sequence[str] = ()) -> None:
    """UserError where one of these flags (none: any) names a column, and SOURCE has none to name."""
    names = flags or [field.name for field in fields(config.columns) if field.name.endswith("_column")]
    for name in names:
        if getattr(config.columns, name):
            raise UserError(
                f"--{name.replace('_', '-')} names a column of a table, but {source} is read as {kind}. Leave the flag "
                "out, or give the table itself."
            )


def _not_empty(source: str, rows: Iterator[Pair | Dropped]) -> Iterator[Pair | Dropped]:
    first_row = next(rows, None)
    if first_row is None:
        raise WorkError(
            f"no row of {source} became a pair: it holds no rows. Is it the one that was meant, and whole? "
            "docs/inputs.md shows what each source looks like; an iterator gives its rows once."
        )
    return chain([first_row], rows)


def is_phantoms(source: str) -> bool:
    """Whether SOURCE is phantoms[:COUNT], not a folder."""
    return source.partition(":")[0] == "phantoms"


def is_dicomweb(source: str) -> bool:
    """Whether SOURCE is the address of a DICOMweb server."""
    return source.startswith(("dicomweb://", "dicomweb+https://", "dicomweb+http://"))


def is_dicom_source(source: Source) -> bool:
    """Whether SOURCE is a folder of DICOM studies, on this machine only, or a DICOMweb server."""
    name = source_path(source)
    if name is not None and is_dicomweb(name):
        return True
    if name is None or is_url(path := parse_path(name)) or not path.is_dir():
        return False
    return not _find_layout(path, DEFAULT, UsedFiles()) and _has_dicom(path)


def check_dicom_source(source: Source) -> None:
    """UserError where what reads this DICOM source is not installed, or its address or token is none."""
    name = source_path(source)
    if name is not None and is_dicomweb(name):
        from medclip.data.dicomweb import open_client, parse_address

        open_client(parse_address(name).url)
    else:
        require("pydicom", extra="dicom")


def source_length(source: Source, max_samples: int | None = None) -> int | None:
    """Rows that `open_source` yields, at most `max_samples` of each split; None where counting means reading."""
    if not isinstance(source, str | os.PathLike):
        return (
            len(source) if isinstance(source, Sized) and not isinstance(source, Mapping) and not max_samples else None
        )
    name = os.fspath(source)
    if is_phantoms(name):
        return sum(_phantom_counts(name, max_samples))
    if is_dicomweb(name) or is_url(path := parse_path(name)):
        return None
    if path.is_dir() and is_roco(path):
        return sum(min(n, max_samples or n) for n in count_roco(path))
    return count_rows(path) if path.is_file() and max_samples is None else None  # its splits are unknown


def _phantom_counts(source: str, max_samples: int | None) -> tuple[int, int]:
    """How many phantoms to train and to validate on. UserError where COUNT of phantoms:COUNT is no positive number."""
    count = source.partition(":")[2]
    if count and not (count.isdecimal() and int(count)):
        raise UserError(f"{source}: write phantoms:COUNT, for example phantoms:{DEFAULT_NUM_PHANTOMS}.")
    counts = int(count or DEFAULT_NUM_PHANTOMS), NUM_VALIDATION
    return counts if max_samples is None else (min(counts[0], max_samples), min(counts[1], max_samples))


def _has_dicom(folder: Path) -> bool:
    """Whether a folder holds a DICOM file at any depth."""
    others = (*IMAGE_SUFFIXES, *TABLE_SUFFIXES, ".txt", ".tar")
    files = (path for path in folder.rglob("*") if path.suffix.lower() not in others and path.is_file())
    return any(is_dicom(path) for path in files if os.access(path, os.R_OK))


def _read(path: AnyPath, config: PrepareConfig) -> Iterator[Pair | Dropped]:
    suffix, used = table_suffix(path), UsedFiles()
    if path.is_file() and (rows := _read_published(path, config, used)) is not None:
        yield from _count_images(path, config, rows, used)
    elif suffix in TABLE_SUFFIXES and path.is_file():
        yield from _count_images(path, config, _read_splits({"": [path]}, config, used, Path("/")), used)
    elif (is_tar(path) or suffix == ".zip") and path.is_file():
        yield from _read_archives([path], path, config, used)
    elif path.is_dir():
        yield from _read_folder(path, config)
    elif not path.exists() and (remark := offline_remark(path)):
        raise UserError(f"{path} cannot be read.{remark}")
    elif not path.exists():
        raise UserError(f"{path} does not exist, so it cannot be read. Sources are: {_READABLE}.")
    else:
        raise UserError(f"{path} cannot be read. {_remedy(path) or f'Sources are: {_READABLE}.'}")


def _remedy(file: AnyPath) -> str:
    """What to do about a file that is no source; "" where nothing is known."""
    if special_kind(file) == NOT_REGULAR:
        return f"It is {NOT_REGULAR}. Write what it gives to a file first."
    if not is_url(file) and is_dicom(file):
        return "It is one DICOM file: give the folder of the study, or a table (CSV) that names it beside its caption."
    if file.suffix.lower() in IMAGE_SUFFIXES:
        return "It is one image: give the folder that holds it and its caption, or a table (CSV) that names both."
    return remedy_of_kind(file.name)


def _read_folder(folder: AnyPath, config: PrepareConfig) -> Iterator[Pair | Dropped]:
    if not is_url(folder) and (kind := folder_kind(folder)) and kind != EXPORTED_DATASET:
        raise UserError(f"{folder} is no source: it is {kind}.")
    used = UsedFiles()
    rows = _find_layout(folder, config, used)
    if rows is None and not is_url(folder) and _has_dicom(folder):
        from medclip.data.sources.dicom_studies import read_studies

        _refuse_columns(folder, config, "DICOM studies")
        return read_studies(folder, config.studies)
    if rows := rows or _find_tables(folder, config, used):
        # the first rows name few of the files, which says nothing of the others
        return rows if config.max_samples is not None else count_unlisted(folder, rows, used, _image_root(config))
    if has_images(folder):
        _refuse_columns(folder, config, "images with captions beside them")
        return read_image_folder(folder)
    if next(folder.iterdir(), None) is None:
        return iter(())
    names = sorted((file.name for file in folder.rglob("*")), key=lambda name: (name.lower().endswith(".txt"), name))
    remedies = (f"{name}: {remedy}" for name in names if (remedy := remedy_of_kind(name)))  # a README comes last
    raise UserError(f"{folder} cannot be read. {next(remedies, f'Sources are: {_READABLE}.')}")


def _find_layout(folder: AnyPath, config: PrepareConfig, used: UsedFiles) -> Iterator[Pair | Dropped] | None:
    """The rows of a folder in the layout of a published dataset of reports or figures; None where it has none."""
    if (rows := _find_fixed_layout(folder, config.max_samples, used)) is not None:
        _refuse_columns(folder, config, "a published dataset, whose columns are known")
        return rows
    return _read_published(folder, config, used)


def _read_published(path: AnyPath, config: PrepareConfig, used: UsedFiles) -> Iterator[Pair | Dropped] | None:
    """The rows of a published dataset's table, or of the folder that holds it; None where it is none."""
    if not (published := find_published(path)):
        return None
    _refuse_columns(path, config, "a published dataset, whose labels are known", ["label_column"])
    table, read_published = published
    return read_published(table, config.columns, used)


def _find_fixed_layout(folder: AnyPath, max_samples: int | None, used: UsedFiles) -> Iterator[Pair | Dropped] | None:
    """As `_find_layout`, of those where no column is to be named."""
    if is_roco(folder):
        return read_roco(folder, max_samples, used)
    if is_rocov2(folder):
        return read_rocov2(folder, max_samples, used)
    if is_mimic_cxr(folder):
        return read_mimic_cxr(folder, max_samples, used)
    if projections := find_projections(folder):
        return read_projections(*projections, used)
    if is_openi(folder):
        return read_openi(folder, used)
    return None


def _find_tables(folder: AnyPath, config: PrepareConfig, used: UsedFiles) -> Iterator[Pair | Dropped] | None:
    """The rows of a folder's tables or archives; None where it has none, or images with captions beside them."""
    if splits := find_saved_tables(folder):
        for path in description_files(folder):
            used.add(path)
        return _read_splits(splits, config, used, folder)
    files = [path for path in chain(folder.glob("*"), folder.glob("*/*")) if path.is_file()]
    for path in files:
        if is_tar(path) or path.suffix.lower() == ".zip":
            check_link(path, folder)
    if archives := sorted((path for path in files if path.suffix.lower() == ".tar"), key=str):
        return _read_archives(archives, folder, config, used)
    if has_caption_files(folder):
        return None
    if splits := find_named_tables(folder):
        return _read_splits(splits, config, used, folder)
    if table := find_lone_table(folder):
        return _read_splits({"": [table]}, config, used, folder)
    tables = sorted(path.name for path in files if path.parent == folder and table_suffix(path) in _LONE_SUFFIXES)
    if len(tables) > 1:
        raise UserError(f"{folder} holds several tables: give one of {', '.join(tables)}.")
    if has_images(folder):  # an archive beside images may be what they were unpacked from
        return None
    if archives := sorted(filter(is_tar, files), key=str):
        return _read_archives(archives, folder, config, used)
    if archives := sorted((path for path in files if path.suffix.lower() == ".zip"), key=str):
        return _read_archives(archives, folder, config, used)
    return None


def _read_archives(
    archives: list[AnyPath], source: AnyPath, config: PrepareConfig, used: UsedFiles
) -> Iterator[Pair | Dropped]:
    """The samples of archives of one kind: of the source itself, or those in its folder."""
    _refuse_columns(source, config, "archives of images with captions")
    if is_tar(archives[0]):
        return read_tars(archives, source.parent if archives == [source] else source, used)
    for path in archives:
        used.add(path)
    return read_zips(archives)


def _read_splits(
    splits: dict[str, list[AnyPath]], config: PrepareConfig, used: UsedFiles, root: AnyPath
) -> Iterator[Pair | Dropped]:
    tables = (
        read_tables(
            [check_link(path, root) for path in paths], config.columns, used, canonical_split(split), config.max_samples
        )
        for split, paths in splits.items()
    )
    return chain.from_iterable(tables)


def _count_images(
    table: AnyPath, config: PrepareConfig, rows: Iterator[Pair | Dropped], used: UsedFiles
) -> Iterator[Pair | Dropped]:
    """The rows of a table alone, then the images beside those that it names."""
    image_root = _image_root(config)
    root = image_root or table.parent
    if config.max_samples is not None or is_url(root):
        return rows
    return count_unlisted_images(root, rows, used, whole_root=image_root is not None)


def _read_url(url: AnyPath, rows: Iterator[Pair | Dropped]) -> Iterator[Pair | Dropped]:
    with storage_errors(url):
        yield from rows

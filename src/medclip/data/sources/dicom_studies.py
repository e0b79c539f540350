"""Reads a folder of DICOM studies with their reports; names of patients, files and folders never leave it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.data.deidentify import DicomConfig, ValueFrequencies, pseudonym, read_key, redact_report
from medclip.data.dicom import dicom_errors, read_header
from medclip.data.images import is_dicom
from medclip.data.normalize import split_of
from medclip.data.paths import LEAVES_FOLDER, fold_name, leaves_folder, path_exists, special_kind
from medclip.data.schema import Dropped, Origin, Pair
from medclip.data.sources.dicom_rows import (
    UNREADABLE,
    UNUSED_REPORT,
    StudyObject,
    describe,
    make_rows,
    redact_structured,
    select_images,
)
from medclip.data.sources.reports import read_report, split_reading
from medclip.errors import ImageError
from medclip.progress import progress

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

OTHER_FILE = "not a DICOM file, in a folder of DICOM studies"
DIRECTORY = "DICOMDIR, an index of files"


def read_studies(folder: Path, studies: DicomConfig) -> Iterator[Pair | Dropped]:
    """Every image of every study, study by study, with the study's report.

    Ids are keyed hashes of the object's UID, groups of the patient's id: a patient has one split, and keeps it while
    the key is the same. Raises UserError where pydicom is not installed.
    """
    key = read_key(studies.pseudonym_key)
    files_by_study: dict[str, list[StudyObject[Path]]] = {}
    study_of_folder: dict[Path, str | None] = {}  # the one study that a folder holds; None for several
    texts: dict[str, Path] = {}
    unused: list[Dropped] = []
    for path, item in _read_headers(folder, key):
        if isinstance(item, StudyObject):
            files_by_study.setdefault(item.study, []).append(item)
            for parent in path.parents:
                if study_of_folder.setdefault(parent, item.study) != item.study:
                    study_of_folder[parent] = None
                if parent == folder:
                    break
        elif item == OTHER_FILE and path.suffix.lower() == ".txt":
            texts[fold_name(path.as_posix())] = path
        elif item == UNREADABLE:
            yield _dropped_file(path, folder, key, item)
        else:
            unused.append(_dropped_file(path, folder, key, item))
    used: set[Path] = set()
    frequencies = ValueFrequencies(key)
    for study, files in files_by_study.items():
        frequencies.start_study()
        structured = [item.file for item in files if item.is_text_report]
        images, others = select_images(files, studies.frames)
        for item in images:
            report = find_report_file(
                item.file, folder, lambda path, study=study: study_of_folder.get(path) == study, texts
            )
            reports = [report] if report else structured
            used.update(reports)
            yield from make_rows(
                item,
                _path_id(key, item.file, folder),
                partial(read_header, item.file),
                partial(_read_report, reports, on_replacement=frequencies.add),
                studies,
                key,
            )
        unused += [
            Dropped(_path_id(key, item.file, folder), split_of(item.group), reason, origin=item.origin)
            for item, reason in others
            if item.file not in used
        ]
    frequencies.warn()
    yield from unused
    yield from (_dropped_file(path, folder, key, UNUSED_REPORT) for path in texts.values() if path not in used)


def _path_id(key: bytes, path: Path, folder: Path) -> str:
    return pseudonym(key, path.relative_to(folder).as_posix())


def _dropped_file(path: Path, folder: Path, key: bytes, reason: str) -> Dropped:
    """A file that belongs to no study."""
    id = _path_id(key, path, folder)
    return Dropped(id, split_of(id), reason, origin=Origin(location=str(path)))


def _read_headers(folder: Path, key: bytes) -> Iterator[tuple[Path, StudyObject[Path] | str]]:
    """Every file with what groups it into a study, or with the reason why it is not of one."""
    with progress("headers", None, "files") as advance:
        for path in sorted(folder.rglob("*")):
            advance()
            try:
                if path.is_dir() or not path_exists(path):
                    continue
                if reason := LEAVES_FOLDER if leaves_folder(path, folder) else special_kind(path):
                    yield path, reason
                    continue
                if is_dicom(path) or path.suffix.lower() == ".dcm":
                    yield path, _read_file(path, key)
                else:
                    yield path, OTHER_FILE
            except (ImageError, OSError):
                yield path, UNREADABLE


def _read_file(path: Path, key: bytes) -> StudyObject[Path] | str:
    with dicom_errors():
        header = read_header(path)
        if "DirectoryRecordSequence" in header:
            return DIRECTORY
        return describe(header, path, str(path.parent), str(path), path.stat().st_size, key)


def find_report_file(
    path: Path, root: Path, holds_only_study: Callable[[Path], bool], texts: dict[str, Path]
) -> Path | None:
    """The text file that belongs to an image; None where there is none.

    x.txt beside x.dcm; otherwise report.txt or NAME.txt in the nearest folder NAME above it, or NAME.txt beside that
    folder; `texts` are the files below `root`, by `fold_name`. A folder counts only where `holds_only_study` is true
    for it, so that no report of another patient is taken.
    """
    stem = path.name[:-4] if path.suffix.lower() == ".dcm" else path.name  # names made of UIDs are full of dots
    candidates = [path.with_name(f"{stem}.txt")]
    for parent in (p for p in path.parents if p.is_relative_to(root)):
        if not holds_only_study(parent):
            break
        candidates += [parent / "report.txt", parent / f"{parent.name}.txt"]
        candidates += [parent.with_name(f"{parent.name}.txt")] if parent != root else []
    keys = (fold_name(candidate.as_posix()) for candidate in candidates)
    return next((texts[key] for key in keys if key in texts), None)


def _read_report(
    reports: list[Path], header: Dataset, on_replacement: Callable[[str, str], None]
) -> tuple[str, Counter[str]]:
    """The report of a study without the names in the image's header or its own; with replacements by attribute."""
    with dicom_errors():
        if reports and not is_dicom(reports[0]):
            try:
                report = read_report(reports[0])
            except UnicodeDecodeError:
                raise ImageError("is not UTF-8") from None
            reading, removed = split_reading(report)
            text, counts = redact_report(reading, header, on_replacement=on_replacement)
            return text, counts + Counter(name.removeprefix("report/") for name in removed)
        return redact_structured([read_header(path) for path in reports], header, on_replacement)

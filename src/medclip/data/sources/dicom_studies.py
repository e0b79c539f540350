"""Reads a folder of DICOM studies with their reports; names of patients, files and folders never leave it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.data.deidentify import (
    DICOM_SOURCE,
    DicomConfig,
    ValueFrequencies,
    header_labels,
    identifying_attributes,
    may_hold_text,
    pseudonym,
    read_key,
    redact_report,
)
from medclip.data.dicom import dicom_errors, frame_count, int_attribute, read_header
from medclip.data.dicom_display import numbers
from medclip.data.dicom_geometry import Plane, plane_of, sorted_stacks
from medclip.data.images import is_dicom
from medclip.data.normalize import split_of
from medclip.data.paths import fold_name
from medclip.data.schema import DicomFrame, Dropped, Pair
from medclip.data.sources.reports import split_reading
from medclip.errors import ImageError
from medclip.progress import progress

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_NON_IMAGE_MODALITIES = {
    *("AU", "DOC", "ECG", "FID", "KO", "PLAN", "PR", "REG", "SEG", "SR"),
    *("RTDOSE", "RTPLAN", "RTRECORD", "RTSTRUCT"),
}
_SLICE_MODALITIES = {"CT", "MR", "NM", "PT"}
LOCALIZER = "localizer"
OTHER_SLICE = "not the middle slice of its series (--frames all takes every slice)"
OTHER_FILE = "not a DICOM file, in a folder of DICOM studies"
DIRECTORY = "DICOMDIR, an index of files"
UNUSED_REPORT = "report without an image, or beside another report"
_TEXT_REPORTS = tuple(f"1.2.840.10008.5.1.4.1.1.88.{n}" for n in (11, 22, 33, 34))
"""Basic text, enhanced and comprehensive reports; dose reports, detections and key objects are not readings."""
_REPORT_SECTIONS = ("finding", "impression", "conclusion")
_UNREADABLE = "image unreadable"
_POSSIBLE_TEXT = "pixels/unmasked secondary capture or ultrasound that does not deny burned-in text"


@dataclass(frozen=True, slots=True)
class _DicomFile:
    path: Path
    study: str
    group: str
    """The pseudonym of the patient, of the study where the header names no patient."""
    series: str
    number: int
    location: float
    plane: Plane | None
    modality: str
    sop_class: str
    frames: int
    is_localizer: bool


def read_studies(folder: Path, studies: DicomConfig) -> Iterator[Pair | Dropped]:
    """Every image of every study, study by study, with the study's report.

    Ids are keyed hashes of the object's UID, groups of the patient's id: a patient has one split, and keeps it while
    the key is the same. Raises UserError where pydicom is not installed.
    """
    key = read_key(studies.pseudonym_key)
    files_by_study: dict[str, list[_DicomFile]] = {}
    study_of_folder: dict[Path, str | None] = {}  # the one study that a folder holds; None for several
    texts: dict[str, Path] = {}
    unused: list[tuple[Path, str, str]] = []  # with the reason and what decides the split
    for file in _read_headers(folder, key):
        if isinstance(file, _DicomFile):
            files_by_study.setdefault(file.study, []).append(file)
            for parent in file.path.parents:
                if study_of_folder.setdefault(parent, file.study) != file.study:
                    study_of_folder[parent] = None
                if parent == folder:
                    break
        elif file[1] == OTHER_FILE and file[0].suffix.lower() == ".txt":
            texts[fold_name(file[0].as_posix())] = file[0]
        elif file[1] == _UNREADABLE:
            id = _path_id(key, file[0], folder)
            yield Dropped(id, split_of(id), _UNREADABLE)
        else:
            unused.append((*file, _path_id(key, file[0], folder)))
    used: set[Path] = set()
    frequencies = ValueFrequencies(key)
    for study, files in files_by_study.items():
        frequencies.start_study()
        structured = [file.path for file in files if file.sop_class in _TEXT_REPORTS]
        images, others = _select_images(files, studies.frames)
        for file in images:
            report = find_report_file(
                file.path, folder, lambda path, study=study: study_of_folder.get(path) == study, texts
            )
            used.update([report] if report else structured)
            yield from _make_rows(file, folder, [report] if report else structured, studies, key, frequencies.add)
        unused += [(file.path, reason, file.group) for file, reason in others if file.path not in used]
    frequencies.warn()
    unused += [(path, UNUSED_REPORT, _path_id(key, path, folder)) for path in texts.values() if path not in used]
    for path, reason, group in unused:
        yield Dropped(_path_id(key, path, folder), split_of(group), reason)


def _path_id(key: bytes, path: Path, folder: Path) -> str:
    return pseudonym(key, path.relative_to(folder).as_posix())


def _read_headers(folder: Path, key: bytes) -> Iterator[_DicomFile | tuple[Path, str]]:
    """What groups files into studies; for any other file its path, with the reason why it is not one of them."""
    with progress("headers", None, "files") as advance:
        for path in sorted(folder.rglob("*")):
            advance()
            try:
                if not path.is_file():
                    continue
                if is_dicom(path) or path.suffix.lower() == ".dcm":
                    yield _read_file(path, key)
                else:
                    yield path, OTHER_FILE
            except (ImageError, OSError):
                yield path, _UNREADABLE


def _read_file(path: Path, key: bytes) -> _DicomFile | tuple[Path, str]:
    with dicom_errors():
        header = read_header(path)
        if "DirectoryRecordSequence" in header:
            return path, DIRECTORY
        study = str(header.get("StudyInstanceUID") or path.parent)
        return _DicomFile(
            path,
            study=study,
            group=_group(header, study, key),
            series=str(header.get("SeriesInstanceUID") or path),
            number=int_attribute(header, "InstanceNumber", 0),
            location=next((n for n in numbers(header, "SliceLocation") if n is not None), 0.0),
            plane=plane_of(header),
            modality=str(header.get("Modality")),
            sop_class=str(header.get("SOPClassUID")),
            frames=min(frame_count(header), path.stat().st_size),  # a header may claim any number
            is_localizer="LOCALIZER" in str(header.get("ImageType")).upper(),
        )


def _group(header: Dataset, study: str, key: bytes) -> str:
    if patient := header.get("PatientID"):
        return pseudonym(key, str(header.get("IssuerOfPatientID") or ""), str(patient))
    return pseudonym(key, study)


def _select_images(files: list[_DicomFile], frames: str) -> tuple[list[_DicomFile], list[tuple[_DicomFile, str]]]:
    """The images of a study and, with the reason, its other objects.

    Of a series of slices, localizers apart, the image is the one in the middle of the largest stack, unless `frames` is
    "all".
    """
    images: list[_DicomFile] = []
    others: list[tuple[_DicomFile, str]] = []
    series: dict[str, list[_DicomFile]] = {}
    for file in files:
        if file.sop_class in _TEXT_REPORTS:
            others.append((file, UNUSED_REPORT))
        elif file.modality in _NON_IMAGE_MODALITIES:
            others.append((file, f"DICOM object that is not an image: {file.modality}"))
        elif file.modality in _SLICE_MODALITIES and file.is_localizer:
            others.append((file, LOCALIZER))
        else:
            series.setdefault(file.series, []).append(file)
    for members in series.values():
        members.sort(key=lambda file: (file.number, file.location, file.path))
        if not all(file.modality in _SLICE_MODALITIES and file.frames == 1 for file in members):
            images += members
            continue
        stacks = [[members[index] for index in stack] for stack in sorted_stacks([file.plane for file in members])]
        slices = [file for stack in stacks for file in stack]
        if frames == "all":
            images += slices
            continue
        middle = stacks[0][len(stacks[0]) // 2]
        images.append(middle)
        others += [(file, OTHER_SLICE) for file in slices if file is not middle]
    return images, others


def _make_rows(
    file: _DicomFile,
    folder: Path,
    reports: list[Path],
    studies: DicomConfig,
    key: bytes,
    on_replacement: Callable[[str, str], None],
) -> list[Pair | Dropped]:
    """The pairs of a file: one, or one for each frame."""
    id, group = _path_id(key, file.path, folder), file.group
    try:
        with dicom_errors():
            header = read_header(file.path)
            id = pseudonym(key, str(header.SOPInstanceUID)) if header.get("SOPInstanceUID") else id
            labels, burned_in = header_labels(header), str(header.get("BurnedInAnnotation")).upper() == "YES"
            masked = studies.mask_borders and (burned_in or may_hold_text(header))
            removed = _removed_items(header, masked)
    except (ImageError, OSError):
        return [Dropped(id, split_of(group), _UNREADABLE)]
    try:
        text, replacements = _read_report(reports, header, on_replacement)
    except (ImageError, OSError):
        return [Dropped(id, split_of(group), "report unreadable")]
    if not text.strip():
        return [Dropped(id, split_of(group), "no report")]
    removed += [f"report/{keyword}" for keyword in replacements.elements()]
    frames = range(file.frames) if studies.frames == "all" and file.frames > 1 else (None,)
    return [
        Pair(
            id=id if number is None else f"{id}-{number}",
            image=DicomFrame(file.path, number, masked),
            caption=text,
            split=split_of(group),
            article=group,
            labels=labels,
            source=DICOM_SOURCE,
            removed=tuple(removed),
        )
        for number in frames
    ]


def _removed_items(header: Dataset, masked: bool) -> list[str]:
    pixels = ["pixels/border masked"] if masked else [_POSSIBLE_TEXT] if may_hold_text(header) else []
    return [f"header/{keyword}" for keyword in identifying_attributes(header)] + pixels


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
            report = reports[0].read_text(encoding="utf-8-sig")
            reading, removed = split_reading(report)
            text, counts = redact_report(reading, header, on_replacement=on_replacement)
            return text, counts + Counter(name.removeprefix("report/") for name in removed)
        headers = [read_header(path) for path in reports]
        text = "\n".join(filter(None, map(structured_report_text, headers)))
        return redact_report(text, header, *headers, on_replacement=on_replacement)


def structured_report_text(header: Dataset) -> str:
    """The findings, impression and conclusion of a structured report; all its text where it has no such sections."""
    texts = list(_iter_texts(header, ""))
    sections = [text for heading, text in texts if any(word in heading for word in _REPORT_SECTIONS)]
    return "\n".join(sections or (text for _, text in texts))


def _iter_texts(node: Dataset, path: str) -> Iterator[tuple[str, str]]:
    """Every text with its headings. Names, dates and identifiers are items of other types."""
    for item in node.get("ContentSequence") or ():
        names = item.get("ConceptNameCodeSequence") or ()
        heading = f"{path} {names[0].get('CodeMeaning', '') if names else ''}".lower()
        if item.get("ValueType") == "TEXT" and item.get("TextValue"):
            yield heading, str(item.TextValue)
        yield from _iter_texts(item, heading)

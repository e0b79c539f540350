"""Reads a folder of DICOM studies with their reports; what names a patient, a file or a folder stays behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medclip.data.deidentify import (
    DICOM_SOURCE,
    DicomConfig,
    header_labels,
    identifying_attributes,
    may_hold_text,
    pseudonym,
    read_key,
    redact_report,
)
from medclip.data.dicom import dicom_errors, frame_count, int_attribute, read_header
from medclip.data.images import is_dicom
from medclip.data.normalize import split_of
from medclip.data.schema import DicomFrame, Dropped, Pair
from medclip.data.sources.reports import TEXT_REPORTS, find_report_file, structured_report_text
from medclip.errors import ImageError
from medclip.progress import progress

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_NO_PICTURES = {
    *("AU", "DOC", "ECG", "FID", "KO", "PLAN", "PR", "REG", "SEG", "SR"),
    *("RTDOSE", "RTPLAN", "RTRECORD", "RTSTRUCT"),
}
_SLICES = {"CT", "MR", "NM", "PT"}
_DIRECTORY = "1.2.840.10008.1.3.10"
_UNSURE = "pixels/unmasked secondary capture or ultrasound that does not deny burned-in text"


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    study: str
    series: str
    number: int
    modality: str
    kind: str
    frames: int


def read_studies(folder: Path, studies: DicomConfig) -> Iterator[Pair | Dropped]:
    """Every image of every study, study by study, with the study's report.

    Ids are keyed hashes of the object's UID, groups of the patient's id: a patient has one split, and keeps it while
    the key is the same. Raises UserError where pydicom is not installed.
    """
    key = read_key(studies.pseudonym_key)
    files: dict[str, list[_File]] = {}
    within: dict[Path, str | None] = {}  # the study that a folder holds; None for several
    for found in _files(folder):
        if isinstance(found, Path):
            id = pseudonym(key, found.relative_to(folder).as_posix())
            yield Dropped(id, split_of(id), "image unreadable")
            continue
        files.setdefault(found.study, []).append(found)
        for place in found.path.parents:
            if within.setdefault(place, found.study) != found.study:
                within[place] = None
            if place == folder:
                break
    for study, of_study in files.items():
        structured = [file.path for file in of_study if file.kind in TEXT_REPORTS]
        for file in _chosen(of_study, studies.frames):
            text_file = find_report_file(file.path, folder, lambda place, study=study: within.get(place) == study)
            yield from _rows(file, folder, [text_file] if text_file else structured, studies, key)


def _files(folder: Path) -> Iterator[_File | Path]:
    """What is needed to find a study's files together; a DICOM file that cannot be read as its path."""
    with progress("headers", None, "files") as advance:
        for path in sorted(folder.rglob("*")):
            advance()
            try:
                if path.is_file() and (is_dicom(path) or path.suffix.lower() == ".dcm"):
                    yield _file(path)
            except (ImageError, OSError):
                yield path


def _file(path: Path) -> _File:
    with dicom_errors():
        said = read_header(path)
        return _File(
            path,
            study=str(said.get("StudyInstanceUID") or path.parent),
            series=str(said.get("SeriesInstanceUID") or path),
            number=int_attribute(said, "InstanceNumber", 0),
            modality=str(said.get("Modality")),
            kind=str(said.get("SOPClassUID")),
            frames=min(frame_count(said), path.stat().st_size),  # a header may claim any number
        )


def _chosen(of_study: list[_File], frames: str) -> Iterator[_File]:
    """The images of a study; of a series of slices the middle one, unless all are asked for."""
    series: dict[str, list[_File]] = {}
    for file in of_study:
        if file.modality not in _NO_PICTURES and file.kind != _DIRECTORY:
            series.setdefault(file.series, []).append(file)
    for members in series.values():
        slices = all(file.modality in _SLICES and file.frames == 1 for file in members)
        members.sort(key=lambda file: (file.number, file.path))
        yield from members[len(members) // 2 :][:1] if slices and frames == "middle" else members


def _rows(file: _File, folder: Path, reports: list[Path], studies: DicomConfig, key: bytes) -> list[Pair | Dropped]:
    """The pairs of a file: one, or one for each frame."""
    id, group = pseudonym(key, file.path.relative_to(folder).as_posix()), pseudonym(key, file.study)
    try:
        with dicom_errors():
            said = read_header(file.path)
            id = pseudonym(key, str(said.SOPInstanceUID)) if said.get("SOPInstanceUID") else id
            if patient := said.get("PatientID"):
                group = pseudonym(key, str(said.get("IssuerOfPatientID") or ""), str(patient))
            told, burned_in = header_labels(said), str(said.get("BurnedInAnnotation")).upper() == "YES"
            masked = studies.mask_borders and (burned_in or may_hold_text(said))
            removed = _left_behind(said, masked)
    except (ImageError, OSError):
        return [Dropped(id, split_of(group), "image unreadable")]
    try:
        text, replaced = _text(reports, said)
    except (ImageError, OSError):
        return [Dropped(id, split_of(group), "report unreadable")]
    if not text.strip():
        return [Dropped(id, split_of(group), "no report")]
    removed += [f"report/{keyword}" for keyword in replaced.elements()]
    frames = range(file.frames) if studies.frames == "all" and file.frames > 1 else (None,)
    return [
        Pair(
            id=id if number is None else f"{id}-{number}",
            image=DicomFrame(file.path, number, masked),
            caption=text,
            split=split_of(group),
            article=group,
            labels=told,
            source=DICOM_SOURCE,
            removed=tuple(removed),
        )
        for number in frames
    ]


def _text(reports: list[Path], said: Dataset) -> tuple[str, Counter[str]]:
    """The text of a study without the names that the image's header or the report's own knows."""
    with dicom_errors():
        if reports and not is_dicom(reports[0]):
            return redact_report(reports[0].read_text(encoding="utf-8-sig"), said)
        headers = [read_header(path) for path in reports]
        return redact_report("\n".join(filter(None, map(structured_report_text, headers))), said, *headers)


def _left_behind(said: Dataset, masked: bool) -> list[str]:
    pixels = ["pixels/border masked"] if masked else [_UNSURE] if may_hold_text(said) else []
    return [f"header/{keyword}" for keyword in identifying_attributes(said)] + pixels

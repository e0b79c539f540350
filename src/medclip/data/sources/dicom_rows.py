"""Objects of DICOM studies become rows, wherever they lie: which images, with which report, without which names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from medclip.data.deidentify import (
    DICOM_SOURCE,
    DicomConfig,
    group_pseudonym,
    header_labels,
    identifying_attributes,
    may_hold_text,
    pseudonym,
    redact_report,
)
from medclip.data.dicom import dicom_errors, frame_count, int_attribute
from medclip.data.dicom_display import numbers
from medclip.data.dicom_geometry import Plane, plane_of, sorted_stacks
from medclip.data.normalize import split_of
from medclip.data.schema import DicomFrame, Dropped, Origin, Pair, WebInstance
from medclip.data.sources.reports import READING
from medclip.errors import ImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

F = TypeVar("F", Path, WebInstance)
_NON_IMAGE_MODALITIES = {
    *("AU", "DOC", "ECG", "FID", "KO", "PLAN", "PR", "REG", "SEG", "SR"),
    *("RTDOSE", "RTPLAN", "RTRECORD", "RTSTRUCT"),
}
_SLICE_MODALITIES = {"CT", "MR", "NM", "PT"}
LOCALIZER = "localizer"
OTHER_SLICE = "not the middle slice of its series (--frames all takes every slice)"
UNUSED_REPORT = "report without an image, or beside another report"
_TEXT_REPORTS = tuple(f"1.2.840.10008.5.1.4.1.1.88.{n}" for n in (11, 22, 33, 34))
"""Basic text, enhanced and comprehensive reports; dose reports, detections and key objects are not readings."""
UNREADABLE = "image unreadable"
_POSSIBLE_TEXT = "pixels/unmasked secondary capture or ultrasound that does not deny burned-in text"


@dataclass(frozen=True, slots=True)
class StudyObject(Generic[F]):
    """What decides, of an object's header, where it belongs and whether it is an image."""

    file: F
    study: str
    group: str
    """The pseudonym of the patient, of the study where the header names no patient."""
    series: str
    instance: str
    """SOP Instance UID, "" where there is none."""
    number: int
    location: float
    plane: Plane | None
    modality: str
    sop_class: str
    frames: int
    is_localizer: bool

    @property
    def is_text_report(self) -> bool:
        """Whether it is a structured report that reads as text."""
        return self.sop_class in _TEXT_REPORTS

    @property
    def origin(self) -> Origin:
        """What the private map holds of it."""
        return Origin(self.study, self.series, self.instance, str(self.file))


def describe(header: Dataset, file: F, study: str, series: str, frames: int, key: bytes) -> StudyObject[F]:
    """An object by its header; `study` and `series` where it names none, and at most `frames` frames."""
    study = str(header.get("StudyInstanceUID") or study)
    return StudyObject(
        file,
        study=study,
        group=_group(header, study, key),
        series=str(header.get("SeriesInstanceUID") or series),
        instance=str(header.get("SOPInstanceUID") or ""),
        number=int_attribute(header, "InstanceNumber", 0),
        location=next((n for n in numbers(header, "SliceLocation") if n is not None), 0.0),
        plane=plane_of(header),
        modality=str(header.get("Modality")),
        sop_class=str(header.get("SOPClassUID")),
        frames=min(frame_count(header), frames),  # a header may claim any number
        is_localizer="LOCALIZER" in str(header.get("ImageType")).upper(),
    )


def _group(header: Dataset, study: str, key: bytes) -> str:
    if patient := header.get("PatientID"):
        return group_pseudonym(key, str(header.get("IssuerOfPatientID") or ""), str(patient))
    return pseudonym(key, study)


def select_images(
    files: list[StudyObject[F]], frames: str
) -> tuple[list[StudyObject[F]], list[tuple[StudyObject[F], str]]]:
    """The images of a study and, with the reason, its other objects.

    Of a series of slices, localizers apart, the image is the one in the middle of the largest stack, unless `frames` is
    "all".
    """
    images: list[StudyObject[F]] = []
    others: list[tuple[StudyObject[F], str]] = []
    series: dict[str, list[StudyObject[F]]] = {}
    for file in files:
        if file.is_text_report:
            others.append((file, UNUSED_REPORT))
        elif file.modality in _NON_IMAGE_MODALITIES:
            others.append((file, f"DICOM object that is not an image: {file.modality}"))
        elif file.modality in _SLICE_MODALITIES and file.is_localizer:
            others.append((file, LOCALIZER))
        else:
            series.setdefault(file.series, []).append(file)
    for members in series.values():
        members.sort(key=lambda file: (file.number, file.location, file.file))
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


def make_rows(
    item: StudyObject[F],
    fallback_id: str,
    read_image: Callable[[], Dataset],
    read_report: Callable[[Dataset], tuple[str, Counter[str]]],
    studies: DicomConfig,
    key: bytes,
) -> list[Pair | Dropped]:
    """The pairs of an image: one, or one for each frame.

    `read_image` gives its header, `read_report` for that header the text without names, and replacements by attribute.
    """
    id, group = fallback_id, item.group
    try:
        with dicom_errors():
            header = read_image()
            id = pseudonym(key, str(header.SOPInstanceUID)) if header.get("SOPInstanceUID") else id
            labels, burned_in = header_labels(header), str(header.get("BurnedInAnnotation")).upper() == "YES"
            masked = studies.mask_borders and (burned_in or may_hold_text(header))
            removed = _removed_items(header, masked)
    except (ImageError, OSError):
        return [Dropped(id, split_of(group), UNREADABLE, origin=item.origin)]
    try:
        text, replacements = read_report(header)
    except (ImageError, OSError) as error:
        reason = str(error).removeprefix("image ") if isinstance(error, ImageError) else "unreadable"
        return [Dropped(id, split_of(group), f"report {reason}", origin=item.origin)]
    if not text.strip():
        return [Dropped(id, split_of(group), "no report", origin=item.origin)]
    removed += [f"report/{keyword}" for keyword in replacements.elements()]
    frames = range(item.frames) if studies.frames == "all" and item.frames > 1 else (None,)
    return [
        Pair(
            id=id if number is None else f"{id}-{number}",
            image=DicomFrame(item.file, number, masked),
            caption=text,
            split=split_of(group),
            article=group,
            labels=labels,
            source=DICOM_SOURCE,
            removed=tuple(removed),
            origin=item.origin,
        )
        for number in frames
    ]


def _removed_items(header: Dataset, masked: bool) -> list[str]:
    pixels = ["pixels/border masked"] if masked else [_POSSIBLE_TEXT] if may_hold_text(header) else []
    return [f"header/{keyword}" for keyword in identifying_attributes(header)] + pixels


def redact_structured(
    reports: list[Dataset], header: Dataset, on_replacement: Callable[[str, str], None]
) -> tuple[str, Counter[str]]:
    """The text of structured reports without the names in the image's header or theirs, replacements by attribute."""
    text = "\n".join(filter(None, map(structured_report_text, reports)))
    return redact_report(text, header, *reports, on_replacement=on_replacement)


def structured_report_text(header: Dataset) -> str:
    """The findings, impression and conclusion of a structured report; all its text where it has no such sections."""
    texts = list(_iter_texts(header, ""))
    sections = [text for heading, text in texts if READING.search(heading)]
    return "\n".join(sections or (text for _, text in texts))


def _iter_texts(node: Dataset, path: str) -> Iterator[tuple[str, str]]:
    """Every text with its headings. Names, dates and identifiers are items of other types."""
    for item in node.get("ContentSequence") or ():
        names = item.get("ConceptNameCodeSequence") or ()
        heading = f"{path} {names[0].get('CodeMeaning', '') if names else ''}".lower()
        if item.get("ValueType") == "TEXT" and item.get("TextValue"):
            yield heading, str(item.TextValue)
        yield from _iter_texts(item, heading)

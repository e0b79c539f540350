"""The text of a DICOM study: a file beside its images, or its structured report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

TEXT_REPORTS = tuple(f"1.2.840.10008.5.1.4.1.1.88.{n}" for n in (11, 22, 33, 34))
"""Basic text, enhanced and comprehensive reports; those of doses, detections and key objects are no readings."""
_SECTIONS = ("finding", "impression", "conclusion")


def find_report_file(path: Path, root: Path, alone: Callable[[Path], bool]) -> Path | None:
    """The text file that belongs to an image; None where there is none.

    x.txt beside x.dcm; otherwise report.txt or NAME.txt in the nearest folder NAME above it, or NAME.txt beside that
    folder. A folder counts only where `alone` says that nothing but this study lies in it: a report may not be taken
    for that of another patient.
    """
    stem = path.name[:-4] if path.suffix.lower() == ".dcm" else path.name  # names made of UIDs are full of dots
    candidates = [path.with_name(f"{stem}.txt")]
    for place in (p for p in path.parents if p.is_relative_to(root)):
        if not alone(place):
            break
        candidates += [place / "report.txt", place / f"{place.name}.txt"]
        candidates += [place.with_name(f"{place.name}.txt")] if place != root else []
    return next((file for file in candidates if file.is_file()), None)


def structured_report_text(said: Dataset) -> str:
    """The findings, impression and conclusion of a structured report; all its text where it has no such sections."""
    found = list(_texts(said, ""))
    sections = [text for heading, text in found if any(word in heading for word in _SECTIONS)]
    return "\n".join(sections or (text for _, text in found))


def _texts(said: Dataset, above: str) -> Iterator[tuple[str, str]]:
    """Every text with the headings it stands under. Names, dates and identifiers are items of other kinds."""
    for item in said.get("ContentSequence") or ():
        names = item.get("ConceptNameCodeSequence") or ()
        heading = f"{above} {names[0].get('CodeMeaning', '') if names else ''}".lower()
        if item.get("ValueType") == "TEXT" and item.get("TextValue"):
            yield heading, str(item.TextValue)
        yield from _texts(item, heading)

"""Reads the studies of a DICOMweb server with their reports, as the folder source reads files.

Headers and reports are asked for study by study; an image is retrieved by the worker that prepares it. So nothing of a
patient is stored on this machine, and a killed preparation retrieves no image again whose shard is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

from medclip.data.deidentify import DicomConfig, ValueFrequencies, pseudonym, read_key
from medclip.data.dicom import dicom_errors, read_header
from medclip.data.dicomweb import Search, host_of, retrieve, search_studies, study_headers
from medclip.data.normalize import split_of
from medclip.data.private_map import studies_in_order
from medclip.data.schema import Dropped, Origin, Pair, WebInstance, take_per_split
from medclip.data.sources.dicom_rows import (
    UNREADABLE,
    StudyObject,
    describe,
    make_rows,
    redact_structured,
    select_images,
)
from medclip.errors import ImageError, WorkError
from medclip.require import require

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_FRAMES = 2**16
"""What a header may claim. A frame that is not there is dropped."""
_NOT_OF_THE_HEADER = {"7FE00010", "00080056", "00081190", "00083002"}
"""Pixels, and what a server adds: availability, address and transfer syntaxes of the object."""
_SPLITS = ("train", "validation")


def read_web_studies(search: Search, studies: DicomConfig, max_samples: int | None) -> Iterator[Pair | Dropped]:
    """Every image of every study that matches, study by study, with the study's structured reports.

    Studies that the private map knows come first, in its order, the others by the hash of their UID: studies that
    arrive at the server between two attempts move none that is prepared. Raises WorkError where the search finds none
    or the server is lost.
    """
    key = read_key(studies.pseudonym_key)
    known_order = {uid: number for number, uid in enumerate(studies_in_order(studies.pseudonym_key))}
    uids = search_studies(search)
    if not uids:
        raise WorkError(f"the search on {host_of(search.url)} finds no study. Look at its keys (QIDO-RS), or widen it.")
    uids.sort(key=lambda uid: (known_order.get(uid, len(known_order)), pseudonym(key, uid)))
    yield from take_per_split(_read_all(search.url, uids, studies, key), max_samples, _SPLITS)


def _read_all(url: str, uids: list[str], studies: DicomConfig, key: bytes) -> Iterator[Pair | Dropped]:
    frequencies = ValueFrequencies(key)
    for uid in uids:
        frequencies.start_study()
        yield from _read_study(url, uid, studies, key, frequencies.add)
    frequencies.warn()


def _read_study(
    url: str, uid: str, studies: DicomConfig, key: bytes, on_replacement: Callable[[str, str], None]
) -> Iterator[Pair | Dropped]:
    id = pseudonym(key, uid)
    try:
        objects = study_headers(url, uid)
    except ImageError as error:
        yield Dropped(id, split_of(id), f"study {error}", origin=Origin(uid, location=f"{url}/studies/{uid}"))
        return
    if not objects:
        yield Dropped(id, split_of(id), "study without objects", origin=Origin(uid))
    headers: dict[WebInstance, Dataset] = {}
    items: list[StudyObject[WebInstance]] = []
    for number, values in enumerate(objects):
        try:
            with dicom_errors():
                header = _read_json(values)
                file = WebInstance(url, uid, str(header.SeriesInstanceUID), str(header.SOPInstanceUID))
                item = describe(header, file, uid, file.series, MAX_FRAMES, key)
        except ImageError:
            yield Dropped(pseudonym(key, uid, str(number)), split_of(id), UNREADABLE, origin=Origin(uid))
            continue
        headers[file] = header
        items.append(item)
    images, others = select_images(items, studies.frames)
    reports = [item.file for item in items if item.is_text_report]
    read_report = _report_reader(reports if images else [], on_replacement)
    for item in images:
        yield from make_rows(item, item.instance, partial(headers.__getitem__, item.file), read_report, studies, key)
    for item, reason in others:
        if not (images and item.is_text_report):
            yield Dropped(pseudonym(key, item.instance), split_of(item.group), reason, origin=item.origin)


def _report_reader(
    files: list[WebInstance], on_replacement: Callable[[str, str], None]
) -> Callable[[Dataset], tuple[str, Counter[str]]]:
    """What reads the reports of a study for an image; they are retrieved once, and whole, with their own headers."""
    reports: list[Dataset] | ImageError
    try:
        reports = [read_header(BytesIO(retrieve(file))) for file in files]
    except ImageError as error:
        reports = error

    def read(header: Dataset) -> tuple[str, Counter[str]]:
        if isinstance(reports, ImageError):
            raise reports
        with dicom_errors():
            return redact_structured(reports, header, on_replacement)

    return read


def _read_json(values: dict[str, Any]) -> Dataset:
    """A header of DICOM JSON (PS3.18, annex F) without its bulk data."""
    dataset = require("pydicom", extra="dicom").Dataset
    elements = {tag: element for tag, element in values.items() if tag not in _NOT_OF_THE_HEADER}
    return dataset.from_json(elements, bulk_data_uri_handler=lambda *_: None)

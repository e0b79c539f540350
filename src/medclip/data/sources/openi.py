"""Reads the chest X-rays of Indiana University (Open-i): an XML file a report, or Kaggle's two tables.

Layouts: https://openi.nlm.nih.gov/faq (NLMCXR_reports, NLMCXR_png) and
https://www.kaggle.com/datasets/raddar/chest-xrays-indiana-university.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from xml.etree import ElementTree

from medclip.bounded_files import TooLargeError, read_bounded
from medclip.data.normalize import split_of
from medclip.data.paths import (
    LEAVES_FOLDER,
    AnyPath,
    check_link,
    leaves_folder,
    special_kind,
)
from medclip.data.schema import Dropped, Pair
from medclip.data.sources.image_caption_folder import list_images
from medclip.data.sources.image_cells import MISSING, UsedFiles
from medclip.data.sources.table_files import Row, read_columns

SOURCE = "Open-i"
SECOND_REPORT = "second report of a uid"
NO_UID = "report without a uid"
NO_READING = "report without findings and impression"
_MAX_REPORT_BYTES = 2**20  # they have a few thousand; entities of XML may unpack to 100 times as many
_PARTS = ("FINDINGS", "IMPRESSION")
_GLOB_DEPTHS = ("", "*/", "*/*/")


def is_openi(folder: AnyPath) -> bool:
    """Whether `folder` holds reports of Open-i as XML, and images."""
    first = next((path for path in _report_files(folder) if path.is_file()), None)
    if first is None or next(list_images(folder), None) is None:
        return False
    with first.open("rb") as file:
        return b"<eCitation" in file.read(4096)


def read_openi(folder: AnyPath, used: UsedFiles) -> Iterator[Pair | Dropped]:
    """Every image that a report names, with the report's findings and impression; then images without a report.

    The images of a report are one group.
    """
    images: dict[str, AnyPath] = {}
    for image in list_images(folder):
        if images.setdefault(image.stem, image) == image:  # a second one of a name is none that a row names
            used.add(image)
    named = set()
    for path in _report_files(folder):
        used.add(path)
        if reason := LEAVES_FOLDER if leaves_folder(path, folder) else special_kind(path):
            yield Dropped(path.stem, split_of(path.stem), f"report: {reason}", path.name)
            continue
        try:
            report = ElementTree.fromstring(read_bounded(path, _MAX_REPORT_BYTES))
        except TooLargeError:
            yield Dropped(path.stem, split_of(path.stem), f"report over {_MAX_REPORT_BYTES >> 20} MiB", path.name)
            continue
        except (ElementTree.ParseError, LookupError, ValueError, MemoryError):  # LookupError: no such encoding
            yield Dropped(path.stem, split_of(path.stem), "report is not XML", path.name)
            continue
        uid = report.find(".//uId")
        group = (uid.get("id") if uid is not None else "") or path.stem
        texts = [((text.get("Label") or "").upper(), _text(text)) for text in report.iter("AbstractText")]
        caption = "\n".join(text for part in _PARTS for label, text in texts if label == part and text)
        ids = [id for image in report.iter("parentImage") if (id := image.get("id"))]
        named.update(ids)
        if not ids:
            yield Dropped(group, split_of(group), "report without images", path.name)
        for id in ids:
            if not caption:
                yield Dropped(id, split_of(group), NO_READING, path.name)
            elif id not in images:
                yield Dropped(id, split_of(group), MISSING, path.name)
            else:
                yield Pair(
                    id=id,
                    image=images[id],
                    caption=caption,
                    split=split_of(group),
                    article=group,
                    license=_text(report.find("licenseURL")) or _text(report.find("licenseType")),
                    keywords=tuple(filter(None, map(_text, report.findall("MeSH/*")))),
                    source=SOURCE,
                )
    for id in sorted(images.keys() - named):
        yield Dropped(id, split_of(id), "no report", images[id].name)


def find_projections(folder: AnyPath) -> tuple[AnyPath, AnyPath] | None:
    """Kaggle's tables of reports and of their images; None where `folder` has not both."""
    tables = (folder / "indiana_reports.csv", folder / "indiana_projections.csv")
    if not all(path.is_file() for path in tables):
        return None
    return check_link(tables[0], folder), check_link(tables[1], folder)


def read_projections(reports: AnyPath, projections: AnyPath, used: UsedFiles) -> Iterator[Pair | Dropped]:
    """Every row of the table of images, with the findings and the impression of its report (`uid`), which is its group.

    Then the reports without images. Raises UserError where a column is absent.
    """
    by_uid: dict[str, Row] = {}
    for number, row in enumerate(read_columns(reports, {"uid", "findings", "impression"}), start=1):
        uid = row["uid"] or ""
        if not uid or by_uid.setdefault(uid, row) is not row:
            yield Dropped(uid, split_of(uid), SECOND_REPORT if uid else NO_UID, f"{reports.name} row {number}")
    images = {image.name: image for image in list_images(reports.parent)}
    without_image = dict.fromkeys(by_uid)
    used.add(reports)
    used.add(projections)
    for row in read_columns(projections, {"uid", "filename"}):
        uid, name = row["uid"] or "", row["filename"] or ""
        id, split = name.removesuffix(".png").removesuffix(".dcm"), split_of(uid)
        report = by_uid.get(uid)
        without_image.pop(uid, None)
        if name in images:
            used.add(images[name])
        if report is None:
            yield Dropped(id, split, "no report", f"uid {uid}")
        elif not (caption := "\n".join(text for field in ("findings", "impression") if (text := report[field]))):
            yield Dropped(id, split, NO_READING, f"uid {uid}")
        elif name not in images:
            yield Dropped(id, split, MISSING, name)
        else:
            view = {"view": row["projection"]} if row.get("projection") else {}
            problems = tuple(word for word in (report.get("Problems") or "").split(";") if word)
            yield Pair(id, images[name], caption, split, uid, keywords=problems, labels=view, source=SOURCE)
    for uid in without_image:
        yield Dropped(uid, split_of(uid), "report without images", reports.name)


def _report_files(folder: AnyPath) -> Iterator[AnyPath]:
    return chain.from_iterable(sorted(folder.glob(f"{depth}*.xml"), key=str) for depth in _GLOB_DEPTHS)


def _text(element: ElementTree.Element | None) -> str:
    return "" if element is None else " ".join("".join(element.itertext()).split())

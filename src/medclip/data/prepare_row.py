"""Rows of a source as rows of the prepared form, or the reasons why there are none."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from medclip.bounded_files import TooLargeError, read_bounded
from medclip.data.decode_workers import isolate_each
from medclip.data.deidentify import hide, redact_report
from medclip.data.images import is_dicom, standardize
from medclip.data.normalize import (
    CAPTION_TOO_LONG,
    MAX_CAPTION_CHARACTERS,
    MIN_CAPTION_CHARACTERS,
    clean_caption,
    is_rtf,
    license_name,
    license_set,
)
from medclip.data.paths import AnyPath, is_url, special_kind, storage_errors
from medclip.data.prepare_config import PrepareConfig
from medclip.data.presidio import PRIVACY_PREFIX, deidentify_caption
from medclip.data.schema import DicomFrame, Dropped, Pair, WebInstance
from medclip.errors import ImageError
from medclip.hosts import without_credentials
from medclip.plain_text import is_unicode

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

BATCH_ROWS, BATCH_BYTES = 16, 2**22
MAX_IMAGE_BYTES = 2**30  # of one behind a URL, which is in memory before it is decoded
LATE_REDACTION = "names in the file that the server's metadata lack"


def prepare_rows(rows: Iterable[Pair | Dropped], config: PrepareConfig) -> Iterator[dict[str, Any] | Dropped]:
    """Each row as one of `shards.SCHEMA` with what the pair has lost as `removed`, or why there is none."""
    for batch in _batches(_prepare_text(row, config) for row in rows):
        texts = [text for text in batch if not isinstance(text, Dropped)]
        images = iter(isolate_each(standardize, [(text.source, config.shorter_side) for text in texts]))
        yield from (text if isinstance(text, Dropped) else _join(text, next(images)) for text in batch)


class _Text(NamedTuple):
    """A row whose caption is ready, and its image is not."""

    row: Pair
    source: Path | bytes | DicomFrame
    caption: str
    rules: list[str]


def _batches(texts: Iterable[_Text | Dropped]) -> Iterator[list[_Text | Dropped]]:
    """Rows whose images are decoded in one go: few enough for what was downloaded to lie in memory."""
    batch: list[_Text | Dropped] = []
    num_bytes = 0
    for text in texts:
        batch.append(text)
        num_bytes += 0 if isinstance(text, Dropped) else _bytes_in_memory(text.source)
        if len(batch) == BATCH_ROWS or num_bytes >= BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def _bytes_in_memory(image: Path | bytes | DicomFrame) -> int:
    file = image.file if isinstance(image, DicomFrame) else image
    return len(file) if isinstance(file, bytes) else 0


def _prepare_text(row: Pair | Dropped, config: PrepareConfig) -> _Text | Dropped:
    if isinstance(row, Dropped):
        return row
    if not _can_be_stored(row):
        return Dropped(row.id, row.split, "text is not Unicode")
    if config.licenses is not None and license_name(row.license) not in license_set(config.licenses):
        return Dropped(row.id, row.split, "license not in --licenses", row.license)
    if len(row.caption) > MAX_CAPTION_CHARACTERS:
        return Dropped(row.id, row.split, CAPTION_TOO_LONG)
    if is_rtf(row.caption):
        return Dropped(row.id, row.split, "caption is RTF, not plain text")
    late_rules: list[str] = []
    if isinstance(row.image, DicomFrame) and isinstance(row.image.file, WebInstance):
        try:
            row, late_rules = _retrieve(row, row.image, row.image.file)
        except ImageError as error:
            return Dropped(row.id, row.split, str(error))
    try:
        source = _download(row.image)
        row = _redact_by_header(row, source)
    except ImageError as error:
        return _drop(row, error)
    row = _deidentify(row) if config.deidentify else row
    caption, rules = clean_caption(row.caption)
    if len(caption) < MIN_CAPTION_CHARACTERS:
        return Dropped(row.id, row.split, f"caption under {MIN_CAPTION_CHARACTERS} characters")
    return _Text(row, source, caption, late_rules + rules)


def _join(text: _Text, image: tuple[bytes, int, int] | ImageError) -> dict[str, Any] | Dropped:
    row = text.row
    if isinstance(image, ImageError):
        return _drop(row, image)
    encoded, width, height = image
    return {
        "id": row.id,
        "image": encoded,
        "width": width,
        "height": height,
        "caption": text.caption,
        "caption_original": row.caption,
        "caption_rules": text.rules,
        "article": row.article,
        "license": row.license,
        "attribution": row.attribution,
        "concepts": list(row.concepts),
        "keywords": list(row.keywords),
        "semantic_types": list(row.semantic_types),
        "labels": list(row.labels.items()),
        "source": row.source,
        "sha256": hashlib.sha256(encoded).hexdigest(),
        "removed": list(row.removed),
    }


def _drop(row: Pair, error: ImageError) -> Dropped:
    file = "" if isinstance(row.image, bytes | DicomFrame) else _file_name(row.image)
    detail = row.if_missing if str(error) == "image missing" else ""
    return Dropped(row.id, row.split, str(error), detail or hide(file, row))


def _file_name(image: AnyPath) -> str:
    return PurePosixPath(without_credentials(str(image))).name if is_url(image) else image.name


def _can_be_stored(row: Pair) -> bool:
    """Whether the texts can be stored: JSON and file names can hold lone surrogates, which UTF-8 cannot."""
    fields = [getattr(row, name) for name in Pair.__slots__ if name != "image"]
    return is_unicode(json.dumps(fields, ensure_ascii=False))


def _retrieve(row: Pair, frame: DicomFrame, instance: WebInstance) -> tuple[Pair, list[str]]:
    """A row with the file of its image, and its caption without the names in that file's own header.

    A server may give metadata in part; LATE_REDACTION is then the rule that changed the caption.
    """
    from medclip.data.dicom import read_header
    from medclip.data.dicomweb import retrieve

    file = retrieve(instance)
    caption, _ = redact_report(row.caption, read_header(io.BytesIO(file)))
    rules = [LATE_REDACTION] if caption != row.caption else []
    return replace(row, image=replace(frame, file=file), caption=caption), rules


def _redact_by_header(row: Pair, image: Path | bytes | DicomFrame) -> Pair:
    """A row of a table whose image is a DICOM file, its caption without what that file's header names."""
    if isinstance(image, DicomFrame) or (header := _read_own_header(image)) is None:
        return row  # readers of studies know the headers
    caption, counts = redact_report(row.caption, header)
    removed = (*row.removed, *(f"report/{keyword}" for keyword in counts.elements()))
    return replace(row, caption=caption, removed=removed) if caption != row.caption and counts else row


def _read_own_header(image: Path | bytes) -> Dataset | None:
    """The header of a DICOM file; None of another file, and where there is none that can be read, as decoding says."""
    try:
        if (isinstance(image, Path) and special_kind(image)) or not is_dicom(image):
            return None
        from medclip.data.dicom import read_header

        return read_header(io.BytesIO(image) if isinstance(image, bytes) else image)
    except (ImageError, OSError, ValueError):
        return None


def _deidentify(row: Pair) -> Pair:
    """A row without what Presidio detects in its caption, counted under `removed` by entity."""
    caption, counts = deidentify_caption(row.caption)
    removed = (f"{PRIVACY_PREFIX}{kind}" for kind in counts.elements())
    return replace(row, caption=caption, removed=(*row.removed, *removed))


def _download(image: AnyPath | bytes | DicomFrame) -> Path | bytes | DicomFrame:
    """The bytes of an image behind a URL. A store that does not answer fails the work: the image is not missing."""
    if not is_url(image):
        return image
    try:
        with storage_errors(image, pass_through=(FileNotFoundError, IsADirectoryError)):
            return read_bounded(image, MAX_IMAGE_BYTES)
    except TooLargeError:
        raise ImageError(f"image over {MAX_IMAGE_BYTES >> 20} MiB behind a URL") from None
    except (FileNotFoundError, IsADirectoryError):
        raise ImageError("image missing") from None

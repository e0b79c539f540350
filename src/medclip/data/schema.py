"""What every source yields: pairs of an image and a caption, and rows that were dropped."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from medclip.data.paths import AnyPath

_ROW_NUMBER = re.compile(r"\d+(?:\.0+)?(?:-\d+)*")
_MAX_RUNNING_DIGITS = 6
_MADE_UP = "auto:"
"""The mark of an id or a group that no source names; such a one means nothing outside its dataset."""
NUMBERED = "number:"
"""The mark of the pseudonym of a running number."""


def make_up_id(*content: str | bytes) -> str:
    """An id for what has none, a hash of its content and its source: the order of rows does not decide it."""
    digest = hashlib.sha256()
    for part in content:
        part = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(part).to_bytes(8) + part)
    return _MADE_UP + digest.hexdigest()[:16]


def is_made_up(id: str) -> bool:
    """Whether an id or a group was made up by `make_up_id`."""
    return id.startswith(_MADE_UP)


def is_row_number(id: str) -> bool:
    """Whether an id is a number, as of a table's rows: 17, 000017, 17.0, or 17-1 for its second caption.

    It stays the name of its pair, but another dataset has it too.
    """
    return _ROW_NUMBER.fullmatch(id) is not None


def names_no_group(article: str, id: str) -> bool:
    """Whether the article of a pair is only its id, or one that was made up: neither says what it shares."""
    return is_made_up(article) or article == id


def is_running_number(article: str) -> bool:
    """Whether an article or a patient is a number of at most six digits, as every hospital numbers its own.

    Also where it is the pseudonym of such a number.
    """
    return article.startswith(NUMBERED) or (len(article) <= _MAX_RUNNING_DIGITS and article.isdecimal())


class Origin(NamedTuple):
    """What a row of a DICOM source stands for; for the private map of its owner, never for the dataset."""

    study: str = ""
    series: str = ""
    instance: str = ""
    """UIDs, "" where the object has none."""
    location: str = ""
    """Path of the file or address of the object."""


NO_ORIGIN = Origin()


@dataclass(frozen=True, order=True, slots=True)
class WebInstance:
    """An object of a DICOMweb server: the address of the service, and UIDs."""

    url: str
    study: str
    series: str
    instance: str

    def __str__(self) -> str:
        return f"{self.url}/studies/{self.study}/series/{self.series}/instances/{self.instance}"


@dataclass(frozen=True, slots=True)
class DicomFrame:
    """A frame of a DICOM file by its number (None: the middle one); `masked` paints a tenth of each side black."""

    file: Path | bytes | WebInstance
    """`medclip.data.dicomweb.retrieve` turns an object of a server into bytes before it is decoded."""
    number: int | None = None
    masked: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """One image with one caption, as a source yields it: not cleaned, not decoded."""

    id: str
    image: AnyPath | bytes | DicomFrame
    """A file on this machine or behind a URL, which may be absent or broken, or the encoded bytes."""
    caption: str
    split: str
    article: str
    """The publication or patient that the image came from; its rows all belong to one split."""
    license: str = ""
    attribution: str = ""
    """Author and publication of the image, as most licenses require."""
    concepts: tuple[str, ...] = ()
    """UMLS identifiers."""
    keywords: tuple[str, ...] = ()
    semantic_types: tuple[str, ...] = ()
    """Names of the semantic types of the concepts."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Values by the label's name (modality, organ, …)."""
    source: str = ""
    private: tuple[str, ...] = ()
    """Values that name a patient or study in the source (PatientID): preparation replaces the article and the id that
    hold one by keyed pseudonyms, and stores none."""
    identifying: tuple[tuple[str, str], ...] = ()
    """Names (PN) and dates (DA) of people that the source states beside the pair: preparation replaces them in the
    caption, and the id that holds one."""
    removed: tuple[str, ...] = ()
    """What the reader withheld, as "place/name" ("header/PatientName"): names, never values."""
    if_missing: str = ""
    """Where the image was looked for, to be said if it is missing."""
    origin: Origin = NO_ORIGIN


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that did not become a pair, with the reason under which it is counted."""

    id: str
    split: str
    reason: str
    detail: str = ""
    private: tuple[str, ...] = ()
    """As of a Pair."""
    identifying: tuple[tuple[str, str], ...] = ()
    """As of a Pair."""
    origin: Origin = NO_ORIGIN


def take_per_split(
    rows: Iterable[Pair | Dropped], max_samples: int | None, splits: Sequence[str] = ()
) -> Generator[Pair | Dropped]:
    """The first rows of each split, at most `max_samples`.

    Reading stops once every one of `splits` has that many; give them where they are all that can occur.
    """
    taken: Counter[str] = Counter()
    for row in rows:
        taken[row.split] += 1
        if max_samples is None or taken[row.split] <= max_samples:
            yield row
        if max_samples is not None and splits and all(taken[split] >= max_samples for split in splits):
            return

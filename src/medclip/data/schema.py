"""The values every source yields and every later stage reads: one image with one caption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medclip.data.paths import AnyPath


@dataclass(frozen=True, slots=True)
class DicomFrame:
    """A frame of a DICOM file by its number (None: the middle one); `masked` paints a tenth of each side black."""

    path: Path
    number: int | None = None
    masked: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """One image with one caption, as a source hands it over: nothing cleaned, nothing decoded.

    `image` is a file that may be absent or broken, on this machine or behind a URL, or the encoded bytes themselves;
    preparation finds out.
    `article` names the publication (or patient) the image came from: rows that share it may never be
    split between training and validation. `concepts` are UMLS identifiers and `semantic_types` the names of their
    types. `labels` maps a label's name (modality, organ, ...) to its value. `attribution` is what the license wants
    said: whose the image is and where it was published. `removed` names what the source knew and did not hand over,
    as "place/what" ("header/PatientName"): names, never values.
    """

    id: str
    image: AnyPath | bytes | DicomFrame
    caption: str
    split: str
    article: str
    license: str = ""
    attribution: str = ""
    concepts: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    semantic_types: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that did not become a pair, with the reason under which it is counted."""

    id: str
    split: str
    reason: str
    detail: str = ""


def take_per_split(
    rows: Iterable[Pair | Dropped], max_samples: int | None, splits: Sequence[str] = ()
) -> Iterator[Pair | Dropped]:
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

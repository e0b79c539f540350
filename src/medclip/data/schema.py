"""What every source yields: pairs of an image and a caption, and rows that were dropped."""

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
    removed: tuple[str, ...] = ()
    """What the reader withheld, as "place/name" ("header/PatientName"): names, never values."""


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

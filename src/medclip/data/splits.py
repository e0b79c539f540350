"""Which split a group of pairs belongs to: what its source says, in one spelling, or a hash."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from medclip.data.schema import Dropped, Pair

VALIDATION_SHARE = 0.1
HASHED = ("train", "validation")
"""The splits that `split_of` knows."""

_SPELLINGS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SPLITS = tuple(_SPELLINGS)
_NAMES = {word: split for split, words in _SPELLINGS.items() for word in words}
_WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(_NAMES, key=len, reverse=True))})(?![a-z])")


def split_of(group: str) -> str:
    """The split of an article or patient, by a hash of its name: it stays where it is however the data grow."""
    digest = hashlib.blake2b(group.encode(errors="surrogatepass"), digest_size=8).digest()
    return "validation" if int.from_bytes(digest) < VALIDATION_SHARE * 2**64 else "train"


def canonical_split(split: str) -> str:
    """A source's word for a split in this program's spelling ("val" is "validation"); other names stay."""
    return _NAMES.get(split.strip().lower(), split.strip())


def split_in(name: str) -> str:
    """The split that a file's path names ("data/val-00000.parquet"), its last word first; "" where it names none."""
    words = _WORD.findall(name.lower())
    return _NAMES[words[-1]] if words else ""


def first(rows: Iterable[Pair | Dropped], limit: int | None, splits: Sequence[str] = ()) -> Iterator[Pair | Dropped]:
    """The first `limit` rows of each split; where all `splits` that can occur are given, no more is read than that."""
    taken: Counter[str] = Counter()
    for row in rows:
        taken[row.split] += 1
        if limit is None or taken[row.split] <= limit:
            yield row
        if limit is not None and splits and all(taken[split] >= limit for split in splits):
            return

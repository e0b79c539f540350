"""Which split a group of pairs belongs to, where its source does not say."""

from __future__ import annotations

import hashlib

VALIDATION_SHARE = 0.1


def split_of(group: str) -> str:
    """The split of an article or patient, by a hash of its name: it stays where it is however the data grow."""
    digest = hashlib.blake2b(group.encode(), digest_size=8).digest()
    return "validation" if int.from_bytes(digest) < VALIDATION_SHARE * 2**64 else "train"

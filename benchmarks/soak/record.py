"""What a part of the soak tells: a line of JSON for a kind of fault, and the bounds that it was given."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Bounds:
    """How long a part goes on: `given` tries of each kind, or for `seconds`; left out, as often as the part thinks."""

    folder: Path
    seed: int = 0
    given: int | None = None
    seconds: float | None = None
    only: str = ""
    """Kinds of fault whose name holds this."""

    def count(self, usual: int) -> int:
        """The number of tries."""
        return usual if self.given is None else self.given

    def times(self, usual: int) -> Iterator[int]:
        """Numbers of tries; with `seconds`, as many as begin in that time, and one at least."""
        end = time.monotonic() + (self.seconds or 0)
        number = 0
        while time.monotonic() < end or not number if self.seconds else number < self.count(usual):
            yield number
            number += 1


@dataclass
class Record:
    """One kind of fault, tried so often."""

    fault: str
    times: int
    outcome: str
    """What happened in every try that `failures` does not name."""
    failures: list[str] = field(default_factory=list)
    data_lost: str = "none"
    only: str = ""
    """What `--only` repeats it with."""


def sentence(output: str) -> str:
    """The last line of an output, short."""
    lines = [line for line in output.splitlines() if line.strip()]
    return (lines[-1] if lines else "no output")[:300]

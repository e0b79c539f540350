"""The model and the data of an evaluation: the flags that every `medclip evaluate` has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medclip.data.dataset import Split, default_split
from medclip.data.paths import parse_path
from medclip.errors import UserError

ProtocolName = Literal["chexzero", "biomedclip", "gloria", "medclip", "medclip-max"]
"""Zero-shot protocols, named after the models they were published with: see `evaluation.protocols`."""
ProtocolChoice = Literal["all", ProtocolName]


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """A model and the split that it is measured on."""

    model: str = ""
    """A model folder, a run, or OWNER/NAME on the Hub."""
    data: str = ""
    """A prepared dataset: a folder or a URL."""
    split: str | None = None
    """Which split; default: validation, or the only one."""
    max_samples: int | None = None
    """The first pairs only: fewer candidates, and so higher numbers."""
    out: Path | None = None
    """Folder for the results; several kinds of evaluations may share it."""
    seed: int = 0
    """Seed of the bootstrap and of all other random draws."""
    cache: bool = True
    """Whether features are read from and saved in the feature cache; the numbers are the same, bit for bit."""

    def __post_init__(self) -> None:
        if self.seed < 0 or (self.max_samples is not None and self.max_samples < 1):
            raise UserError("seed must be at least 0 and max_samples at least 1.")

    def rows(self) -> Split:
        """The pairs of the split. UserError where there are none."""
        if not self.data:
            raise UserError("give --data DATA, a prepared dataset.")
        data = parse_path(self.data)
        return Split(data, self.split or default_split(data), self.max_samples)

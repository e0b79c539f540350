"""What is measured, on what: flags of every `medclip evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medclip.data.dataset import Split, default_split
from medclip.data.paths import parse_path
from medclip.errors import UserError


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What is measured, on what."""

    model: str
    """A model folder, a run, or OWNER/NAME on the Hub."""
    data: str
    """A prepared dataset: a folder or a URL."""
    split: str | None = None
    """Which split; left out: validation, or the only one."""
    max_samples: int | None = None
    """The first pairs only: a smaller pool, and so higher numbers."""
    out: Path | None = None
    """Folder for the results; several measures may share it."""
    seed: int = 0
    """Seed of the bootstrap and of whatever else is drawn."""

    def __post_init__(self) -> None:
        if self.seed < 0 or (self.max_samples is not None and self.max_samples < 1):
            raise UserError("--seed must be at least 0 and --max-samples at least 1.")

    def rows(self) -> Split:
        """The pairs that are measured on. UserError where there are none."""
        data = parse_path(self.data)
        return Split(data, self.split or default_split(data), self.max_samples)

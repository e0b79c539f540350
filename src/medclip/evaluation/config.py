"""The model, the data and the labels of an evaluation, as flags of `medclip evaluate` give them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from medclip.data.dataset import Split, default_split
from medclip.data.paths import fold_name, parse_path
from medclip.errors import UserError
from medclip.folder_kinds import EVALUATION_FILES
from medclip.folder_locks import check_kind

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
    """Folder for the results; several kinds of evaluations may share it. UserError for a folder of another kind."""
    seed: int = 0
    """Seed of the bootstrap and of all other random draws."""
    cache: bool = True
    """Whether features are read from and saved in the feature cache; the numbers are the same, bit for bit."""

    def __post_init__(self) -> None:
        if self.seed < 0 or (self.max_samples is not None and self.max_samples < 1):
            raise UserError("seed must be at least 0 and max_samples at least 1.")
        if self.out is not None:
            check_kind(self.out, *EVALUATION_FILES)

    def rows(self) -> Split:
        """The pairs of the split. UserError where there are none."""
        if not self.data:
            raise UserError("give --data DATA, a prepared dataset.")
        data = parse_path(self.data)
        return Split(data, self.split or default_split(data), self.max_samples)


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """The label to classify by, its classes, and the baseline."""

    label: str | None = None
    """One of a prepared dataset's labels (modality, organ, …), or a column of labels.csv; default: the only one."""
    classes: tuple[str, ...] = ()
    """These classes only, in any case; images of others are excluded and counted. Default: all that occur. Also columns
    of labels.csv, each a finding: 1, 0 or nothing, -1 for uncertain."""
    random_weights: bool = True
    """Also measure the same architecture with random weights, as a baseline without training."""

    @cached_property
    def class_keys(self) -> frozenset[str]:
        """The classes as they are compared (`fold_name`)."""
        return frozenset(map(fold_name, self.classes))

    def choose(self, present: Iterable[str]) -> list[str]:
        """The classes of the config, spelled as those that are `present`, or else these, sorted."""
        present = sorted(set(present))
        spellings = {fold_name(name): name for name in reversed(present)}
        chosen = {fold_name(name): spellings.get(fold_name(name), name) for name in reversed(self.classes)}
        return list(reversed(chosen.values())) or present

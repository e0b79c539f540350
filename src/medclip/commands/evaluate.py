"""The command that measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from medclip.commands.arguments import Data, Positional, Seed
from medclip.tables import show_retrieval, show_sides


@dataclass(frozen=True)
class Evaluate:
    """Measure a model on a split, with 95 % intervals.

    retrieval: R@1, R@5, R@10 and median rank both ways over a stated pool. sides: how often a picture prefers
    its caption over the same caption with left and right exchanged.
    """

    measure: Annotated[Positional[Literal["retrieval", "sides"]], tyro.conf.arg(metavar="retrieval|sides")]
    """What to measure."""
    model: str
    """A model folder, a run, or OWNER/NAME on the Hub."""
    data: Data
    """A prepared data set."""
    split: str | None = None
    """Which split; left out: validation, or the only one."""
    out: Path | None = None
    """Folder for the results as JSON."""
    seed: Seed = 0
    """Seed of the bootstrap."""
    limit: int | None = None
    """The first pairs only: a smaller pool, and so higher numbers."""

    def run(self) -> None:
        from medclip.evaluate.retrieval import evaluate_retrieval
        from medclip.evaluate.sides import evaluate_sides

        evaluate, show = {
            "retrieval": (evaluate_retrieval, show_retrieval),
            "sides": (evaluate_sides, show_sides),
        }[self.measure]
        show(evaluate(self.model, self.data, self.split, self.out, self.seed, self.limit))

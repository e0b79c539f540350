"""The commands that measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from medclip.evaluate.subject import Subject
from medclip.progress import console
from medclip.tables import show_retrieval, show_sides


@dataclass(frozen=True)
class Retrieval:
    """How well captions find their pictures and pictures their captions: R@1, R@5, R@10 and median rank both ways."""

    subject: tyro.conf.OmitArgPrefixes[Subject]

    def run(self) -> None:
        from medclip.evaluate.retrieval import evaluate_retrieval

        show_retrieval(evaluate_retrieval(self.subject))


@dataclass(frozen=True)
class Understanding:
    """What captions mean to a model: how often a picture prefers its caption over one with left and right exchanged."""

    subject: tyro.conf.OmitArgPrefixes[Subject]

    def run(self) -> None:
        from medclip.evaluate.sides import evaluate_sides

        show_sides(evaluate_sides(self.subject))


@dataclass(frozen=True)
class Evaluate:
    """Measure a model on a split, with 95 % intervals."""

    measure: (
        Annotated[Retrieval, tyro.conf.subcommand("retrieval")]
        | Annotated[Understanding, tyro.conf.subcommand("understanding")]
    )

    def run(self) -> None:
        self.measure.run()
        if self.measure.subject.out is not None:
            from medclip.evaluate.report import write_report

            console.print(f"all that this folder holds, with drawings: {write_report(self.measure.subject.out)}")

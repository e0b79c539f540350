"""The commands that measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from medclip.evaluate.subject import Subject
from medclip.tables import show_retrieval, show_robustness, show_understanding


@dataclass(frozen=True)
class Retrieval:
    """How well captions find their pictures and pictures their captions: R@1, R@5, R@10 and median rank both ways."""

    subject: tyro.conf.OmitArgPrefixes[Subject]

    def run(self) -> None:
        from medclip.evaluate.retrieval import evaluate_retrieval

        show_retrieval(evaluate_retrieval(self.subject))


@dataclass(frozen=True)
class Understanding:
    """What captions mean to a model: how often a picture prefers its caption over one changed in a single thing.

    Left and right exchanged, brain and lung, modality, plane, size, place; a finding denied or affirmed; words in
    another order.
    """

    subject: tyro.conf.OmitArgPrefixes[Subject]

    def run(self) -> None:
        from medclip.evaluate.understanding import evaluate_understanding

        show_understanding(evaluate_understanding(self.subject))


@dataclass(frozen=True)
class Robustness:
    """What is left of retrieval when pictures are compressed, blurred, noisy, flat, turned, cut, written on or coarse.

    Every picture is embedded 25 times; --limit makes it quicker.
    """

    subject: tyro.conf.OmitArgPrefixes[Subject]

    def run(self) -> None:
        from medclip.evaluate.robustness import evaluate_robustness

        show_robustness(evaluate_robustness(self.subject))


@dataclass(frozen=True)
class Evaluate:
    """Measure a model on a split, with 95 % intervals."""

    measure: (
        Annotated[Retrieval, tyro.conf.subcommand("retrieval")]
        | Annotated[Understanding, tyro.conf.subcommand("understanding")]
        | Annotated[Robustness, tyro.conf.subcommand("robustness")]
    )

    def run(self) -> None:
        self.measure.run()

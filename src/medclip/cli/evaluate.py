"""The commands that measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from medclip.cli.tables.classes import show_probe, show_zero_shot
from medclip.cli.tables.retrieval import show_retrieval, show_robustness, show_understanding
from medclip.errors import UserError
from medclip.evaluate.config import Subject
from medclip.evaluate.labelled import Task
from medclip.progress import console

_NO_MODEL = Subject(model="", data=tyro.MISSING)  # MISSING: --data is still required


@dataclass(frozen=True)
class Retrieval:
    """How well captions find their pictures and pictures their captions: recall and ranks both ways, over stated pools.

    Also without the query's own article, with repetitions as one, graded by UMLS concepts, and by group.
    """

    subject: tyro.conf.OmitArgPrefixes[Subject] = _NO_MODEL
    vectors: tuple[Path, Path] | None = None
    """In place of --model: .npy files of pictures' and texts' vectors made elsewhere; row i of both is pair i of the
    split."""
    pool: int | None = None
    """Also over pools of so many pairs, drawn without replacement: to compare with figures of smaller pools."""
    seeds: int = 5
    """How many such pools."""

    def __post_init__(self) -> None:
        if bool(self.subject.model) == (self.vectors is not None):
            raise UserError("give either --model MODEL or --vectors IMAGES.npy TEXTS.npy.")
        if self.seeds < 2 or (self.pool is not None and self.pool < 2):
            raise UserError("--pool and --seeds must be at least 2: one draw does not say how much draws differ.")

    def run(self) -> None:
        from medclip.evaluate.retrieval import evaluate_retrieval

        show_retrieval(evaluate_retrieval(self.subject, self.vectors, self.pool, self.seeds))


@dataclass(frozen=True)
class ZeroShot:
    """How well classes are told apart by their names: accuracy, AUROC, confusions, calibration. --data is a prepared
    data set with --label, a folder with labels.csv (file,label[,split][,article]), or one of a folder a class.
    """

    subject: tyro.conf.OmitArgPrefixes[Subject]
    task: tyro.conf.OmitArgPrefixes[Task]
    prompts: Path | None = None
    """What to say for each class: a TOML file in the form of the package's own prompts/radiology.toml."""

    def run(self) -> None:
        from medclip.evaluate.zero_shot import evaluate_zero_shot

        show_zero_shot(evaluate_zero_shot(self.subject, self.task, self.prompts))


@dataclass(frozen=True)
class Probe:
    """What a model's frozen picture features hold: logistic regression and nearest neighbours on them, learnt from all
    of the split train and from 1, 4 and 16 pictures a class. --data as for zero-shot.
    """

    subject: tyro.conf.OmitArgPrefixes[Subject]
    task: tyro.conf.OmitArgPrefixes[Task]
    seeds: int = 5
    """How often the few pictures a class are drawn."""

    def run(self) -> None:
        from medclip.evaluate.probe import evaluate_probe

        show_probe(evaluate_probe(self.subject, self.task, self.seeds))


@dataclass(frozen=True)
class Understanding:
    """What captions mean to a model: how often a picture prefers its caption over one changed in a single thing.

    Left and right exchanged, brain and lung, modality, plane, size, place; a finding denied or affirmed; words in
    another order.
    """

    subject: tyro.conf.OmitArgPrefixes[Subject]

    def run(self) -> None:
        from medclip.evaluate.compositionality import evaluate_understanding

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
        | Annotated[ZeroShot, tyro.conf.subcommand("zero-shot")]
        | Annotated[Probe, tyro.conf.subcommand("probe")]
        | Annotated[Understanding, tyro.conf.subcommand("understanding")]
        | Annotated[Robustness, tyro.conf.subcommand("robustness")]
    )

    def run(self) -> None:
        self.measure.run()
        if self.measure.subject.out is not None:
            from medclip.evaluate.report import write_report

            console.print(f"all that this folder holds, with drawings: {write_report(self.measure.subject.out)}")

"""The commands that measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from medclip.cli.tables.classes import show_probe, show_zero_shot
from medclip.cli.tables.retrieval import show_retrieval, show_robustness, show_understanding
from medclip.errors import UserError
from medclip.evaluate.config import EvalConfig
from medclip.evaluate.labeled import LabelConfig
from medclip.progress import console

_NO_MODEL = EvalConfig(model="", data=tyro.MISSING)  # MISSING: --data is still required


@dataclass(frozen=True)
class Retrieval:
    """How well captions find their images and images their captions: recall and ranks both ways, over stated pools.

    Also without the query's own article, with repetitions as one, graded by UMLS concepts, and by group.
    """

    config: tyro.conf.OmitArgPrefixes[EvalConfig] = _NO_MODEL
    embeddings: tuple[Path, Path] | None = None
    """In place of --model: .npy files of images' and texts' vectors made elsewhere; row i of both is pair i of the
    split."""
    num_candidates: int | None = None
    """Also over pools of so many pairs, drawn without replacement: to compare with figures of smaller pools."""
    num_draws: int = 5
    """How many such pools."""

    def __post_init__(self) -> None:
        if bool(self.config.model) == (self.embeddings is not None):
            raise UserError("give either --model MODEL or --embeddings IMAGES.npy TEXTS.npy.")
        if self.num_draws < 2 or (self.num_candidates is not None and self.num_candidates < 2):
            raise UserError(
                "--num-candidates and --num-draws must be at least 2: one draw does not say how much draws differ."
            )

    def run(self) -> None:
        from medclip.evaluate.retrieval import evaluate_retrieval

        show_retrieval(evaluate_retrieval(self.config, self.embeddings, self.num_candidates, self.num_draws))


@dataclass(frozen=True)
class ZeroShot:
    """How well classes are told apart by their names: accuracy, AUROC, confusions, calibration. --data is a prepared
    dataset with --label, a folder with labels.csv (file,label[,split][,article]), or one of a folder a class.
    """

    config: tyro.conf.OmitArgPrefixes[EvalConfig]
    task: tyro.conf.OmitArgPrefixes[LabelConfig]
    prompts: Path | None = None
    """What to say for each class: a TOML file in the form of the package's own prompts/radiology.toml."""

    def run(self) -> None:
        from medclip.evaluate.zero_shot import evaluate_zero_shot

        show_zero_shot(evaluate_zero_shot(self.config, self.task, self.prompts))


@dataclass(frozen=True)
class Probe:
    """What a model's frozen image features hold: logistic regression and nearest neighbors on them, learnt from all
    of the split train and from 1, 4 and 16 images a class. --data as for zero-shot.
    """

    config: tyro.conf.OmitArgPrefixes[EvalConfig]
    task: tyro.conf.OmitArgPrefixes[LabelConfig]
    num_draws: int = 5
    """How often the few images a class are drawn."""

    def run(self) -> None:
        from medclip.evaluate.probe import evaluate_probe

        show_probe(evaluate_probe(self.config, self.task, self.num_draws))


@dataclass(frozen=True)
class Compositionality:
    """What captions mean to a model: how often an image prefers its caption over one changed in a single thing.

    Left and right exchanged, brain and lung, modality, plane, size, place; a finding denied or affirmed; words in
    another order.
    """

    config: tyro.conf.OmitArgPrefixes[EvalConfig]

    def run(self) -> None:
        from medclip.evaluate.compositionality import evaluate_compositionality

        show_understanding(evaluate_compositionality(self.config))


@dataclass(frozen=True)
class Robustness:
    """What is left of retrieval when images are compressed, blurred, noisy, flat, turned, cut, written on or coarse.

    Every image is embedded 25 times; --max-samples makes it quicker.
    """

    config: tyro.conf.OmitArgPrefixes[EvalConfig]

    def run(self) -> None:
        from medclip.evaluate.robustness import evaluate_robustness

        show_robustness(evaluate_robustness(self.config))


@dataclass(frozen=True)
class Evaluate:
    """Measure a model on a split, with 95 % intervals."""

    measure: (
        Annotated[Retrieval, tyro.conf.subcommand("retrieval")]
        | Annotated[ZeroShot, tyro.conf.subcommand("zero-shot")]
        | Annotated[Probe, tyro.conf.subcommand("probe")]
        | Annotated[Compositionality, tyro.conf.subcommand("understanding")]
        | Annotated[Robustness, tyro.conf.subcommand("robustness")]
    )

    def run(self) -> None:
        self.measure.run()
        if self.measure.config.out is not None:
            from medclip.evaluate.report import write_report

            console.print(f"all that this folder holds, with drawings: {write_report(self.measure.config.out)}")

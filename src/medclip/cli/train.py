"""The command that trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from medclip.cli.args import Data
from medclip.cli.tables.runs import show_trained
from medclip.train.config import TrainConfig


@dataclass(frozen=True)
class Train:
    """Train both towers; keeps the model of the best validation recall in RUN/model.

    Starts from a trained model (--init), from two towers joined with fresh projections (--vision-model and
    --text-model), or from scratch (--preset). MODEL is a folder, a run, or OWNER/NAME on the Hub.
    Ctrl-C saves and says how to go on.
    """

    data: Data
    """A prepared dataset with the splits train and validation."""
    out: Path
    """The run's new folder."""
    config: tyro.conf.OmitArgPrefixes[TrainConfig]
    max_samples: int | None = None
    """Train on the first pairs only, for trying things."""
    resume: bool = False
    """Go on with the killed or stopped run in --out, with the same settings."""
    report_to: tuple[Literal["wandb", "mlflow", "trackio"], ...] = ()
    """Show the numbers there too, through their own libraries; TensorBoard reads RUN/tensorboard in any case."""
    image_cache_gb: float = 8.0
    """Decode training's images once, into DATA/cache, where that takes at most so many GB; 0: anew at each step."""
    distributed: bool = False
    """This is one of several processes of one job, each with its own devices (docs/distributed.md)."""

    def run(self) -> None:
        if self.distributed:
            from medclip.train.distributed import start_distributed

            start_distributed()
        from medclip.train.loop import train

        summary = train(
            self.data,
            self.out,
            self.config,
            max_samples=self.max_samples,
            resume=self.resume,
            report_to=self.report_to,
            image_cache_gb=self.image_cache_gb,
        )
        show_trained(summary, self.out)

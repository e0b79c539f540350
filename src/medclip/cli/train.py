"""The command that trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import RenderableType
from rich.table import Table

from medclip.cli.args import Cache, Data, MaxSamples
from medclip.cli.format import Output
from medclip.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train both towers; keeps the model of the best validation recall in RUN/model.

    Starts from a trained model (--init), from scratch (--preset), or from two towers joined with fresh projections:
    both --vision-model and --text-model. Each is a model folder, a run, or a model of the Hub: OWNER/NAME or
    hf-hub:OWNER/NAME. Ctrl-C saves and says how to go on.
    """

    data: Data
    out: Path
    """The run's new folder."""
    settings: TrainConfig
    max_samples: MaxSamples = None
    resume: bool = False
    """Go on with the killed or stopped run in --out, with the same settings."""
    report_to: tuple[Literal["wandb", "mlflow", "trackio"], ...] = ()
    """Show the numbers there too, through their own libraries; TensorBoard reads RUN/tensorboard in any case."""
    image_cache_gb: float = 8.0
    """Decode training's images once, into DATA/cache, where that takes at most so many GB; 0: anew at each step."""
    cache: Cache = True
    distributed: bool = False
    """This is one of several processes of one job, each with its own devices (docs/distributed.md)."""
    output: Output

    def run(self) -> Train:
        if self.distributed:
            from medclip.training.distributed import start_distributed

            start_distributed()
        from medclip.training.loop import train

        summary = train(
            self.data,
            self.out,
            self.settings,
            max_samples=self.max_samples,
            resume=self.resume,
            report_to=self.report_to,
            image_cache_gb=self.image_cache_gb,
            cache=self.cache,
        )
        self.output.show(summary, summary_tables(summary, self.out))
        return self


def summary_tables(summary: dict[str, Any], out: Path) -> Iterator[RenderableType]:
    """The evaluation of the model kept, after those of WiSE-FT where there are any."""
    best = summary["best"]
    names = shares([best])
    if summary["wise_ft"]:
        table = Table("share of the last weights", *names, title="weights between the first and the last (WiSE-FT)")
        for record in summary["wise_ft"]:
            table.add_row(f"{record['alpha']:.0%}", *(f"{record[name]:.1%}" for name in names))
        yield table
    chosen = f"{best['alpha']:.0%} of the weights of step {best['step']}" if "alpha" in best else f"step {best['step']}"
    recalls = "  ".join(f"{name} {best[name]:.1%}" for name in names if name != "mean_recall")
    yield f"kept {chosen}: {recalls} (validation, both ways, {best['num_candidates']} candidates); see {out}/curves.png"


def shares(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of what evaluations of validation say in 0-1."""
    return [n for n in ("R@1", "R@5", "R@10", "mean_recall", "foil_accuracy") if all(n in e for e in evaluations)]

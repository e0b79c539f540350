"""The command that compares evaluations."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from medclip.cli.args import Positional
from medclip.cli.tables.comparison import show_comparison
from medclip.errors import WorkError
from medclip.progress import console


@dataclass(frozen=True)
class Compare:
    """Is one model better than another on the same items, or is it noise? A table on a terminal, JSON when piped.

    DIR is what `medclip evaluate … --out DIR` wrote; the first is the baseline. Differences have paired 95 % intervals,
    p-values are corrected for the number of figures (Holm).
    """

    dirs: Annotated[Positional[tuple[Path, ...]], tyro.conf.arg(metavar="DIR DIR …")]
    """Folders of evaluations."""
    metric: tuple[str, ...] = ()
    """Which figures to compare, by name or the last parts of it (R@10, text_to_image/R@10); left out: all. Fewer are
    corrected less."""
    out: Path | None = None
    """Write the comparison as a page to this file."""
    max_regression: float | None = None
    """End with exit code 1 where a figure has fallen by more than this share (0.01: one point) beyond noise: those of
    --metric, or R@10 of the whole pool and shares of right answers."""

    def run(self) -> None:
        from medclip.evaluate.compare import as_json, compare, regressions

        comparison = compare(self.dirs, self.metric)
        fell = regressions(comparison, self.max_regression, self.metric) if self.max_regression is not None else []
        if self.out is not None:
            from medclip.evaluate.comparison_report import write_comparison

            write_comparison(comparison, self.out, fell)
        if sys.stdout.isatty():
            show_comparison(comparison)
        else:
            print(json.dumps(as_json(comparison) | {"fallen": fell}, ensure_ascii=False))
        if self.out is not None:
            console.print(f"with drawings: {self.out}")
        if fell:
            raise WorkError(" ".join(fell))

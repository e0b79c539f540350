"""Commands about data: prepare them, what they hold, and what they share with what they are judged on."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from medclip.commands.arguments import Positional, Seed
from medclip.data.sources.columns import Columns
from medclip.errors import UserError
from medclip.progress import console
from medclip.tables import show_dataset, show_leakage, show_preview, show_statistics


@dataclass(frozen=True)
class Prepare:
    """Turn a source of image-caption pairs into a prepared data set; every dropped row is counted by reason."""

    source: Annotated[Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A ROCO folder, a table (CSV, TSV, JSON lines, Parquet), a folder of pictures with captions beside them (x.jpg,
    x.txt), WebDataset archives (.tar), or phantoms[:COUNT] for synthetic pictures."""
    columns: tyro.conf.OmitArgPrefixes[Columns]
    out: Path | None = None
    """The data set's new folder; an unfinished one is continued."""
    dry_run: bool = False
    """Show what would become of the first rows; write nothing."""
    side: int = 256
    """Shorter side of the stored pictures, in pixels; smaller ones are kept as they are."""
    limit: int | None = None
    """Take the first rows of each split only, for trying things."""
    seed: Seed = 0
    """Seed of the phantoms."""

    def run(self) -> None:
        from medclip.data.prepare import prepare, preview
        from medclip.data.report import write_report

        if self.dry_run:
            show_preview(preview(self.source, self.side, self.seed, self.columns))
            return
        if self.out is None:
            raise UserError("give the new folder with --out DATA, or --dry-run to see the first rows.")
        dataset = prepare(self.source, self.out, self.side, self.limit, self.seed, columns=self.columns)
        write_report(self.out, near=False)
        show_dataset(dataset, self.out)
        console.print(f"what it holds, with warnings: {self.out / 'report.html'} (near pictures: medclip stats)")


@dataclass(frozen=True)
class Stats:
    """What a prepared data set holds, with warnings; writes DATA/report.html. Tables on a terminal, JSON when piped."""

    data: Annotated[Positional[Path], tyro.conf.arg(metavar="DATA")]
    """A prepared data set."""
    seed: Seed = 0
    """Which pictures the page shows."""

    def run(self) -> None:
        from medclip.data.advice import advice
        from medclip.data.report import write_report
        from medclip.data.statistics import summary

        about = write_report(self.data, self.seed)
        if not sys.stdout.isatty():
            print(json.dumps(summary(about) | {"advice": list(map(asdict, advice(about)))}, ensure_ascii=False))
            return
        show_statistics(about, advice(about))
        console.print(f"all of it, with pictures: {self.data / 'report.html'}")


@dataclass(frozen=True)
class Leakage:
    """What the training split shares with the pairs it will be judged on: articles, pictures, captions."""

    data: Annotated[Positional[Path], tyro.conf.arg(metavar="DATA")]
    """A prepared data set with a split train."""
    other: Annotated[Positional[Path | None], tyro.conf.arg(metavar="OTHER")] = None
    """A prepared data set to compare with; left out: the other splits of DATA."""
    out: Path | None = None
    """Write a copy of DATA there, without the training pairs that share anything."""

    def run(self) -> None:
        from medclip.data.leakage import decontaminate, leakage

        show_leakage(leakage(self.data, self.other))
        if self.out is not None:
            removed = decontaminate(self.data, self.out, self.other)
            console.print(f"{self.out}: {sum(removed.values())} training pairs fewer")

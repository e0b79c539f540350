"""Commands about data: prepare them, what they hold, and what they share with what they are judged on."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from medclip.cli.args import Positional, Seed
from medclip.cli.tables.data import show_dataset, show_leakage, show_preview, show_statistics
from medclip.data.prepare_config import PrepareConfig
from medclip.errors import UserError
from medclip.progress import console


@dataclass(frozen=True)
class Prepare:
    """Turn a source of image-caption pairs into a prepared dataset; every dropped row is counted by reason."""

    source: Annotated[Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A ROCO or ROCOv2 folder, a table (CSV, TSV, JSON, Parquet, Arrow), a Hugging Face dataset (hf://OWNER/NAME or a
    folder of one), a folder of DICOM studies with reports, a folder of images with captions beside them (x.jpg,
    x.txt), WebDataset archives (.tar), any of these but DICOM behind a URL (s3://…, gs://…), or phantoms[:COUNT] for
    synthetic images."""
    config: tyro.conf.OmitArgPrefixes[PrepareConfig]
    out: Path | None = None
    """The dataset's new folder; an unfinished one is continued."""
    dry_run: bool = False
    """Show what would become of the first rows; write nothing."""
    num_workers: int | None = None
    """Processes; left out: as many as there are cores."""
    ray: bool = False
    """Work on a Ray cluster whose machines see the same folders: at RAY_ADDRESS, or one of this machine."""

    def run(self) -> None:
        from medclip.data.prepare import prepare, preview
        from medclip.data.stats.report import write_report

        if self.dry_run:
            show_preview(preview(self.source, self.config))
            return
        if self.out is None:
            raise UserError("give the new folder with --out DATA, or --dry-run to see the first rows.")
        dataset = prepare(self.source, self.out, self.config, num_workers=self.num_workers, ray=self.ray)
        write_report(self.out, near_images=False)
        show_dataset(dataset, self.out)
        console.print(f"what it holds, with warnings: {self.out / 'report.html'} (near images: medclip stats)")


@dataclass(frozen=True)
class Stats:
    """What a prepared dataset holds, with warnings; writes DATA/report.html. Tables on a terminal, JSON when piped."""

    data: Annotated[Positional[Path], tyro.conf.arg(metavar="DATA")]
    """A prepared dataset."""
    seed: Seed = 0
    """Which images the page shows."""

    def run(self) -> None:
        from medclip.data.stats.quality_checks import quality_warnings
        from medclip.data.stats.report import write_report
        from medclip.data.stats.statistics import summary

        about = write_report(self.data, self.seed)
        if not sys.stdout.isatty():
            print(
                json.dumps(summary(about) | {"advice": list(map(asdict, quality_warnings(about)))}, ensure_ascii=False)
            )
            return
        show_statistics(about, quality_warnings(about))
        console.print(f"all of it, with images: {self.data / 'report.html'}")


@dataclass(frozen=True)
class Leakage:
    """What the training split shares with the pairs it will be judged on: articles, images, captions."""

    data: Annotated[Positional[Path], tyro.conf.arg(metavar="DATA")]
    """A prepared dataset with a split train."""
    other: Annotated[Positional[Path | None], tyro.conf.arg(metavar="OTHER")] = None
    """A prepared dataset to compare with; left out: the other splits of DATA."""
    out: Path | None = None
    """Write a copy of DATA there, without the training pairs that share anything."""

    def run(self) -> None:
        from medclip.data.leakage import decontaminate, leakage

        show_leakage(leakage(self.data, self.other))
        if self.out is not None:
            removed = decontaminate(self.data, self.out, self.other)
            console.print(f"{self.out}: {sum(removed.values())} training pairs fewer")

"""Commands about datasets: prepare, stats, leakage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

from medclip.cli.args import CorrectionsFile, Data, MaybeOutFile, OnRay, Positional, Seed, path_or_url
from medclip.cli.format import Output
from medclip.data.deidentify import NOT_REPLACED
from medclip.data.dropped_rows import DROPPED_FILE, remedy_of
from medclip.data.paths import is_url
from medclip.data.prepare_config import PrepareConfig
from medclip.data.schema import Dropped, Origin
from medclip.errors import UserError, WorkError
from medclip.progress import console

if TYPE_CHECKING:
    from medclip.data.stats.quality_checks import QualityWarning
    from medclip.data.stats.statistics import Statistics


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """Turn a source of image-caption pairs into a prepared dataset; every dropped row is counted by reason."""

    source: Annotated[Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A ROCO or ROCOv2 folder, a table (CSV, TSV, JSON, Parquet, Arrow), a Hugging Face dataset (hf://OWNER/NAME or a
    folder of one), MIMIC-CXR-JPG, Open-i (XML or Kaggle's tables), PadChest, MedICaT, PMC-OA or R2Gen's annotation.json
    as published (docs/sources.md), a folder of DICOM studies with reports, a DICOMweb server
    (dicomweb://HOST/PATH?StudyDate=20240101-20241231; docs/pacs.md), a folder of images with captions beside them
    (x.jpg, x.txt), WebDataset archives (.tar, .tar.gz), any of these but DICOM behind a URL (s3://…, gs://…), or
    phantoms[:COUNT] for synthetic images."""
    settings: PrepareConfig
    out: Path | None = None
    """The dataset's new folder; an unfinished one is continued."""
    dry_run: bool = False
    """Show how the first rows would be prepared; write nothing."""
    num_workers: int | None = None
    """Processes; left out: as many as there are cores."""
    ray: OnRay = False
    output: Output

    def run(self) -> Prepare | None:
        from medclip.data.deidentify import DICOM_SOURCE
        from medclip.data.prepare import prepare, preview
        from medclip.data.stats.quality_checks import urgent_warnings
        from medclip.data.stats.report import write_report

        if self.dry_run:
            rows = preview(self.source, self.settings)
            self.output.show([_without_image(row) for row in rows], _preview_tables(rows))
            return None
        if self.out is None:
            raise UserError("give the new folder with --out DATA, or --dry-run to see the first rows.")
        dataset = prepare(self.source, self.out, self.settings, num_workers=self.num_workers, ray=self.ray)
        stats = write_report(self.out, near_images=False)
        self.output.show(dataset, dataset_tables(dataset, self.out))
        for warning in urgent_warnings(stats):
            console.print(_warning_text(warning), soft_wrap=True)
        console.print(
            f"statistics and warnings: {self.out / 'report.html'} (near images: medclip stats)", soft_wrap=True
        )
        # the folder of a DICOM study may be named after a patient
        return replace(self, source="") if dataset["source"] == DICOM_SOURCE else self


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What a prepared dataset holds, with warnings; writes DATA/report.html."""

    data: Positional[Data]
    seed: Seed = 0
    """Which images the page shows."""
    out: MaybeOutFile = None
    """The page's file; left out: DATA/report.html, and none where DATA is a URL."""
    output: Output

    def run(self) -> None:
        from medclip.data.stats.quality_checks import quality_warnings
        from medclip.data.stats.report import render_report
        from medclip.data.stats.statistics import compute_statistics
        from medclip.folder_locks import check_writable
        from medclip.html_page import check_page_name, write_page

        if self.out is not None:
            check_page_name(self.out)
        stats = compute_statistics(self.data)
        page = self.out or (None if is_url(self.data) else self.data / "report.html")
        if page is not None and self.out is None:
            try:
                check_writable(page)
            except UserError:
                console.print(f"{self.data} cannot be written: no page; --out FILE makes one elsewhere", soft_wrap=True)
                page = None
        if page is not None:
            write_page(page, render_report(self.data, stats, self.seed))
        warnings = quality_warnings(stats)
        result = stats.to_json() | {"warnings": [asdict(warning) for warning in warnings]}
        self.output.show(result, _statistics_tables(stats, warnings))
        if page is not None:
            console.print(f"all statistics, with sample images: {page}", soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """What the training split shares with the pairs it will be judged on: articles, images, captions."""

    data: Positional[Data]
    other: Annotated[Positional[Path | None], path_or_url, tyro.conf.arg(metavar="OTHER")] = None
    """A prepared dataset to compare with; left out: the other splits of DATA."""
    out: Path | None = None
    """Write a copy of DATA there, without the training pairs that share anything."""
    output: Output

    def run(self) -> None:
        from medclip.data.leakage import decontaminate, leakage
        from medclip.folder_locks import claim

        with claim(self.out, "dataset.json") if self.out is not None else nullcontext():
            report = leakage(self.data, self.other)
            self.output.show(report, _leakage_tables(report))
            if self.out is not None:
                removed = decontaminate(self.data, self.out, self.other)
                console.print(f"{self.out}: {sum(removed.values())} training pairs fewer", soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class Correct:
    """Write a copy of a dataset without the pairs, and with the labels, that were marked on the app's map."""

    data: Positional[Data]
    corrections: CorrectionsFile
    out: Path
    """The new dataset."""
    output: Output

    def run(self) -> None:
        from medclip.data.corrections import correct_data, read_corrections

        counts = correct_data(self.data, self.out, read_corrections(self.corrections))
        line = f"{self.out}: {counts['deleted']} pairs deleted, {counts['relabeled']} relabeled"
        if counts["absent"]:
            line += f"; {counts['absent']} of the corrections name pairs that {self.data} does not hold"
        self.output.show({"out": str(self.out), **counts}, [line])


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Which DICOM object an id of a dataset or a hit stands for; only for who has the key and its private map."""

    ids: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="ID")]
    """Ids of pairs, of hits, or of dropped rows."""
    pseudonym_key: Path | None = None
    """The key of the preparation, whose map lies beside it; left out: the one in your config folder."""
    output: Output

    def run(self) -> None:
        from medclip.data.private_map import find_origins, map_path

        if not self.ids:
            raise UserError("give one id or more.")
        origins = find_origins(self.ids, self.pseudonym_key)
        rows = [{"id": id, **origin._asdict()} for id, origin in origins.items() if origin]
        table = Table(*(Column(name, overflow="fold") for name in ("id", *Origin._fields)))  # a cut UID is none
        for row in rows:
            table.add_row(*row.values())
        self.output.show(rows, [table] if rows else [])
        if missing := [id for id, origin in origins.items() if not origin]:
            raise WorkError(
                f"{map_path(self.pseudonym_key)} does not hold {', '.join(missing)}: another key's, or a typo."
            )


def dataset_tables(dataset: dict[str, Any], out: Path) -> Iterator[RenderableType]:
    """Counts of a prepared dataset, dropped rows by reason."""
    reasons = sorted({reason for counts in dataset["dropped"].values() for reason in counts})
    table = Table("split", "pairs", *reasons, title=f"{out}" + (" (synthetic)" if dataset["synthetic"] else ""))
    for name, split in dataset["splits"].items():
        dropped = dataset["dropped"].get(name, {})
        table.add_row(name, str(split["pairs"]), *(str(dropped.get(reason, 0)) for reason in reasons))
    yield table
    if reasons:
        yield f"every dropped row, with its reason: {out / DROPPED_FILE}"
    counts = sum(map(Counter, dataset.get("privacy", {}).values()), Counter())
    ordinary = Counter({name: count for name, count in counts.items() if name.endswith(NOT_REPLACED)})
    for title, names in (("removed", counts - ordinary), ("left as ordinary words", ordinary)):
        if names:
            listed = (f"{name.removesuffix(NOT_REPLACED)} {count}" for name, count in names.most_common())
            yield f"{title}, in so many pairs: {', '.join(listed)}"


def _statistics_tables(stats: Statistics, warnings: Sequence[QualityWarning]) -> Iterator[RenderableType]:
    """The main numbers of a dataset, then its warnings."""
    table = Table("", *stats.splits, title=str(stats.dataset["source"]))
    splits = stats.splits.values()
    dropped = stats.dataset["dropped"]
    table.add_row("pairs", *(f"{split.pairs:,}" for split in splits))
    table.add_row("rows dropped", *(f"{sum(dropped.get(name, {}).values()):,}" for name in stats.splits))
    table.add_row("articles or patients", *(f"{len(split.numbers['pairs_per_article']):,}" for split in splits))
    for name, title in (("words", "words"), ("tokens", "tokens (estimated)"), ("shorter_side", "shorter side")):
        values = [split.numbers[name] for split in splits]
        cells = (f"{np.median(v):.0f} ({np.percentile(v, 95):.0f})" if len(v) else "–" for v in values)
        table.add_row(f"{title}, median (95 % below)", *cells)
    table.add_row("license, most frequent", *(_most_frequent(split.counts["license"], split.pairs) for split in splits))
    for kind in ("modality", "organ"):
        cells = (_most_frequent(split.keyword_labels.get(kind, Counter()), split.pairs) for split in splits)
        table.add_row(f"{kind} by keywords, most frequent", *cells)
    yield table
    yield from map(_warning_text, warnings)


def _warning_text(warning: QualityWarning) -> Text:
    counts = "; ".join(
        f"{o.split} {o.count:,}" + (f" of {o.total:,} ({o.count / o.total:.1%})" if o.total else "")
        for o in warning.occurrences
    )
    return Text(f"! {warning.message}{': ' if counts else ''}{counts}. {warning.remedy}", "yellow")


def _most_frequent(counter: Counter[str], pairs: int) -> str:
    return ", ".join(f"{value or 'unknown'} {n / pairs:.0%}" for value, n in counter.most_common(4) if n)


def _preview_tables(rows: Sequence[dict[str, Any] | Dropped]) -> Iterator[RenderableType]:
    """The first rows of a source as they would be prepared."""
    table = Table("id", "split", "group", "image", "caption", title="the first rows; nothing is written")
    for row in rows:
        if isinstance(row, Dropped):
            table.add_row(row.id, row.split, "", "", f"dropped: {row.reason} {row.detail}".strip())
        else:
            size = f"{row['width']} × {row['height']}"
            table.add_row(row["id"], row["split"], row["article"], size, row["caption"])
    yield table
    for reason in dict.fromkeys(row.reason for row in rows if isinstance(row, Dropped)):
        if sentence := remedy_of(reason):
            yield f"{reason}: {sentence}"


def _without_image(row: dict[str, Any] | Dropped) -> dict[str, Any]:
    if isinstance(row, Dropped):
        return {"dropped": row.reason, "id": row.id, "split": row.split, "reason": row.reason, "detail": row.detail}
    return {name: value for name, value in row.items() if not isinstance(value, bytes)}


def _leakage_tables(report: dict[str, Any]) -> Iterator[RenderableType]:
    """How many pairs of each held-out split share something with the training split."""
    held_out = report["held_out"]
    kinds = next(iter(held_out.values()))["shared"]
    table = Table("held out", "pairs", *kinds, "any", title=f"shared with {report['train']} training pairs")
    for name, split in held_out.items():
        counts = (*split["shared"].values(), split["any"])
        table.add_row(name, str(split["pairs"]), *(f"{n} ({n / split['pairs']:.1%})" for n in counts))
    yield table

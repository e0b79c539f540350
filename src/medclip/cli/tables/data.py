"""Tables of a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table
from rich.text import Text

from medclip.cli.tables.parts import screen
from medclip.data.schema import Dropped

if TYPE_CHECKING:
    from medclip.data.stats.quality_checks import QualityWarning
    from medclip.data.stats.statistics import Statistics


def show_dataset(dataset: dict[str, Any], out: Path) -> None:
    """Counts of a prepared dataset, dropped rows by reason."""
    reasons = sorted({reason for counts in dataset["dropped"].values() for reason in counts})
    table = Table("split", "pairs", *reasons, title=f"{out}" + (" (synthetic)" if dataset["synthetic"] else ""))
    for split, about in dataset["splits"].items():
        dropped = dataset["dropped"].get(split, {})
        table.add_row(split, str(about["pairs"]), *(str(dropped.get(reason, 0)) for reason in reasons))
    screen.print(table)
    if reasons:
        screen.print(f"every dropped row, with its reason: {out / 'dropped.jsonl'}")
    removed = sum(map(Counter, dataset.get("privacy", {}).values()), Counter())
    if removed:
        said = ", ".join(f"{what} {count}" for what, count in removed.most_common())
        screen.print(f"left behind, in so many pairs: {said}", highlight=False)


def show_statistics(about: Statistics, warnings: Sequence[QualityWarning]) -> None:
    """The main numbers of a dataset, and what to know before training on it."""
    table = Table("", *about.splits, title=str(about.dataset["source"]))
    splits = about.splits.values()
    dropped = about.dataset.get("dropped", {})
    table.add_row("pairs", *(f"{split.pairs:,}" for split in splits))
    table.add_row("rows dropped", *(f"{sum(dropped.get(name, {}).values()):,}" for name in about.splits))
    table.add_row("articles", *(f"{len(split.numbers['pairs per article']):,}" for split in splits))
    for name in ("words", "tokens", "shorter side"):
        values = [split.numbers[name] for split in splits]
        said = (f"{np.median(of):.0f} ({np.percentile(of, 95):.0f})" if len(of) else "–" for of in values)
        table.add_row(f"{name}{' (estimated)' if name == 'tokens' else ''}, median (95 % below)", *said)
    for name in ("license", "guessed modality", "guessed organ"):
        table.add_row(f"{name}, most frequent", *(Text(_most(split.counts[name], split.pairs)) for split in splits))
    screen.print(table)
    for one in warnings:
        places = "; ".join(
            f"{name} {n:,}{f' of {of:,} ({n / of:.1%})' if of else ''}" for name, n, of in one.occurrences
        )
        screen.print(Text(f"! {one.message}{': ' if places else ''}{places}. {one.remedy}", "yellow"))


def _most(counter: Counter[str], pairs: int) -> str:
    return ", ".join(f"{value or 'unknown'} {n / pairs:.0%}" for value, n in counter.most_common(4) if n)


def show_preview(rows: Sequence[dict[str, Any] | Dropped]) -> None:
    """What would become of the first rows of a source."""
    table = Table("id", "split", "group", "picture", "caption", title="the first rows; nothing is written")
    for row in rows:
        if isinstance(row, Dropped):
            table.add_row(row.id, row.split, "", "", Text(f"dropped: {row.reason} {row.detail}".strip()))
        else:
            size = f"{row['width']} × {row['height']}"
            table.add_row(row["id"], row["split"], row["article"], size, Text(row["caption"]))
    screen.print(table)


def show_leakage(report: dict[str, Any]) -> None:
    """How many pairs of each held-out split share something with the training split."""
    held_out = report["held_out"]
    ways = next(iter(held_out.values()))["shared"]
    table = Table("held out", "pairs", *ways, "any", title=f"shared with {report['train']} training pairs")
    for name, about in held_out.items():
        counts = (*about["shared"].values(), about["any"])
        table.add_row(name, str(about["pairs"]), *(f"{n} ({n / about['pairs']:.1%})" for n in counts))
    screen.print(table)

"""What commands print at their end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medclip import NOT_CLINICAL

if TYPE_CHECKING:
    from medclip.search.index import Hit

_out = Console()


def show_dataset(dataset: dict[str, Any], out: Path) -> None:
    """Counts of a prepared data set, dropped rows by reason."""
    reasons = sorted({reason for counts in dataset["dropped"].values() for reason in counts})
    table = Table("split", "pairs", *reasons, title=f"{out}" + (" (synthetic)" if dataset["synthetic"] else ""))
    for split, about in dataset["splits"].items():
        dropped = dataset["dropped"].get(split, {})
        table.add_row(split, str(about["pairs"]), *(str(dropped.get(reason, 0)) for reason in reasons))
    _out.print(table)
    if reasons:
        _out.print(f"every dropped row, with its reason: {out / 'dropped.jsonl'}")


def show_trained(summary: dict[str, Any], out: Path) -> None:
    """The evaluation of the model kept, after those of WiSE-FT where there are any."""
    best, names = summary["best"], ("R@1", "R@5", "R@10", "mean_recall")
    if summary["wise_ft"]:
        table = Table("share of the last weights", *names, title="weights between the first and the last (WiSE-FT)")
        for record in summary["wise_ft"]:
            table.add_row(f"{record['share']:.0%}", *(f"{record[name]:.1%}" for name in names))
        _out.print(table)
    kept = f"{best['share']:.0%} of the weights of step {best['step']}" if "share" in best else f"step {best['step']}"
    said = "  ".join(f"{name} {best[name]:.1%}" for name in names[:3])
    _out.print(f"kept {kept}: {said} (validation, both ways, pool of {best['pool']}); see {out}/curves.png")


def show_retrieval(results: dict[str, Any]) -> None:
    """Both directions with intervals, beside the pool and chance."""
    pool = results["pool"]
    what = "synthetic phantoms" if results["synthetic"] else results["data"]
    table = Table("measure", "text→image", "image→text", "chance", title=f"{what}, {results['split']}, pool of {pool}")
    for name in results["text_to_image"]:
        share = name.startswith("R@")
        chance = min(1.0, int(name[2:]) / pool) if share else (pool + 1) / 2
        ways = (results[way][name] for way in ("text_to_image", "image_to_text"))
        table.add_row(name, *(_interval(m, share) for m in ways), f"{chance:.1%}" if share else f"{chance:g}")
    _out.print(table)
    _out.print(f"{results['interval']}; seed {results['seed']}; model {results['model'][:12]}. {NOT_CLINICAL}")


def show_sides(results: dict[str, Any]) -> None:
    """The choice between a caption and its mirror."""
    said = f"left or right told correctly for {results['captions']} one-sided captions"
    _out.print(
        f"{said}: {_interval(results['accuracy'], True)}, chance {results['chance']:.0%}; {results['interval']}."
    )


def show_hits(hits: Sequence[Hit]) -> None:
    """Hits, best first."""
    table = Table("score", "id", "caption")
    for hit in hits:
        table.add_row(f"{hit.score:.3f}", hit.id, Text(hit.caption))
    _out.print(table)


def _interval(measured: dict[str, float], share: bool) -> str:
    form = "{:.1%}" if share else "{:g}"
    value, low, high = (form.format(measured[key]) for key in ("value", "low", "high"))
    return f"{value} ({low}–{high})"

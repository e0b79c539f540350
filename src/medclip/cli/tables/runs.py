"""Tables of a run, and of what a folder is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from medclip.cli.tables.data import show_dataset
from medclip.cli.tables.parts import screen

if TYPE_CHECKING:
    from medclip.cli.info import RunInfo


def show_trained(summary: dict[str, Any], out: Path) -> None:
    """The evaluation of the model kept, after those of WiSE-FT where there are any."""
    best, names = summary["best"], ("R@1", "R@5", "R@10", "mean_recall")
    if summary["wise_ft"]:
        table = Table("share of the last weights", *names, title="weights between the first and the last (WiSE-FT)")
        for record in summary["wise_ft"]:
            table.add_row(f"{record['share']:.0%}", *(f"{record[name]:.1%}" for name in names))
        screen.print(table)
    kept = f"{best['share']:.0%} of the weights of step {best['step']}" if "share" in best else f"step {best['step']}"
    said = "  ".join(f"{name} {best[name]:.1%}" for name in names[:3])
    screen.print(f"kept {kept}: {said} (validation, both ways, pool of {best['pool']}); see {out}/curves.png")


def show_info(kind: str, about: Any, path: Path) -> None:
    """What a folder is and how it came to be."""
    if kind == "dataset":
        show_dataset(about, path)
    elif kind == "run":
        _show_run(about, path)
    else:
        screen.print(_of_two({"": kind, **about}, str(path)))


def _show_run(run: RunInfo, path: Path) -> None:
    data = {f"{split} pairs, SHA-256": digest[:12] for split, digest in run.data.items()}
    screen.print(_of_two(run.changed | data, f"{path}: settings that are not the defaults, and data"))
    names = [n for n in ("validation_loss", "R@1", "R@5", "R@10", "mean_recall") if run.evaluations]
    best = max(run.evaluations, key=lambda r: r["mean_recall"], default=None)
    table = Table("step", *names, "", title="validation, both ways")
    for record in run.evaluations:
        shares = (f"{record[name]:.1%}" for name in names[1:])
        table.add_row(str(record["step"]), f"{record[names[0]]:.3f}", *shares, "best" if record is best else "")
    screen.print(table)
    if run.speed:
        waited = run.speed["waiting"]
        screen.print(f"{run.speed['pairs_per_s']:,.0f} pairs/s and {waited:.0%} of the time waiting for data (medians)")
    if run.summary:
        show_trained(run.summary, path)
    else:
        said = f"not at its end: step {run.last} of {run.steps} was the last logged; its command with --resume goes on"
        screen.print(said)


def _of_two(values: Mapping[str, Any], title: str) -> Table:
    table = Table(title=title, show_header=False)
    for name, value in values.items():
        table.add_row(
            name, Text(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))
        )
    return table

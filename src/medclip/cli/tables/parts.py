"""Where tables are printed, and what several of them say in the same words."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from medclip import NOT_CLINICAL

screen = Console()


def what(results: dict[str, Any]) -> str:
    """Data and split that were measured on."""
    return f"{'synthetic phantoms' if results['synthetic'] else results['data']}, {results['split']}"


def interval(measured: dict[str, float], share: bool) -> str:
    """A figure with its interval, as a share in percent or as a number."""
    form = "{:.1%}" if share else "{:.1f}"
    value, low, high = (form.format(measured[key]) for key in ("value", "low", "high"))
    return f"{value} ({low}–{high})"


def show_provenance(results: dict[str, Any]) -> None:
    """The last lines of every measure: whether the model saw the data, how intervals are made, seed and model."""
    screen.print(Text(f"model saw this source: {results['saw_source']} ({results['saw_source_why']})."))
    model = f"model {results['model'][:12]}" if results["model"] else "vectors made elsewhere"
    screen.print(f"{results['interval']}; seed {results['seed']}; {model}. {NOT_CLINICAL}")

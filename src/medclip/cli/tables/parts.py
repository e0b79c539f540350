"""What several tables of evaluations say in the same words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from medclip import NOT_CLINICAL


def what(results: dict[str, Any]) -> str:
    """Data and split that were measured on."""
    return f"{'synthetic phantoms' if results['synthetic'] else results['data']}, {results['split']}"


def interval(measured: dict[str, float], share: bool) -> str:
    """A figure with its interval, as a share in percent or as a number."""
    form = "{:.1%}" if share else "{:.1f}"
    value, low, high = (form.format(measured[key]) for key in ("value", "low", "high"))
    return f"{value} ({low}–{high})"


def provenance(results: dict[str, Any]) -> Iterator[RenderableType]:
    """The last lines of every measure: whether the model saw the data, how intervals are made, seed and model."""
    yield (Text(f"model saw this source: {results['saw_source']} ({results['saw_source_why']})."))
    model = f"model {results['model'][:12]}" if results["model"] else "vectors made elsewhere"
    yield (f"{results['interval']}; seed {results['seed']}; {model}. {NOT_CLINICAL}")

"""The figures of a results file: whatever has a value with its interval, wherever it stands, and how people read it.

A figure is {"value", "low", "high"}; its name is the path to it ("text_to_image / R@10"). Figures of one dict stand
together, with the plain values beside them (`chance`, `majority`, `pool`, `n`) as their context.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

PARTS = {"value", "low", "high"}
CONTEXT = ("pool", "n", "chance", "majority")
"""What is said of all figures below it, until it is said anew."""
SCORES = ("mrr", "ndcg", "auroc", "auprc", "ece", "brier", "kappa")
"""Between 0 and 1, and by custom not in percent."""


@dataclass(frozen=True)
class Group:
    """Figures that stand together."""

    path: tuple[str, ...]
    figures: Mapping[str, Mapping[str, float | None]]
    beside: Mapping[str, Any]
    """Plain values of the same place, and the nearest of CONTEXT above it."""


def name_of(path: Sequence[str]) -> str:
    """The name of what lies at `path`."""
    return " / ".join(path)


def is_figure(said: Any) -> bool:
    """Whether this is a value with its interval; parts that could not be measured are None."""
    return isinstance(said, Mapping) and said.keys() >= PARTS and all(_is_number(said[part]) for part in PARTS)


def groups(said: Any, path: tuple[str, ...] = (), above: Mapping[str, Any] | None = None) -> Iterator[Group]:
    """Every group of figures below `said`, in the order of the file; items of a list are named by their number."""
    if isinstance(said, list):
        said = {str(place): one for place, one in enumerate(said)}
    if not isinstance(said, Mapping) or is_figure(said):
        return
    beside = {name: one for name, one in said.items() if isinstance(one, str | int | float | bool)}
    inherited = {**(above or {}), **{name: beside[name] for name in CONTEXT if name in beside}}
    found = {name: one for name, one in said.items() if is_figure(one)}
    if found:
        yield Group(path, found, {**inherited, **beside})
    for name, one in said.items():
        yield from groups(one, (*path, str(name)), inherited)


def figures(said: Any) -> dict[str, Mapping[str, float | None]]:
    """Every figure below `said`, by its name."""
    return {name_of((*group.path, name)): one for group in groups(said) for name, one in group.figures.items()}


def alike(found: Sequence[Group]) -> list[list[Group]]:
    """Neighbours with figures of the same names, together: rows of one table."""
    tables: list[list[Group]] = []
    for group in found:
        if tables and tables[-1][0].figures.keys() == group.figures.keys():
            tables[-1].append(group)
        else:
            tables.append([group])
    return tables


def without(group: Group, names: Sequence[str]) -> Group:
    """The group without these plain values beside its figures."""
    return replace(group, beside={name: one for name, one in group.beside.items() if name not in names})


def is_share(name: str) -> bool:
    """Whether the figure of this name is read in percent."""
    last = name.split(" / ")[-1].lower()
    return "rank" not in last and not last.startswith(SCORES)


def form(name: str, value: float | None) -> str:
    """The value of the figure of this name, for people."""
    if value is None or not math.isfinite(value):
        return "–"
    if is_share(name) and -1 <= value <= 1:
        return f"{100 * value:.1f}\u00a0%"
    return f"{value:.3f}" if abs(value) <= 1 else f"{value:,.1f}".removesuffix(".0")


def form_interval(name: str, figure: Mapping[str, float | None]) -> str:
    """The interval of a figure, for people."""
    low, high = (form(name, figure[part]).removesuffix("\u00a0%") for part in ("low", "high"))
    return f"{low}–{high}"


def _is_number(said: Any) -> bool:
    return said is None or (isinstance(said, int | float) and not isinstance(said, bool))

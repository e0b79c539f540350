"""Which drawings the results of a measure call for, by the shapes that they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from medclip.evaluate import charts
from medclip.evaluate.metric import Figure, Group, is_figure, is_number, judged_by, name_of, nodes, told_apart

LEAST = 3  # rows of a table that are worth a drawing
LINES = 4  # that one drawing can hold


@dataclass(frozen=True)
class ConfusionMatrix:
    """Which classes were taken for which."""

    title: str
    labels: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[int, float]]]]
    """For each true class, how often each was called, and that as a share of the row in percent."""


def of_table(of: Sequence[Group]) -> Markup | None:
    """The drawing of figures that stand together (as of `figures.siblings`), where it says more than the table."""
    judged = judged_by(of[0])
    if all("R@1" in group.figures for group in of) and len(of[0].path) == 1:
        return charts.recalls({group.path[-1]: group for group in of})
    if not judged or len(of) < LEAST or any(is_number(part) for group in of for part in group.path):
        return None
    last = judged.split(" / ")[-1]
    names = [name for name in of[0].figures if name.split(" / ")[-1] == last]
    series = {
        name: {group.path[-1]: group.figures[name] for group in of if name in group.figures} for name in names[:LINES]
    }
    chances = {group.chance(judged) for group in of}
    return charts.dots(last, series, chances.pop() if len(chances) == 1 else None)


def over_numbers(said: Mapping[str, Any], found: Sequence[Group]) -> Iterator[Markup]:
    """Figures with a number in their path, over it: lines for what else differs, or panels where it is much.

    Over severities, what is `clean` comes first.
    """
    series: dict[str, dict[tuple[str, ...], dict[float, Figure]]] = {}
    chances: dict[str, float | None] = {}
    for group in found:
        at = [place for place, part in enumerate(group.path) if is_number(part)]
        judged = judged_by(group)
        if len(at) == 1 and at[0] and judged:
            path = (*group.path[: at[0]], *group.path[at[0] + 1 :])
            series.setdefault(judged, {}).setdefault(path, {})[float(group.path[at[0]])] = group.figures[judged]
            chances.setdefault(judged, group.chance(judged))
    clean = said.get("clean") or {}
    for judged, of in series.items():
        first = {0.0: clean[judged]} if is_figure(clean.get(judged)) else {}
        lines = {title or "model": first | one for title, one in zip(told_apart(list(of)), of.values(), strict=True)}
        over = next((part for part in reversed(next(iter(of)))), "")
        if len(lines) > LINES:
            yield charts.small_multiples(judged, lines, over)
        elif any(len(line) > 1 for line in lines.values()):
            yield charts.lines(judged, lines, over, chances[judged])


def reliabilities(said: Mapping[str, Any]) -> Iterator[Markup]:
    """The reliability curves of a results file in one drawing: bins with `confidence` and `accuracy`."""
    curves = {
        path: node[key]
        for path, node in nodes(said)
        for key in ("curve", "reliability")
        if isinstance(node.get(key), list) and all({"confidence", "accuracy"} <= one.keys() for one in node[key])
    }
    if curves:
        yield charts.reliability(
            {title or "model": bins for title, bins in zip(told_apart(list(curves)), curves.values(), strict=True)}
        )


def confusions(said: Mapping[str, Any]) -> Iterator[ConfusionMatrix]:
    """Every confusion matrix: {"labels", "counts"}, or the counts alone beside `classes`; rows are the truth."""
    for path, node in nodes(said):
        found = node.get("confusion")
        both = isinstance(found, Mapping)
        counts, labels = (found.get("counts"), found.get("labels")) if both else (found, node.get("classes"))
        labels = [str(label) for label in labels or ()]
        if not isinstance(counts, list) or not labels or any(len(row) != len(labels) for row in (counts, *counts)):
            continue
        rows = [[(n, 100 * n / (sum(row) or 1)) for n in row] for row in counts]
        yield ConfusionMatrix(name_of(path), labels, list(zip(labels, rows, strict=True)))

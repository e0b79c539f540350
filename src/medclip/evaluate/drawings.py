"""Which drawings the results of a measure call for, by the shapes that they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from medclip.evaluate import plots
from medclip.evaluate.figures import Figure, Group, judged_by, name_of, nodes

LEAST = 3  # rows of a table that are worth a drawing


@dataclass(frozen=True)
class Confusion:
    """Which classes were taken for which."""

    title: str
    labels: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[int, float]]]]
    """For each true class, how often each was called, and that as a share of the row in percent."""


def drawings(said: Mapping[str, Any], tables: Sequence[Sequence[Group]]) -> Iterator[Markup]:
    """The drawings of a results file whose figures stand together in `tables` (as of `figures.siblings`)."""
    yield from _over_numbers([group for of in tables for group in of])
    for of in tables:
        if all("R@1" in group.figures for group in of) and len(of[0].path) == 1:
            yield plots.recalls({group.path[-1]: group for group in of})
        elif len(of) >= LEAST and judged_by(of[0]) and not any(_number(part) for part in of[0].path):
            yield _dots(of)
    curves = {
        name_of(path) or "model": node[key]
        for path, node in nodes(said)
        for key in ("curve", "reliability")
        if _is_curve(node.get(key))
    }
    if curves:
        yield plots.reliability({name.split(" / ")[-1]: of for name, of in curves.items()})


def confusions(said: Mapping[str, Any]) -> Iterator[Confusion]:
    """Every confusion matrix: {"labels", "counts"}, or the counts alone beside `classes`; rows are the truth."""
    for path, node in nodes(said):
        found = node.get("confusion")
        counts, labels = (
            (found.get("counts"), found.get("labels")) if isinstance(found, Mapping) else (found, node.get("classes"))
        )
        labels = [str(label) for label in labels or ()]
        if not isinstance(counts, list) or not labels or any(len(row) != len(labels) for row in (counts, *counts)):
            continue
        rows = [
            (label, [(n, 100 * n / (sum(row) or 1)) for n in row]) for label, row in zip(labels, counts, strict=True)
        ]
        yield Confusion(name_of(path), labels, rows)


def _dots(of: Sequence[Group]) -> Markup:
    """What each row of a table is judged by."""
    name = judged_by(of[0])
    assert name is not None
    rows = {group.path[-1]: group.figures[name] for group in of if name in group.figures}
    chances = {group.chance(name) for group in of}
    return plots.dots(name, rows, chances.pop() if len(chances) == 1 else None)


def _over_numbers(found: Sequence[Group]) -> Iterator[Markup]:
    """Figures whose path has one number in it: over that number, with a line for each of what else differs."""
    series: dict[str, dict[tuple[str, ...], dict[str, dict[float, Figure]]]] = {}
    chances: dict[str, float | None] = {}
    for group in found:
        at = [place for place, part in enumerate(group.path) if _number(part)]
        name = judged_by(group)
        if len(at) != 1 or not at[0] or not name:
            continue
        before, after = group.path[: at[0]], group.path[at[0] + 1 :]
        last = name_of((*after, name)).split(" / ")
        of = series.setdefault(last[-1], {}).setdefault(before, {})
        of.setdefault(name_of(last[:-1]), {})[float(group.path[at[0]])] = group.figures[name]
        chances.setdefault(last[-1], group.chance(name))
    for name, panels in series.items():
        if len({before[-1] for before in panels}) > 1:
            yield plots.small_multiples(name, {before[-1]: of for before, of in panels.items()}, "severity")
        else:
            flat = {
                name_of((*before[:-1], *filter(None, (way,)))) or "model": of
                for before, ways in panels.items()
                for way, of in ways.items()
            }
            yield plots.lines(name, flat, next(iter(panels))[-1], chances[name])


def _number(part: str) -> bool:
    return part.replace(".", "", 1).isdigit()


def _is_curve(said: Any) -> bool:
    return (
        isinstance(said, list)
        and bool(said)
        and all(isinstance(one, Mapping) and {"confidence", "accuracy"} <= one.keys() for one in said)
    )

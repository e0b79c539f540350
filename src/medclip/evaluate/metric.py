"""The figures of a results file: whatever has a value with its interval, wherever it stands, and how people read it.

A figure is {"value", "low", "high"}; its name is the path to it ("text_to_image / R@10"). Figures of one dict stand
together; what else the dict says (`chance`, `majority`, `pool`, counts) is their context.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Figure = Mapping[str, float | None]

PARTS = {"value", "low", "high"}
INHERITED = ("pool", "chance", "majority")
"""What is said of all figures below it, until it is said anew."""
_FIRST = ("R@10", "balanced_accuracy", "accuracy", "auroc")  # the first of these is what a group is judged by
_GUESSED = ("accuracy", "balanced_accuracy")  # what a plain number for chance is the chance of
_WORDS = {
    "text_to_image": "text→image",
    "image_to_text": "image→text",
    "few_shot": "few images a class",
    "tests": "what was changed",
    "groups": "",  # of a kind that the part before names
    "auroc": "AUROC",
    "ece": "calibration error",
    "macro_f1": "macro F1",
}


@dataclass(frozen=True)
class Group:
    """Figures that stand together."""

    path: tuple[str, ...]
    figures: Mapping[str, Figure]
    context: Mapping[str, Any]
    """What the same place says beside them, and the nearest of INHERITED above it."""

    def chance(self, name: str) -> float | None:
        """What chance would give for a figure of this group."""
        said, last = self.context.get("chance"), name.split(" / ")[-1]
        if last == "auroc":
            return 0.5
        said = said.get(last) if isinstance(said, Mapping) else said if last in _GUESSED else None
        return said if isinstance(said, int | float) else None

    def majority(self, name: str) -> float | None:
        """The same figure of calling everything by the most frequent class."""
        said = self.context.get("majority")
        said = said.get(name) if isinstance(said, Mapping) else said if name == "accuracy" else None
        return said if isinstance(said, int | float) else None


def name_of(path: Sequence[str]) -> str:
    """The name of what lies at `path`."""
    return " / ".join(path)


def is_figure(said: Any) -> bool:
    """Whether this is a value with its interval; parts that could not be measured are None."""
    return isinstance(said, Mapping) and said.keys() >= PARTS and all(_measured(said[part]) for part in PARTS)


def nodes(said: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Every dict below `said` and its path, in the order of the file; figures are none.

    Items of a list are named by their `severity`, or by their place.
    """
    if isinstance(said, list):
        said = {str(one.get("severity", place)): one for place, one in enumerate(said) if isinstance(one, Mapping)}
    elif isinstance(said, Mapping) and not is_figure(said):
        yield path, said
    if isinstance(said, Mapping) and not is_figure(said):
        for name, one in said.items():
            yield from nodes(one, (*path, str(name)))


def groups(said: Any) -> list[Group]:
    """Every group of figures below `said`."""
    inherited: dict[tuple[str, ...], dict[str, Any]] = {}
    found = []
    for path, node in nodes(said):
        above = inherited.get(path[:-1]) or inherited.get(path[:-2]) or {}  # the last but one is that of a list
        inherited[path] = above | {name: node[name] for name in INHERITED if name in node}
        own = {str(name): one for name, one in node.items() if is_figure(one)}
        if own:
            plain = {name: one for name, one in node.items() if isinstance(one, str | int | float)}
            found.append(Group(path, own, plain | inherited[path]))
    return found


def siblings(found: Sequence[Group]) -> list[list[Group]]:
    """Neighbors that make the rows of a table: of one parent and with figures in common, or over the same numbers."""
    tables: list[list[Group]] = []
    for group in found:
        last = tables[-1][-1] if tables else None
        if last and group.path and _family(group) == _family(last) and group.figures.keys() & last.figures.keys():
            tables[-1].append(group)
        else:
            tables.append([group])
    return tables


def _family(group: Group) -> Any:
    *above, last = group.path or ("",)
    return (group.path[0], len(group.path), *group.figures) if is_number(last) and len(above) > 1 else above


def told_apart(paths: Sequence[Sequence[str]]) -> list[str]:
    """A name for each path, of the parts that not all of them have."""
    shared = set.intersection(*map(set, paths)) if paths else set()
    return [name_of([part for part in path if part not in shared]) for path in paths]


def is_number(part: str) -> bool:
    """Whether a part of a path is a number: of shots, of a severity."""
    return part.replace(".", "", 1).isdigit()


def figures(said: Any) -> dict[str, Figure]:
    """Every figure below `said`, by its name."""
    return {name_of((*group.path, name)): one for group in groups(said) for name, one in group.figures.items()}


def judged_by(group: Group) -> str | None:
    """The figure that stands for its group in drawings and in summaries, if any does."""
    names = (name for last in _FIRST for name in group.figures if name.split(" / ")[-1] == last)
    return next(names, None)


def is_share(name: str) -> bool:
    """Whether the figure of this name lies between 0 and 1 (a change of it: -1 and 1), and is read in percent."""
    last = name.split(" / ")[-1].lower()
    return "rank" not in last and "cosine" not in last


def form(name: str, value: float | None) -> str:
    """The value of the figure of this name, for people."""
    if value is None or not math.isfinite(value):
        return "–"
    if is_share(name):
        said = f"{100 * value:.1f} %"
    else:
        said = f"{value:,.1f}".removesuffix(".0") if "rank" in name else f"{value:.3f}"
    return said.replace("-", "−")


def form_interval(name: str, figure: Figure) -> str:
    """The interval of a figure, for people; "" without one."""
    if figure["low"] is None or figure["high"] is None:
        return ""
    low, high = (form(name, figure[part]).removesuffix("\u00a0%") for part in ("low", "high"))
    return f"{low} to {high}" if "−" in low else f"{low}–{high}"


def words(name: str) -> str:
    """A name as people say it."""
    return " · ".join(filter(None, (_WORDS.get(part, part.replace("_", " ")) for part in name.split(" / "))))


def _measured(said: Any) -> bool:
    return said is None or (isinstance(said, int | float) and not isinstance(said, bool))

"""DIR/report.html: an evaluation as a person should see it, from whatever measures its folder holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from medclip import html_page
from medclip.atomic_io import whole_file
from medclip.evaluate.align_items import Evaluation, read_evaluations
from medclip.evaluate.drawings import ConfusionMatrix, confusions, of_table, over_numbers, reliabilities
from medclip.evaluate.metric import (
    Figure,
    Group,
    form,
    form_interval,
    groups,
    judged_by,
    name_of,
    siblings,
    told_apart,
    words,
)

TITLES = {
    "retrieval": ("Retrieval", "How well captions find their images, and images their captions."),
    "zero-shot": ("Zero-shot classes", "Classes told apart by their names alone, without training on them."),
    "probe": ("Frozen features", "What simple classifiers can learn from the image vectors of the model as it is."),
    "understanding": (
        "Understanding",
        "How often an image prefers its own caption over the same one changed in a single thing.",
    ),
    "robustness": ("Robustness", "How the figures fall when images or captions are spoiled."),
}
MADE_OF = {
    "data": "data",
    "split": "split",
    "pool": "pool",
    "pictures": "pictures",
    "synthetic": "synthetic",
    "data_sha256": "SHA-256 of images and captions",
    "model": "SHA-256 of the model's weights",
    "saw_source": "did the model see the data's source",
    "seed": "seed",
    "interval": "intervals",
    "medclip": "medclip",
}
"""What a page says of how its figures came about, and what it calls it."""
CARDS = 8
NO_COUNTS = ("seed", "draws", "bins", "severity", "setting")
"""Whole numbers beside figures that do not say of how many they are."""


@dataclass(frozen=True)
class Table:
    """A table of figures, and the drawing of them where there is one."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    drawing: Markup | None = None


@dataclass(frozen=True)
class Section:
    """What a page shows of a measure."""

    title: str
    about: str
    drawings: Sequence[Markup]
    tables: Sequence[Table]
    confusions: Sequence[ConfusionMatrix]
    left_out: Mapping[str, Any]


def write_report(folder: Path) -> Path:
    """Write `report.html` beside the results in `folder`; returns its path. UserError where there are none."""
    (evaluation,) = read_evaluations([folder])
    path = folder / "report.html"
    with whole_file(path) as partial:
        partial.write_text(report(evaluation), encoding="utf-8")
    return path


def report(evaluation: Evaluation) -> str:
    """The page as HTML."""
    results = evaluation.results
    return html_page.render(
        "evaluation.html",
        subject=" and ".join(dict.fromkeys(subject(said) for said in results.values())),
        synthetic=any(said.get("synthetic") for said in results.values()),
        models=len({str(said.get("model")) for said in results.values()}),
        made_of=list(made_of(results)),
        cards=list(_cards(results))[:CARDS],
        sections=[_section(measure, said) for measure, said in results.items()],
    )


def subject(said: Mapping[str, Any]) -> str:
    """What was measured on."""
    return f"{said.get('data', 'unnamed data')}, split {said.get('split', 'unnamed')}"


def made_of(results: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """How the figures of some results came about; what is not the same for all of them is said for each."""
    for name, title in MADE_OF.items():
        said = {measure: _said(one[name], one.get(f"{name}_why")) for measure, one in results.items() if name in one}
        if len(said) == len(results) and len(set(said.values())) == 1:
            yield title, next(iter(said.values()))
        elif said:
            yield title, "; ".join(f"{measure}: {value}" for measure, value in said.items())


def _said(value: Any, why: str | None) -> str:
    if isinstance(value, bool) or value is None:
        value = {True: "yes", False: "no", None: "not known"}[value]
    return f"{f'{value:,}' if isinstance(value, int) else value}{f': {why}' if why else ''}"


def _cards(results: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """The figures that a model is judged by first: value, interval, and what it is."""
    for measure, said in results.items():
        deepest = 2 if measure == "understanding" else 1
        for group in groups(said):
            name = judged_by(group)
            if name and len(group.path) <= deepest and "random_weights" not in group.path:
                figure, title = group.figures[name], name_of((*(group.path[-1:] or (measure,)), name))
                yield form(name, figure["value"]), form_interval(name, figure), words(title)


def _section(measure: str, said: Mapping[str, Any]) -> Section:
    found, left_out = groups(said), said.get("left_out")
    return Section(
        *TITLES.get(measure, (measure, "")),
        drawings=[*over_numbers(said, found), *reliabilities(said)],
        tables=[*(_several(of) if len(of) > 1 else _alone(of[0]) for of in siblings(found)), *_examples(said)],
        confusions=list(confusions(said)),
        left_out=left_out if isinstance(left_out, Mapping) else {},
    )


def _examples(said: Mapping[str, Any]) -> Iterator[Table]:
    """Pairs by their ids, to be looked at: those that are taken for another, and images that lie closest."""
    for way, of in said.get("most_confused", {}).items():
        rows = [[one["id"], one["other"], *(f"{one[name]:.3f}" for name in ("own_score", "other_score"))] for one in of]
        yield Table(
            f"Most confused, {words(way)}", ["of the pair", "that of", "cosine of its own", "of the other"], rows
        )
    if near := said.get("nearest_pictures"):
        rows = [[one["id"], one["other"], f"{one['score']:.3f}"] for one in near]
        yield Table("Nearest images", ["picture", "its nearest", "cosine"], rows)


def _alone(group: Group) -> Table:
    """Figures of one group, a row each."""
    rows = [
        [words(name), form(name, figure["value"]), form_interval(name, figure)]
        + [form(name, beside(name)) for beside in (group.chance, group.majority)]
        for name, figure in group.figures.items()
    ]
    header = ["", "value", "95 % interval", "chance", "most frequent class"]
    kept = [place for place in range(len(header)) if place < 3 or any(row[place] != "–" for row in rows)]
    header, *rows = ([row[place] for place in kept] for row in (header, *rows))
    return Table(_title(group.path, [group]), header, rows)


def _several(of: Sequence[Group]) -> Table:
    """Figures of groups that stand together, a row for each group, with their counts where these differ."""
    names = list(dict.fromkeys(name for group in of for name in group.figures))
    counts = [name for name in of[0].context if _is_count(name, of) and name not in _shared_counts(of)]
    rows = [
        [words(title), *(html_page.number(group.context[count]) for count in counts)]
        + [_cell(name, group.figures.get(name)) for name in names]
        for title, group in zip(told_apart([group.path for group in of]), of, strict=True)
    ]
    chances = [{group.chance(name) for group in of} for name in names]
    if all(len(one) == 1 for one in chances) and chances != [{None}] * len(names):
        shown = (form(name, *one) for name, one in zip(names, chances, strict=True))
        rows.append(["chance", *("" for _ in counts), *shown])
    shared = [part for part in of[0].path if all(part in group.path for group in of)]
    return Table(_title(shared, of), ["", *map(words, counts), *map(words, names)], rows, of_table(of))


def _title(path: Sequence[str], of: Sequence[Group]) -> str:
    """What a table is of, and the counts that are the same for all of it."""
    said = words(name_of(path)) or "figures"
    counts = ", ".join(f"{words(name)} {html_page.number(count)}" for name, count in _shared_counts(of).items())
    return said[0].upper() + said[1:] + (f" ({counts})" if counts else "")


def _shared_counts(of: Sequence[Group]) -> dict[str, int]:
    """The counts beside figures that are the same for all groups."""
    first, *others = (group.context for group in of)
    return {name: first[name] for name in first if _is_count(name, of) and all(c[name] == first[name] for c in others)}


def _is_count(name: str, of: Sequence[Group]) -> bool:
    """Whether all groups say under this name of how many things they are."""
    said = [group.context.get(name) for group in of]
    return name not in NO_COUNTS and all(isinstance(one, int) and not isinstance(one, bool) for one in said)


def _cell(name: str, figure: Figure | None) -> str:
    if figure is None:
        return "–"
    return Markup("{} <small>{}</small>").format(form(name, figure["value"]), form_interval(name, figure))

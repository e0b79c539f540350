"""The page of a comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from medclip import html_page
from medclip.atomic_io import whole_file
from medclip.evaluate import charts
from medclip.evaluate.compare import METHOD, Comparison, Row, form_difference, form_p
from medclip.evaluate.metric import Figure, form, form_interval, is_share, words
from medclip.evaluate.report import Table, made_of
from medclip.evaluate.significance import VERDICTS


def write_comparison(comparison: Comparison, path: Path, fallen: Sequence[str] = ()) -> None:
    """Write the page to `path`, with what `compare.fallen` says at its top."""
    with whole_file(path) as partial:
        partial.write_text(comparison_page(comparison, fallen), encoding="utf-8")


def comparison_page(comparison: Comparison, fallen: Sequence[str] = ()) -> str:
    """The page as HTML."""
    names = [one.name for one in comparison.evaluations]
    return html_page.render(
        "comparison.html",
        baseline=names[0],
        others=names[1:],
        names=names,
        synthetic=any(said.get("synthetic") for one in comparison.evaluations for said in one.results.values()),
        notes=comparison.notes,
        fallen=fallen,
        summary={name: _summary(comparison, place) for place, name in enumerate(names[1:])},
        compared=[
            (words(measure).capitalize(), _drawing(comparison, measure), list(_differences(comparison, measure)))
            for measure in dict.fromkeys(row.measure for row in comparison.rows if row.kind)
        ],
        alone=list(_alone(comparison)),
        made_of=_made_of(comparison),
        method=METHOD,
    )


def _summary(comparison: Comparison, place: int) -> dict[str, int]:
    counts = Counter(row.against[place].verdict for row in comparison.rows if row.against)
    return {verdict: counts[verdict] for verdict in VERDICTS}


def _differences(comparison: Comparison, measure: str) -> Iterator[Table]:
    """A table for each evaluation but the first: what was compared, the verdict first."""
    first, *others = (one.name for one in comparison.evaluations)
    rows = [row for row in comparison.rows if row.kind and row.measure == measure]
    for place, other in enumerate(others):
        cells = [[words(row.name), *_cells(row, place)] for row in rows]
        header = ["", "verdict", "difference (95 % interval)", "p, corrected", first, other]
        yield Table(f"{other} against {first}", header, cells)


def _cells(row: Row, place: int) -> Iterator[str]:
    one = row.against[place]
    yield Markup('<span class="{}">{}</span>').format(one.verdict.split()[0], one.verdict)
    yield form_difference(row, one)
    yield form_p(one)
    yield from (_value(row.name, row.figures[at]) for at in (0, place + 1))


def _alone(comparison: Comparison) -> Iterator[Table]:
    """A table for each measure: what has no values of single items."""
    rows = [row for row in comparison.rows if not row.kind]
    for measure in dict.fromkeys(row.measure for row in rows):
        cells = [
            [words(row.name), *(_value(row.name, one) for one in row.figures)] for row in rows if row.measure == measure
        ]
        yield Table(words(measure).capitalize(), ["", *(one.name for one in comparison.evaluations)], cells)


def _value(name: str, figure: Figure) -> Markup:
    return Markup("{} <small>{}</small>").format(form(name, figure["value"]), form_interval(name, figure))


def _drawing(comparison: Comparison, measure: str) -> Markup | None:
    """Differences in points: of R@10 and shares of right answers, or of all where neither is compared."""
    shares = [row for row in comparison.rows if row.measure == measure and row.kind and is_share(row.name)]
    rows = [row for row in shares if row.kind and row.kind.name in ("", "R@10")] or shares
    return (
        charts.differences({row.name: row.against for row in rows}, [one.name for one in comparison.evaluations[1:]])
        if rows
        else None
    )


def _made_of(comparison: Comparison) -> list[list[str]]:
    """A row for each thing that is said of how the evaluations came about, a cell for each of them."""
    said = [dict(made_of(one.results)) for one in comparison.evaluations]
    return [
        [name, *(_short(of.get(name, "–")) for of in said)]
        for name in dict.fromkeys(name for of in said for name in of)
    ]


def _short(said: str) -> str:
    """A hash by its beginning; all else as it is."""
    return f"{said[:12]}…" if len(said) > 40 and " " not in said else said

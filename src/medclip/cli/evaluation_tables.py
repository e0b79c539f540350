"""Evaluations and comparisons on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from medclip.evaluation.compare import Comparison
    from medclip.evaluation.result_tables import Cell
    from medclip.evaluation.result_tables import Table as ResultTable
    from medclip.evaluation.results import ConfusionMatrix, Results

_VERDICT_STYLES = {"better": "green", "worse": "red"}


def evaluation_tables(results: Results) -> Iterator[RenderableType]:
    """The main tables of an evaluation, then notes on them and on how they were made."""
    from medclip.evaluation.result_tables import origin_notes, result_notes, result_tables, source

    subject = source(results.provenance)
    for table in result_tables(results):
        if not table.details:
            yield _render(table, subject)
            subject = ""
    for matrix in results.confusion_matrices:
        if not matrix.name.startswith("random_weights"):
            yield _render_confusion(matrix)
    for note in (*result_notes(results), *origin_notes(results.provenance)):
        yield Text(note)


def comparison_tables(comparison: Comparison) -> Iterator[RenderableType]:
    """Every metric that was compared, with its difference from the baseline and the verdict on it."""
    from medclip import NOT_CLINICAL
    from medclip.evaluation.compare import METHOD
    from medclip.evaluation.result_tables import comparison_tables

    for kind in comparison.compared_kinds:
        yield from map(_render, comparison_tables(comparison, kind))
    for note in comparison.notes:
        yield Text(f"! {note}.", "yellow")
    uncompared = sum(not row.contrasts for row in comparison.rows)
    hint = f"{uncompared} more metrics are listed on the page (--out) and in the JSON. " if uncompared else ""
    yield Text(f"{hint}{METHOD}. {NOT_CLINICAL}")


def _render(table: ResultTable, subject: str = "") -> Table:
    rendered = Table(title=Text(f"{subject}: {table.title}" if subject else table.title))
    for name in table.header:
        rendered.add_column(name, overflow="fold")
    for row in table.rows:
        rendered.add_row(*map(_to_text, row))
    return rendered


def _to_text(cell: Cell) -> Text:
    from medclip.named_metrics import Metric, format_interval, format_value

    if isinstance(cell, Metric):
        interval = format_interval(cell)
        return Text(format_value(cell, cell.value) + (f" ({interval})" if interval else ""))
    return Text(cell, _VERDICT_STYLES.get(cell, ""))


def _render_confusion(matrix: ConfusionMatrix) -> Table:
    """A row for each true class, a column for each predicted one, headed by its number."""
    numbers = list(map(str, range(1, len(matrix.labels) + 1)))
    title = f"Confusion matrix, {matrix.name.replace('_', ' ')}: images of each class by predicted class"
    table = Table("", "class", *numbers, title=Text(title))
    for number, label, counts in zip(numbers, matrix.labels, matrix.counts, strict=True):
        table.add_row(number, Text(label), *(str(count or "·") for count in counts))
    return table

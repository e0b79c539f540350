"""The table of a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from medclip import NOT_CLINICAL

if TYPE_CHECKING:
    from medclip.evaluate.compare import Comparison

_VERDICTS = {"better": "green", "worse": "red"}


def comparison_tables(comparison: Comparison) -> Iterator[RenderableType]:
    """Every figure that was compared, with its difference from the baseline and the verdict on it."""
    from medclip.evaluate.compare import METHOD, form_difference, form_p
    from medclip.evaluate.metric import form

    first, *others = (one.name for one in comparison.evaluations)
    header = [column for other in others for column in (other, "difference (95 % interval)", "p", "")]
    table = Table("figure", first, *header)
    for row in comparison.rows:
        if row.kind:
            cells = [row.name, form(row.name, row.figures[0]["value"])]
            for figure, one in zip(row.figures[1:], row.against, strict=True):
                cells += [form(row.name, figure["value"]), form_difference(row, one), form_p(one), one.verdict]
            table.add_row(*(Text(cell, _VERDICTS.get(cell, "")) for cell in cells))
    yield table
    for note in comparison.notes:
        yield Text(f"! {note}.", "yellow")
    alone = sum(not row.kind for row in comparison.rows)
    more = f"{alone} more figures stand side by side on the page (--out) and in the JSON. " if alone else ""
    yield f"{more}{METHOD}. {NOT_CLINICAL}"

"""The table of hits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from medclip.tables.parts import screen

if TYPE_CHECKING:
    from medclip.search.index import Hit


def show_hits(hits: Sequence[Hit]) -> None:
    """Hits, best first."""
    table = Table("score", "id", "caption")
    for hit in hits:
        table.add_row(f"{hit.score:.3f}", hit.id, Text(hit.caption))
    screen.print(table)

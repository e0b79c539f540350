"""The table of hits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from medclip.cli.tables.parts import screen

if TYPE_CHECKING:
    from medclip.search.index import Hit


def show_hits(hits: Sequence[Hit], title: str | None = None) -> None:
    """Hits, best first, as wide as the terminal."""
    table = Table("score", "id", "caption", "article", title=Text(title) if title else None, expand=True)
    for hit in hits:
        table.add_row(f"{hit.score:.3f}", hit.id, Text(hit.caption), hit.article)
    screen.print(table)

"""Commands that make an index, put questions to it and show it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from medclip.commands.arguments import Data, Positional
from medclip.errors import UserError
from medclip.progress import console
from medclip.tables.search import show_hits


@dataclass(frozen=True)
class IndexCommand:
    """Embed every picture of a split into a folder that `medclip search` and `medclip app` open."""

    model: str
    """A model folder, a run, or OWNER/NAME on the Hub."""
    data: Data
    """A prepared data set."""
    out: Path
    """The index's new folder."""
    split: str | None = None
    """Which split; left out: validation, or the only one."""
    limit: int | None = None
    """The first pairs only."""

    def run(self) -> None:
        from medclip.search.index import build_index

        count = build_index(self.model, self.data, self.out, self.split, self.limit)
        console.print(f"{count} pictures in {self.out}")


@dataclass(frozen=True)
class Search:
    """Find pictures by words or by a picture; best first. A table on a terminal, JSON lines when piped."""

    index: Path
    """An index folder."""
    query: Annotated[Positional[str | None], tyro.conf.arg(metavar="QUERY")] = None
    """What to look for, for example "pleural effusion"."""
    image: Path | None = None
    """A picture to look for, in place of words."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 5
    """Number of hits."""
    model: Path | None = None
    """The model that made the index, where it has moved."""

    def run(self) -> None:
        from medclip.search.index import Index
        from medclip.search.query import search

        if (self.query is None) == (self.image is None):
            raise UserError('give either a query ("pleural effusion") or --image FILE.')
        if self.k < 1:
            raise UserError("--k must be at least 1.")
        hits = search(Index(self.index), self.query if self.image is None else self.image, self.k, self.model)
        if not sys.stdout.isatty():
            for hit in hits:
                row = {"id": hit.id, "score": round(hit.score, 6), "caption": hit.caption}
                print(json.dumps({**row, "article": hit.article, "licence": hit.licence}, ensure_ascii=False))
            return
        show_hits(hits)


@dataclass(frozen=True)
class App:
    """Serve the search app (Streamlit) for an index, on this machine only."""

    index: Path
    """An index folder."""
    port: int = 8501
    """Port on 127.0.0.1."""

    def run(self) -> None:
        from medclip.serve.launch import launch

        launch(self.index, self.port)

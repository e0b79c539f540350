"""Commands that put questions to an index and show it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from medclip.cli.args import Each, Positional
from medclip.cli.tables.search import show_hits
from medclip.errors import UserError


@dataclass(frozen=True)
class Search:
    """Find images by words, by images or by both; best first. A table on a terminal, JSON lines when piped."""

    index: Path
    """An index folder."""
    queries: Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="QUERY")] = ()
    """What to look for, for example "pleural effusion"; each of several is answered for itself."""
    image: Each[Path] = ()
    """An image to look for (PNG, JPEG, DICOM, …), and again for more; with words: like it, and as they say."""
    negative: Each[str] = ()
    """What it should not be, in words; may be given again."""
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 5
    """Number of hits."""
    filter: Each[str] = ()
    """KEY=VALUE: a label (modality=mri), article, license, source, or added=2026-11-01..;
    may be given again: other keys narrow, the same key takes either value."""
    one_per_article: bool = False
    """The best image of an article only."""
    ensemble: bool = False
    """Say the words in several ways and look for their mean."""
    model: Path | None = None
    """The model that made the index, where it has moved."""

    def run(self) -> None:
        from medclip.search.filters import parse_filter
        from medclip.search.query import Query, SearchOptions, open_searcher, search

        if not (self.queries or self.image):
            raise UserError('give a query ("pleural effusion"), --image FILE, or both.')
        asked = [Query((text,), self.image, self.negative) for text in self.queries]
        asked = asked or [Query((), self.image, self.negative)]
        wanted = SearchOptions(self.k, parse_filter(self.filter), self.one_per_article)
        found = search(open_searcher(self.index, self.model), asked, wanted, self.ensemble)
        for query, hits in zip(asked, found, strict=True):
            title = query.texts[0] if len(found) > 1 else None
            if sys.stdout.isatty():
                show_hits(hits, title)
                continue
            for hit in hits:
                said = {name: getattr(hit, name) for name in ("id", "score", "caption", "article", "license", "labels")}
                line = {"query": title} if title else {}
                line |= said | {"score": round(hit.score, 6), "added": hit.added, "copies": hit.copies}
                print(json.dumps(line, ensure_ascii=False))


@dataclass(frozen=True)
class App:
    """Serve the search app (Streamlit). On this machine only, unless --host says otherwise; it has no login.

    To let others in, put a proxy with TLS and a login before it, and give --name and, below a path, --path.
    """

    index: tuple[Path, ...]
    """An index folder, or several: answers of two can be seen side by side."""
    model: tuple[Path, ...] = ()
    """The models that made the indexes, in their order, where they have moved."""
    evaluation: Path | None = None
    """What `medclip evaluate … --out DIR` wrote, to be shown beside the model card."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is all of this machine's."""
    port: int = 8501
    """Port."""
    base_path: str = ""
    """Path below which a proxy serves the app, for example radiology."""
    server_name: str = ""
    """Host name that browsers ask a proxy for, for example search.example.org; requests for others are refused."""

    def run(self) -> None:
        from medclip.app.run import Address, AppConfig, launch

        config = AppConfig(self.index, self.model, self.evaluation)
        launch(config, Address(self.host, self.port, self.base_path, self.server_name))

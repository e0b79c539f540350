"""Commands about the whole: the path on phantoms, and what a folder is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from medclip.cli.args import Positional, Seed
from medclip.cli.tables.runs import show_info


@dataclass(frozen=True)
class Quickstart:
    """Synthetic phantoms -> prepare -> train -> evaluate -> index -> app. No download; minutes on a laptop."""

    out: Path = Path("runs/quickstart")
    """Folder for everything it makes."""
    app: bool = True
    """End by serving the app; --no-app stops before."""
    seed: Seed = 0
    """Seed of the phantoms and of training."""

    def run(self) -> None:
        from medclip.cli.quickstart import quickstart

        quickstart(self.out, self.app, self.seed)


@dataclass(frozen=True)
class Info:
    """What a run, a dataset, an index or a model is, and how it went."""

    path: Annotated[Positional[str], tyro.conf.arg(metavar="PATH")]
    """A folder that medclip made, or a model's folder or OWNER/NAME on the Hub."""

    def run(self) -> None:
        from medclip.cli.info import info

        show_info(*info(self.path), Path(self.path))

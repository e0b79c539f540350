"""How commands print results: tables on a terminal, JSON when piped, either by a flag."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, TextIO

import tyro
from rich.console import RenderableType
from rich.text import Text

from medclip.cli.args import ConfigFile
from medclip.cli.streams import print_errors
from medclip.errors import UserError
from medclip.plain_text import printable
from medclip.progress import PlainConsole

screen = PlainConsole()


def _is_unicode(stream: TextIO) -> bool:
    return (stream.encoding or "").lower().startswith("utf")


@dataclass(frozen=True, kw_only=True)
class Output:
    """Flags of every command that prints a result."""

    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON, also on a terminal."""
    table: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print tables, also when piped."""
    config: ConfigFile = None

    def __post_init__(self) -> None:
        if self.json and self.table:
            raise UserError("give --json or --table, not both.")

    def show(self, result: Any, tables: Iterable[RenderableType]) -> None:
        """Print `result` as a line of JSON (a list as a line for each item), or else the `tables`.

        `tables` may be a generator: it is not started where JSON is printed.
        """
        with print_errors():
            if self.json or not (self.table or sys.stdout.isatty()):
                for item in result if isinstance(result, list) else [result]:
                    print(printable(json.dumps(item, ensure_ascii=not _is_unicode(sys.stdout))))
                return
            for table in tables:
                screen.print(table, soft_wrap=isinstance(table, str | Text))  # a path stays on one line

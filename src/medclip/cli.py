"""The command line: which commands there are, and what becomes of their errors."""

from __future__ import annotations

from typing import Annotated

import tyro
from rich.markup import escape

from medclip import NOT_CLINICAL, backend, commands
from medclip.errors import UserError, WorkError
from medclip.progress import console

Command = (
    Annotated[commands.Quickstart, tyro.conf.subcommand("quickstart")]
    | Annotated[commands.Prepare, tyro.conf.subcommand("prepare")]
    | Annotated[commands.Leakage, tyro.conf.subcommand("leakage")]
    | Annotated[commands.Train, tyro.conf.subcommand("train")]
    | Annotated[commands.Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[commands.IndexCommand, tyro.conf.subcommand("index")]
    | Annotated[commands.Search, tyro.conf.subcommand("search")]
    | Annotated[commands.App, tyro.conf.subcommand("app")]
    | Annotated[commands.Export, tyro.conf.subcommand("export")]
    | Annotated[commands.Push, tyro.conf.subcommand("push")]
    | Annotated[commands.Info, tyro.conf.subcommand("info")]
)


def main() -> None:
    """Run one command. Exit codes: 0 done, 1 the work failed, 2 the command was wrong."""
    backend.start()
    try:
        tyro.cli(
            Command,
            prog="medclip",
            description=f"From radiology image-caption pairs to a measured, searchable CLIP model. {NOT_CLINICAL}",
            config=(tyro.conf.OmitSubcommandPrefixes,),
        ).run()
    except UserError as error:
        _stop(str(error), 2)
    except (WorkError, OSError) as error:
        _stop(str(error), 1)
    except KeyboardInterrupt:
        _stop("stopped by the keyboard; a training run goes on with --resume.", 1)


def _stop(sentence: str, code: int) -> None:
    console.print(f"[bold]medclip:[/bold] {escape(sentence)}", soft_wrap=True)
    raise SystemExit(code)


if __name__ == "__main__":
    main()

"""The command line: which commands there are, and what becomes of their errors."""

from __future__ import annotations

from typing import Annotated

import tyro
from rich.markup import escape

from medclip import NOT_CLINICAL, jax_setup
from medclip.cli.compare import Compare
from medclip.cli.data import Leakage, Prepare, Stats
from medclip.cli.evaluate import Evaluate
from medclip.cli.explain import Explain
from medclip.cli.index import Curate, Embed, IndexCommand
from medclip.cli.overview import Info, Quickstart
from medclip.cli.publish import Export, Push
from medclip.cli.search import App, Search
from medclip.cli.serve import Serve
from medclip.cli.train import Train
from medclip.errors import UserError, WorkError
from medclip.progress import console

Command = (
    Annotated[Quickstart, tyro.conf.subcommand("quickstart")]
    | Annotated[Prepare, tyro.conf.subcommand("prepare")]
    | Annotated[Stats, tyro.conf.subcommand("stats")]
    | Annotated[Leakage, tyro.conf.subcommand("leakage")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Embed, tyro.conf.subcommand("embed")]
    | Annotated[IndexCommand, tyro.conf.subcommand("index")]
    | Annotated[Curate, tyro.conf.subcommand("curate")]
    | Annotated[Search, tyro.conf.subcommand("search")]
    | Annotated[Explain, tyro.conf.subcommand("explain")]
    | Annotated[Serve, tyro.conf.subcommand("serve")]
    | Annotated[App, tyro.conf.subcommand("app")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Push, tyro.conf.subcommand("push")]
    | Annotated[Info, tyro.conf.subcommand("info")]
)


def main() -> None:
    """Run one command. Exit codes: 0 done, 1 the work failed, 2 the command was wrong."""
    jax_setup.start()
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
        _stop("stopped by the keyboard; a training run goes on with --resume, any other work with the same command.", 1)


def _stop(sentence: str, code: int) -> None:
    console.print(f"[bold]medclip:[/bold] {escape(sentence)}", soft_wrap=True)
    raise SystemExit(code)


if __name__ == "__main__":
    main()

"""The page docs/cli.md, from the --help of every command: python -m medclip.cli.reference > docs/cli.md."""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout, suppress

from medclip.cli.main import GROUPS, ROOT, Command, Family, family_help, run

INTRODUCTION = """\
# Command line

Made from the parser by `python -m medclip.cli.reference > docs/cli.md`; a test compares.

- **Names.** MODEL is a folder, a run, or a model of the Hub: `OWNER/NAME` or `hf-hub:OWNER/NAME`, either with
  `@REVISION` (a branch, tag or commit). DATA is a prepared dataset: a folder, or a URL (`s3://…`, `gs://…`, `hf://…`)
  that is copied to this machine once. INDEX and RUN are folders.
- **Results** go to standard output: tables on a terminal, JSON when piped; `--json` and `--table` force either.
  Progress, warnings and addresses of pages go to standard error.
- **Exit codes**: 0 done; 1 the work failed or nothing came out; 2 the command was wrong; 130, 143 or 129: Ctrl-C,
  SIGTERM or SIGHUP ended it, and a training run goes on with `--resume`, other work with the same command.
  `app`, `serve` and `mcp` end with 0. A second signal waits for nothing.
- **One writer.** A folder that another process writes into is refused (exit code 1). A killed process locks nothing.
- **Config files.** `--config FILE.toml` gives any flags of a command: keys are names of flags, with `-` or `_`,
  positional arguments go by their field (`source`, `data`, `queries`). The command line wins over the file; an
  unknown key is an error. Paths count from the folder that the command runs in, as on the command line. `prepare`,
  `train`, `embed`, `index build` and every `evaluate` with `--out` write the file that repeats them into that folder,
  named after the command: `prepare.toml`, `train.toml`, `embed.toml`, `index-build.toml`, `evaluate-retrieval.toml`.
  It names no absolute path, and after a preparation of DICOM not the source, which may be named after a patient: give
  that again.

```text
medclip train --config RUN/train.toml --out RUN2                # the same run once more
medclip train --config RUN/train.toml --out RUN3 --lr 3e-5      # with one thing changed
```
"""
WIDTH = 86  # what the site and GitHub show without scrolling


def main() -> None:
    """Print the page."""
    os.environ["COLUMNS"] = str(WIDTH)
    print(reference(), end="")


def reference() -> str:
    """The whole page: the introduction, the commands in their groups, and the help of each."""
    parts = [INTRODUCTION, _block(family_help("medclip", ROOT))]
    for title, commands in GROUPS.items():
        parts.append(f"## {title}\n")
        parts += (f"### medclip {' '.join(words)}\n\n{_block(help_text(words))}" for words in command_words(commands))
    return "\n".join(parts)


def command_words(commands: Mapping[str, Command | Family]) -> Iterator[list[str]]:
    """The words of every command, families opened."""
    for word, command in commands.items():
        if isinstance(command, Family):
            yield from ([word, *words] for words in command_words(command.commands))
        else:
            yield [word]


def help_text(words: list[str]) -> str:
    """What a command prints for --help, without frames and colors."""
    with redirect_stdout(io.StringIO()) as out, suppress(SystemExit):
        run([*words, "--help"])
    lines = (line.rstrip() for line in out.getvalue().splitlines() if set(line.strip()) != {"-"})
    return "\n".join(textwrap.fill(line, WIDTH) if len(line) > WIDTH else line for line in lines)


def _block(text: str) -> str:
    return f"```text\n{text.strip()}\n```\n"


if __name__ == "__main__":
    main()

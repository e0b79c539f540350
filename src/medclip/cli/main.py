"""The command line: its commands, and how their errors end."""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import signal
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple, NoReturn

from medclip import NOT_CLINICAL, __version__
from medclip.cli.streams import plain_terminal_log, print_errors, replace_closed_streams
from medclip.errors import StoppedError, UserError, WorkError, describe_error
from medclip.plain_text import printable
from medclip.stop_signals import Stopped, end_at_once_from_now_on, handle_stop_signals, raise_stopped
from medclip.warning_filters import ignore_warnings


class Command(NamedTuple):
    """A command: one line about it, and its class as MODULE:CLASS."""

    summary: str
    target: str


class Family(NamedTuple):
    """Commands that share their first word."""

    summary: str
    commands: Mapping[str, Command | Family]


GROUPS: Mapping[str, Mapping[str, Command | Family]] = {
    "Start": {
        "quickstart": Command("The whole path on synthetic phantoms, in minutes", "quickstart:Quickstart"),
        "info": Command("What a dataset, a run, a model or an index is", "info:Info"),
        "verify": Command("Whether every file is as it was written", "verify:Verify"),
    },
    "Data": {
        "prepare": Command("Turn a source of image-caption pairs into a dataset", "data:Prepare"),
        "stats": Command("What a dataset holds, with warnings", "data:Stats"),
        "trace": Command("Which DICOM object an id stands for, for who has the key", "data:Trace"),
        "correct": Command("Delete and relabel pairs that the map's page marked", "data:Correct"),
        "leakage": Command("What training shares with the pairs it is judged on", "data:Leakage"),
    },
    "Train": {
        "train": Command("Fine-tune a model, join two towers, or train from scratch", "train:Train"),
    },
    "Evaluate": {
        "evaluate": Family(
            "Measure a model on a split, with 95 % intervals",
            {
                "retrieval": Command("Recall and ranks of captions and images", "evaluate:Retrieval"),
                "zero-shot": Command("Classes recognized by their names", "evaluate:ZeroShot"),
                "probe": Command("Classifiers on frozen image features", "evaluate:Probe"),
                "compositionality": Command("Captions against ones changed in a word", "evaluate:Compositionality"),
                "robustness": Command("Retrieval from degraded images", "evaluate:Robustness"),
            },
        ),
        "compare": Command("Which of several models is better, and is it noise", "evaluate:Compare"),
        "explain": Command("Where an image speaks for a text", "evaluate:Explain"),
    },
    "Search": {
        "embed": Command("Write unit vectors of images and captions as .npy", "index:Embed"),
        "index": Family(
            "Make an index, and change its content",
            {
                "build": Command("Embed a split into a new index", "index:Build"),
                "add": Command("Add the pairs of another split", "index:Add"),
                "delete": Command("Take images out of every answer", "index:Delete"),
                "correct": Command("Delete and relabel what the map's page marked", "index:Correct"),
                "snapshot": Command("Keep the present content under a name", "index:Snapshot"),
                "restore": Command("Go back to a snapshot", "index:Restore"),
                "purge": Command("Erase deleted images from the disk", "index:Purge"),
                "migrate": Command("Switch the vector store", "index:Migrate"),
            },
        ),
        "search": Command("Find images by text, by image, or by both", "index:Search"),
        "map": Command("Write an index as points in a plane, with outliers", "index:Map"),
        "app": Command("The search app in a browser", "serve:App"),
        "serve": Command("Search over HTTP", "serve:Serve"),
        "mcp": Command("Tools for agents: search, similar, classify, explain", "serve:Mcp"),
    },
    "Share": {
        "export": Command("Write a model as ONNX, or a dataset as Parquet or tar", "share:Export"),
        "push": Command("Upload a model to the Hugging Face Hub", "share:Push"),
    },
}
_SENDERS = {
    signal.SIGINT: "Ctrl-C (SIGINT)",
    signal.SIGTERM: "SIGTERM",
    signal.SIGHUP: "SIGHUP, as of a terminal that closes",
}
GC_THRESHOLD = 10_000
"""New objects between looks for cycles: imports make many objects and free few, and 700 cost 3 % of an evaluation."""
_GO_ON = "a training run goes on with --resume, other work with the same command."
ROOT = Family(
    f"From radiology image-caption pairs to a measured, searchable CLIP model. {NOT_CLINICAL}",
    {name: command for group in GROUPS.values() for name, command in group.items()},
)


def main() -> None:
    """Run one command. Exit codes: 0 done, 1 the work failed, 2 the command was wrong, 128 + n signal n ended it."""
    gc.set_threshold(GC_THRESHOLD)
    atexit.register(gc.freeze)  # a tenth of a second: as a process ends, nothing is gained by a last look for cycles
    replace_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may lack a letter, and a file name be no text
    try:
        with plain_terminal_log(), handle_stop_signals(raise_stopped):
            run(sys.argv[1:])
    except UserError as error:
        _stop(str(error), 2)
    except StoppedError as error:
        end_at_once_from_now_on()
        _stop(str(error), 128 + error.signal)
    except WorkError as error:
        _stop(str(error), 1)
    except OSError as error:
        _stop(describe_error(error), 1)
    except (RecursionError, MemoryError) as error:
        kind = "is nested too deeply" if isinstance(error, RecursionError) else "needs more memory than there is"
        _stop(f"what this command was given {kind}.", 1)
    except (RuntimeError, AssertionError) as error:
        from medclip.jax_setup import describe_platform_error

        if (sentence := describe_platform_error(error)) is None:
            raise
        _stop(sentence, 2)
    except KeyboardInterrupt as error:
        end_at_once_from_now_on()
        number = signal.Signals(error.number) if isinstance(error, Stopped) else signal.SIGINT
        _stop(f"stopped by {_SENDERS[number]}; {_GO_ON}", 128 + number)


def run(words: Sequence[str]) -> None:
    """Run the command that `words` name, or print its help. UserError where there is no such command."""
    name, command, rest = find_command(words)
    if isinstance(command, Family):
        with print_errors():
            _show_family(name, command, rest)
        return
    from medclip import jax_setup
    from medclip.cli.parse import flag_values, output_folder, parse, write_config
    from medclip.folder_locks import check_writable, lock_output

    jax_setup.start()
    for package in ("PIL", "pydicom"):
        ignore_warnings(package)  # before any thread
    module, _, class_name = command.target.partition(":")
    with print_errors():  # of --help
        parsed = parse(getattr(importlib.import_module(f"medclip.cli.{module}"), class_name), name, rest)
    folder = output_folder(parsed)
    if folder is None and (file := flag_values(parsed).get("out")) is not None:
        check_writable(file)  # before hours of work, as `lock_output` does
    with lock_output(folder) if folder is not None else nullcontext():
        repeatable = parsed.run()
        if repeatable is not None:
            write_config(name.removeprefix("medclip "), repeatable)


def find_command(words: Sequence[str]) -> tuple[str, Command | Family, Sequence[str]]:
    """The full name and the command or family that the first words name, with the words after it."""
    name, command = "medclip", ROOT
    while isinstance(command, Family) and words and not words[0].startswith("-"):
        word, *words = words
        if word not in command.commands:
            from medclip.cli.parse import suggestion

            near = suggestion(word, (*command.commands, "--help", "--version"))
            raise UserError(f"{name} has no command {word!r}.{near} See {name} --help.")
        name, command = f"{name} {word}", command.commands[word]
    return name, command, words


def _show_family(name: str, family: Family, words: Sequence[str]) -> None:
    """Answer a call without a command: --help, --version, or a mistake."""
    if "--version" in words and family is ROOT:
        print(f"medclip {__version__}")
    elif {"-h", "--help"} & set(words):
        print(family_help(name, family))
    else:
        raise UserError(f"{name} needs a command: {', '.join(family.commands)}. See {name} --help.")


def family_help(name: str, family: Family) -> str:
    """The commands of a family, one a line, 80 columns wide; those of `medclip` itself in groups."""
    groups = GROUPS if family is ROOT else {"Commands": family.commands}
    lines = [f"usage: {name} COMMAND …", "", *textwrap.wrap(family.summary, 80)]
    for title, commands in groups.items():
        lines += ["", title, *(f"  {word:<16} {command.summary}" for word, command in commands.items())]
    version = ", medclip --version for the version" if family is ROOT else ""
    return "\n".join([*lines, "", f"{name} COMMAND --help explains a command{version}."])


def _stop(sentence: str, code: int) -> NoReturn:
    from rich.text import Text

    from medclip.progress import console

    console.print(Text.assemble(("medclip:", "bold"), " ", printable(sentence.replace("\n", " "))), soft_wrap=True)
    raise SystemExit(code)


if __name__ == "__main__":
    main()

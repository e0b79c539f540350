"""Words and a config file become a command; a command becomes the config file that repeats it."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import io
import json
import math
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import MISSING, dataclass
from functools import reduce
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from medclip import __version__
from medclip.bounded_files import read_toml
from medclip.cli.args import OUT_FILE
from medclip.errors import UserError
from medclip.plain_text import is_unicode, printable
from medclip.recorded_files import write_recorded

_HOME = re.compile(r"^(--[\w-]+=|)~(?=/)")
ONE_CALL = {"config", "json", "table", "resume"}
"""Flags that are not written into the file that repeats a run."""
MODEL_FLAGS = {"init", "vision_model", "text_model", "tokenizer"}
"""Flags of the training settings whose value is a MODEL."""


@dataclass(frozen=True)
class Flag:
    """A flag or a positional argument: a field of a command, or of the settings inside it."""

    path: tuple[str, ...]
    """Names of fields from the command down."""
    hint: Any
    """Its type, with tyro's annotations."""
    is_required: bool = False
    """Whether it has no default."""

    @property
    def is_switch(self) -> bool:
        """Whether it is written --x or --no-x."""
        return self.hint is bool or get_args(self.hint)[:1] == (bool,)

    @property
    def takes_list(self) -> bool:
        """Whether it is written --x A B …, with any number of words."""
        metadata = getattr(self.hint, "__metadata__", ())
        hint = get_args(self.hint)[0] if metadata else self.hint
        return get_origin(hint) is tuple and get_args(hint)[1:] == (...,) and tyro.conf.UseAppendAction not in metadata

    @property
    def num_words(self) -> float:
        """How many words follow it."""
        base = get_args(self.hint)[0] if hasattr(self.hint, "__metadata__") else self.hint
        fixed = [get_args(kind) for kind in (base, *get_args(base)) if get_origin(kind) is tuple]
        is_pair = bool(fixed) and ... not in fixed[0]
        return 0 if self.is_switch else math.inf if self.takes_list else len(fixed[0]) if is_pair else 1

    @property
    def spelling(self) -> str:
        """How a message writes it: --index INDEX, SOURCE."""
        metadata = getattr(self.hint, "__metadata__", ())
        names = [name for meta in metadata if (name := getattr(meta, "metavar", None))]
        name = names[-1] if names else self.path[-1].replace("_", "-").upper()
        return f"{self.options[0]} {name}" if self.options else name

    @property
    def value_type(self) -> Any:
        """Its type without its name and help: how its words alone are read."""
        base, *metadata = get_args(self.hint) if hasattr(self.hint, "__metadata__") else (self.hint,)
        return Annotated[(base, None, *(meta for meta in metadata if not hasattr(meta, "aliases")))]

    @property
    def options(self) -> list[str]:
        """How it is written on the command line; nothing for a positional argument."""
        metadata = getattr(self.hint, "__metadata__", ())
        if tyro.conf.Positional in metadata:
            return []
        name = self.path[-1].replace("_", "-")
        aliases = [alias for meta in metadata for alias in getattr(meta, "aliases", None) or ()]
        return [f"--{name}", *([f"--no-{name}"] if self.is_switch else []), *aliases]


def command_flags(command: type) -> dict[str, Flag]:
    """The flags of a command by name (`batch_size`), those of the settings inside it among them, in order."""
    return {flag.path[-1]: flag for flag in _flags(command, ())}


def _flags(command: type, path: tuple[str, ...]) -> Iterator[Flag]:
    hints = get_type_hints(command, include_extras=True)
    for field in dataclasses.fields(command):
        hint = hints[field.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from _flags(hint, (*path, field.name))
        else:
            yield Flag((*path, field.name), hint, field.default is field.default_factory is MISSING)


def parse(command: type, name: str, words: Sequence[str]) -> Any:
    """The command that `words` and the file of their --config give; a mistake ends the process with code 2."""
    flags = command_flags(command)
    _check_flags(flags, name, words)
    words = _join_repeated(flags, _expand_home(words))
    file = _config_of(words)
    values = {} if file is None else _read_config(file, flags, words)
    _check_complete(flags, name, words, values)
    registry, complaint = _registry(values), io.StringIO()
    try:
        with redirect_stderr(complaint):  # which quotes the words as they are
            return tyro.cli(command, prog=name, args=words, registry=registry, config=(tyro.conf.DisallowNone,))
    finally:
        print(printable(complaint.getvalue()), end="", file=sys.stderr)


def output_folder(command: Any) -> Path | None:
    """The folder of --out; None where that is a file, or where the processes of a job share it."""
    flag = command_flags(type(command)).get("out")
    if flag is None or OUT_FILE in getattr(flag.hint, "__metadata__", ()) or getattr(command, "distributed", False):
        return None
    return reduce(getattr, flag.path, command)


def suggestion(word: str, choices: Iterable[str]) -> str:
    """A question for the nearest of the choices, or nothing where none is near."""
    near = difflib.get_close_matches(word, list(choices), n=1)
    return f" Did you mean {near[0]}?" if near else ""


def _check_flags(flags: Mapping[str, Flag], name: str, words: Sequence[str]) -> None:
    """UserError, with a suggestion, for a word that looks like a flag and is not one of the command."""
    options = [option for flag in flags.values() for option in flag.options] + ["--help"]
    for word in words[: words.index("--")] if "--" in words else words:
        option = word.partition("=")[0].replace("_", "-")
        if option.startswith("--") and option not in options:
            raise UserError(f"{name} has no flag {option}.{suggestion(option, options)} See {name} --help.")


def _check_complete(flags: Mapping[str, Flag], name: str, words: Sequence[str], values: Mapping[str, Any]) -> None:
    """UserError for a flag that is required and absent, and for a word that no flag takes where none is expected."""
    given, free = _split_words(flags, words)
    if given & {"-h", "--help"}:
        return
    positional = [flag for flag in flags.values() if not flag.options]
    required = {key: flag for key, flag in flags.items() if flag.is_required and key not in values}
    absent = [
        flag.spelling
        for flag in required.values()
        if (not given & set(flag.options) if flag.options else flag in positional[len(free) :])
    ]
    hint = f"See {name} --help."
    if len(free) > len(positional) and not any(flag.takes_list for flag in positional):
        others = [f for f in flags.values() if f.options and not f.is_switch and f.path[-1] not in ONE_CALL]
        others = sorted(others, key=lambda flag: flag.path[-1] not in ("model", "out"))[:1]
        named = ", ".join(absent or [flag.spelling for flag in others])
        by_flag = f": say it by a flag, as {named}" if named else ""
        raise UserError(f"{name} does not know what {free[len(positional)]!r} is{by_flag}. {hint}")
    if absent:
        raise UserError(f"{name} needs {', '.join(absent)}. {hint}")


def _split_words(flags: Mapping[str, Flag], words: Sequence[str]) -> tuple[set[str], list[str]]:
    """The options among words, and the words that belong to none."""
    num_words = {option: flag.num_words for flag in flags.values() for option in flag.options}
    end = words.index("--") if "--" in words else len(words)
    given: set[str] = set()
    free: list[str] = []
    taken: float = 0
    for word in words[:end]:
        option, separator, _ = word.partition("=")
        if word.startswith("-") and (option := option.replace("_", "-")) in (*num_words, "-h", "--help"):
            given.add(option)
            taken = 0 if separator else num_words.get(option, 0)
        elif taken:
            taken -= 1
        else:
            free.append(word)
    return given, [*free, *words[end + 1 :]]


def _expand_home(words: Iterable[str]) -> list[str]:
    """`~/` as the home folder: no shell does that in --out=~/run or within quotes, and a folder `~` would be made."""
    home = os.environ.get("HOME", "~")
    return [_HOME.sub(lambda start: start[1] + home, word) for word in words]


def _join_repeated(flags: Mapping[str, Flag], words: Sequence[str]) -> list[str]:
    """`--x a b` for `--x a --x b`, where a flag takes several words: argparse drops all but the last silently."""
    lists = {option for flag in flags.values() if flag.takes_list for option in flag.options}
    end = words.index("--") if "--" in words else len(words)
    values: dict[str, list[str]] = {}
    others: list[str] = []
    current = others
    for word in words[:end]:
        option, separator, value = word.partition("=")
        if (option := option.replace("_", "-")) in lists:
            current = values.setdefault(option, [])
            current += [value] if separator else []
        else:
            current = others if word.startswith("-") else current
            current.append(word)
    return [*others, *(word for option, items in values.items() for word in (option, *items)), *words[end:]]


def _config_of(words: Sequence[str]) -> Path | None:
    """The file that `--config FILE` or `--config=FILE` names."""
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        if word == "--config" and following:
            return Path(following)
        if word.startswith("--config="):
            return Path(word.partition("=")[2])
    return None


def _read_config(file: Path, flags: Mapping[str, Flag], words: Iterable[str]) -> dict[str, Any]:
    """The file's values by name of flag, without those of flags that `words` give.

    UserError names the file and the key that is unknown or of a wrong type.
    """
    try:
        settings = read_toml(file)
    except OSError as error:
        raise UserError(f"--config {file} cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:  # also of text that is not UTF-8, of a number of 5,000 digits
        raise UserError(f"--config {file} is not TOML: {error}.") from None
    given = {word.partition("=")[0].replace("_", "-") for word in words}
    values = {}
    for key, value in settings.items():
        name = key.replace("-", "_")
        if name not in flags or name == "config":
            raise UserError(f"{file}: no flag is named {key!r}.{suggestion(name, flags)}")
        if not given & set(flags[name].options):
            values[name] = _parse_value(file, key, value, flags[name])
    return values


def _parse_value(file: Path, key: str, value: Any, flag: Flag) -> Any:
    """A value of the file as the command line would give it."""
    words = _expand_home(str(item) for item in (value if isinstance(value, list) else [value]))
    try:
        if isinstance(value, dict) or isinstance(value, bool) != flag.is_switch:
            raise SystemExit
        return value if flag.is_switch else tyro.cli(flag.value_type, args=words, console_outputs=False)
    except SystemExit:
        raise UserError(f"{file}: {key} = {json.dumps(value, default=str)} is not a value of this flag.") from None


def _registry(values: Mapping[str, Any]) -> ConstructorRegistry:
    """How tyro reads our dataclasses: flags of the settings inside a command are its own; `values` are defaults.

    Help texts are the docstrings of fields, without their line breaks; empty defaults are left out.
    """
    registry = ConstructorRegistry()

    @registry.struct_rule
    def fields_of(info: StructTypeInfo) -> StructConstructorSpec | None:
        if not dataclasses.is_dataclass(info.type):
            return None
        docs, hints = _field_docs(info.type), get_type_hints(info.type, include_extras=True)
        fields = []
        for field in dataclasses.fields(info.type):
            hint, default = hints[field.name], values.get(field.name, field.default)
            if dataclasses.is_dataclass(hint):
                hint, default = Annotated[hint, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")], MISSING
            elif default in (None, "", ()) or default is False:
                hint = Annotated[hint, tyro.conf.arg(help_behavior_hint="")]
            elif default is MISSING and Flag((field.name,), hint).takes_list:  # for tyro its default is no words
                hint = Annotated[hint, tyro.conf.arg(help_behavior_hint="(required)")]
            if field.name in MODEL_FLAGS:
                hint = Annotated[hint, tyro.conf.arg(metavar="MODEL")]
            default = tyro.MISSING if default is MISSING else default
            fields.append(StructFieldSpec(field.name, cast("type", hint), default, docs.get(field.name)))
        return StructConstructorSpec(info.type, tuple(fields))

    return registry


def _field_docs(kind: type) -> dict[str, str]:
    """The docstring below each field of a class, on one line."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(doc.value.value.split())
        for field, doc in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant) and isinstance(doc.value.value, str)
    }


def write_config(name: str, command: Any) -> None:
    """Write the flags of a command that ran into its --out, as the file that repeats it; `name` is "evaluate probe".

    Empty values are left out. Absolute paths become relative to where the command ran: no home folder is written down.
    """
    values = {
        key: value for key, value in flag_values(command).items() if key not in ONE_CALL and value not in (None, (), "")
    }
    if "out" not in values:
        return
    file = values["out"] / f"{name.replace(' ', '-')}.toml"
    comment = f"# medclip {name} --config {file.name} --out NEW repeats this run of medclip {__version__}."
    write_recorded(file, "".join(f"{line}\n" for line in (comment, *(_line(*item) for item in values.items()))))


def flag_values(command: Any) -> dict[str, Any]:
    """The value of each flag of a command by its name, those of the settings inside it among them."""
    return {name: reduce(getattr, flag.path, command) for name, flag in command_flags(type(command)).items()}


def _line(key: str, value: Any) -> str:
    """A line of a config file; TOML cannot hold a path that is not Unicode."""
    line = f"{key} = {_toml(value)}"
    return line if is_unicode(line) else f"# {key} is not Unicode: give it on the command line."


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    text = str(value)
    return json.dumps(os.path.relpath(text) if Path(text).is_absolute() else text, ensure_ascii=False)

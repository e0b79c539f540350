"""Arguments that several commands take, in one form and with one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from medclip.data.paths import parse_path

Positional = tyro.conf.Positional
arg = tyro.conf.arg

_T = TypeVar("_T")
# --image A --image B: a flag that took all words after it would take the query too
Repeated = Annotated[tuple[_T, ...], tyro.conf.UseAppendAction]


def whole_number(at_least: int) -> PrimitiveConstructorSpec[int]:
    """A whole number from `at_least` on; other words are an error of the command line."""

    def read(words: list[str]) -> int:
        if not words[0].isdecimal() or int(words[0]) < at_least:
            raise ValueError(f"{words[0]!r} is not a whole number from {at_least} on")
        return int(words[0])

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=read,
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    )


# A folder, or the URL of one (a UPath, whose library is imported only then): Path alone makes s3:/bucket of s3://bucket.
path_or_url = PrimitiveConstructorSpec(
    nargs=1,
    metavar="DATA",
    instance_from_str=lambda words: parse_path(words[0]),
    is_instance=lambda value: True,
    str_from_instance=lambda value: [str(value)],
)

_model = arg(metavar="MODEL", help="A model folder, a run, or a model of the Hub: OWNER/NAME or hf-hub:OWNER/NAME.")
_dataset = arg(help="A prepared dataset: a folder or a URL (s3://…, hf://…).")

OUT_FILE = arg(metavar="FILE")
OutFile = Annotated[Path, OUT_FILE]
MaybeOutFile = Annotated[Path | None, OUT_FILE]
Seed = Annotated[int, whole_number(0)]
Data = Annotated[Path, path_or_url, _dataset]
Model = Annotated[str, _model]
MaybeModel = Annotated[str | None, _model]
MaybeData = Annotated[Path | None, path_or_url, _dataset]
Index = Annotated[Path, arg(metavar="INDEX", help="An index folder.")]
IndexModel = Annotated[
    str | None,
    arg(
        metavar="MODEL", help="The model that made the index, where it has moved: as --model of `medclip index build`."
    ),
]
CorrectionsFile = Annotated[
    Path, arg(metavar="FILE", help="What the app's map downloads (docs/map.md): pairs to delete or relabel.")
]
SplitName = Annotated[str | None, arg(metavar="NAME", help="Which split; left out: validation, or the only one.")]
MaxSamples = Annotated[int | None, whole_number(1), arg(help="The first pairs only.")]
Cache = Annotated[
    bool,
    arg(help="Reuse what the model's towers gave before, in any command, and keep it (docs/train.md); same numbers."),
]
OnRay = Annotated[
    bool,
    arg(help="Work on a Ray cluster whose machines see the same folders: at RAY_ADDRESS, or one of this machine."),
]
ConfigFile = Annotated[
    Path | None,
    arg(metavar="FILE.toml", help="Take flags from this file; those of the command line win. See docs/cli.md."),
]


def index_model(model: str | None) -> Path | None:
    """The folder of `--model`, fetched from the Hub where it is there."""
    from medclip.model.checkpoint import model_folder

    return None if model is None else model_folder(model, dual=True)

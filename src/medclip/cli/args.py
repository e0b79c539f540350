"""Kinds of arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from medclip.data.paths import parse_path

Positional = tyro.conf.Positional

_T = TypeVar("_T")
# --image A --image B: a flag that took all that follows it would take the words of a query too
Each = Annotated[tuple[_T, ...], tyro.conf.UseAppendAction]


def _seed(words: list[str]) -> int:
    if not words[0].isdecimal():
        raise ValueError(f"{words[0]!r} is no seed; give a whole number from 0 on")
    return int(words[0])


Seed = Annotated[
    int,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=_seed,
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    ),
]

# A folder, or the URL of one (a UPath, whose library is imported only then): Path alone makes s3:/bucket of s3://bucket.
Data = Annotated[
    Path,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="DATA",
        instance_from_str=lambda words: parse_path(words[0]),
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    ),
]

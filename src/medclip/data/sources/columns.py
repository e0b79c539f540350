"""Which columns of a table hold what: flags of `medclip prepare`, and the names that need none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medclip.data.paths import AnyPath
from medclip.errors import UserError

_USUAL = {
    "image": ("image", "image_path", "filepath", "path", "file", "file_name", "filename", "name"),
    "caption": ("caption", "captions", "text", "title", "report"),
    "id": ("id", "image_id", "key"),
    "group": ("article", "pmcid", "pmc_id", "patient", "patient_id", "subject_id", "study_id", "group"),
    "split": ("split",),
    "license": ("license", "license"),
    "attribution": ("attribution",),
    "concepts": ("concepts", "cuis", "cui"),
}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns of a table hold what, and where its images are; what is None is looked for by its usual names."""

    image_column: str | None = None
    """A table's column of images: paths, from the table's folder on, or (Parquet) their bytes."""
    caption_column: str | None = None
    """A table's column of captions, or of lists of captions."""
    id_column: str | None = None
    """A table's column of ids; without one, the number of the row."""
    group_column: str | None = None
    """A table's column of articles or patients, which no split may share with another."""
    split_column: str | None = None
    """A table's column of splits; without one, a tenth of the groups are validation, by a hash of their names."""
    license_column: str | None = None
    """A table's column of licenses."""
    image_root: str | None = None
    """The folder that a table's paths count from and must not leave; without one, the table's own."""


def resolve_columns(path: AnyPath, there: Sequence[str], columns: Columns) -> dict[str, str]:
    """The table's name of each column it has. UserError where the image or the caption cannot be found."""
    for what in _USUAL:
        asked = getattr(columns, f"{what}_column", None)
        if asked is not None and asked not in there:
            raise UserError(f"{path} has no column {asked!r}; it has: {', '.join(there)}.")
    names = match_columns(there, columns)
    for what in ("image", "caption"):
        if what not in names:
            raise UserError(f"{path}: which column is the {what}? Say so with --{what}-column: {', '.join(there)}.")
    return names


def match_columns(there: Sequence[str], columns: Columns) -> dict[str, str]:
    """The name of each column among `there`: the one asked for, or the first usual one."""
    lower = {name.lower(): name for name in reversed(there)}
    names = {}
    for what, usual in _USUAL.items():
        asked = getattr(columns, f"{what}_column", None)
        name = asked or next((lower[word] for word in usual if word in lower), None)
        if name in there:
            names[what] = name
    return names

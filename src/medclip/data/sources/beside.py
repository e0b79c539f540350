"""What lies beside the captions of ROCO and ROCOv2: tables by id, folders of images."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from medclip.data.paths import AnyPath
from medclip.errors import UserError


def list_names(folder: AnyPath) -> frozenset[str]:
    """The names in a folder, none where it is absent: one listing instead of a question for every image."""
    return frozenset(path.name for path in folder.iterdir()) if folder.is_dir() else frozenset()


def read_lines(path: AnyPath) -> Iterator[str]:
    """The lines of a text file that hold anything. UserError where it is not UTF-8."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as handle:
            yield from (line.rstrip("\r\n") for line in handle if line.strip())
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}). Convert it first.") from None


def read_tsv_by_id(path: AnyPath) -> dict[str, list[str]]:
    """Tab-separated rows by their first column; an absent file is an empty table."""
    if not path.is_file():
        return {}
    rows = (line.split("\t") for line in read_lines(path))
    return {row[0].strip(): [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}


def read_csv_by(path: AnyPath, key: str) -> dict[str, dict[str, str]]:
    """A CSV file by its column `key`, its other columns by their names in lower case; an absent file is empty.

    Raises UserError where the column is not there.
    """
    if not path.is_file():
        return {}
    reader = csv.DictReader(read_lines(path), skipinitialspace=True)
    try:
        names = {name: name.strip().lower() for name in reader.fieldnames or ()}
        if key not in names.values():
            raise UserError(f"{path} has no column {key!r}; its first line reads {reader.fieldnames}.")
        rows = ({names[k]: (v or "").strip() for k, v in row.items() if k in names} for row in reader)
        return {row[key]: row for row in rows}
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num} is no CSV ({error}).") from None

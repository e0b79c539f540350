"""The private map: which DICOM object each id stands for, beside the key and never in a dataset.

An SQLite file named after the key (`key.map`), readable by its owner only, with the table

    origins(id TEXT PRIMARY KEY, study TEXT, series TEXT, instance TEXT, location TEXT)

of every row that a DICOM source gave, also of those that were dropped.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from medclip.data.deidentify import key_path
from medclip.data.schema import NO_ORIGIN, Dropped, Origin, Pair
from medclip.errors import UserError

_COMMIT_EVERY_S = 2.0
_LOCK_TIMEOUT_S = 60.0
_CREATE = (
    "CREATE TABLE IF NOT EXISTS origins(id TEXT PRIMARY KEY, study TEXT, series TEXT, instance TEXT, location TEXT)"
)
_INSERT = (
    "INSERT INTO origins VALUES(?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET "
    "study = excluded.study, series = excluded.series, instance = excluded.instance, location = excluded.location"
)


def map_path(key: Path | None) -> Path:
    """The file of the map: beside the key's file (None: the user's own key)."""
    file = key_path(key)
    return file.with_name(f"{file.name}.map")


def without_origins(rows: Iterable[Pair | Dropped]) -> Iterator[Pair | Dropped]:
    """Rows that hold nothing of where they came from."""
    return (replace(row, origin=NO_ORIGIN) if any(row.origin) else row for row in rows)


def record_origins(rows: Iterable[Pair | Dropped], key: Path | None) -> Iterator[Pair | Dropped]:
    """Rows `without_origins`, each written to the map before; all of them are in the file when the rows end.

    Raises UserError where the file cannot be written.
    """
    path = map_path(key)
    with _errors(path):
        path.touch(0o600)
        path.chmod(0o600)
    with _errors(path), closing(sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S)) as database:
        database.execute(_CREATE)
        last_commit = time.monotonic()
        try:
            for row in rows:
                if any(row.origin):
                    texts = (text.encode("utf-8", "backslashreplace").decode() for text in row.origin)
                    database.execute(_INSERT, (row.id, *texts))
                    row = replace(row, origin=NO_ORIGIN)
                if time.monotonic() - last_commit > _COMMIT_EVERY_S:
                    database.commit()  # other preparations with the same key wait for this
                    last_commit = time.monotonic()
                yield row
        finally:
            database.commit()


def find_origins(ids: Iterable[str], key: Path | None) -> dict[str, Origin | None]:
    """Where the rows of these ids came from; None for an id that the map does not hold. UserError without a map."""
    path = map_path(key)
    if not path.is_file():
        raise UserError(f"{path} does not exist: name the key of the preparation with --pseudonym-key.")
    with _open_to_read(path) as database:
        query = "SELECT study, series, instance, location FROM origins WHERE id = ?"
        rows = ((id, database.execute(query, (id,)).fetchone()) for id in ids)
        return {id: Origin(*row) if row else None for id, row in rows}


def studies_in_order(key: Path | None) -> list[str]:
    """UIDs of the studies in the map, in the order in which they came; none without a map."""
    path = map_path(key)
    if not path.is_file():
        return []
    with _open_to_read(path) as database:
        return [study for (study,) in database.execute("SELECT study FROM origins GROUP BY study ORDER BY min(rowid)")]


@contextmanager
def _open_to_read(path: Path) -> Iterator[sqlite3.Connection]:
    address = f"{path.resolve().as_uri()}?mode=ro"
    with _errors(path), closing(sqlite3.connect(address, uri=True, timeout=_LOCK_TIMEOUT_S)) as database:
        yield database


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, PermissionError, FileNotFoundError) as error:
        raise UserError(
            f"{path}, the private map of the ids, cannot be used ({error}). It lies beside the key: keep that in a "
            "folder of your own that can be written to."
        ) from None

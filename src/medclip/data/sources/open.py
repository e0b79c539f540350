"""What SOURCE means: which reader a folder, a file or a name is for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from medclip.data.pairs import Dropped, Pair
from medclip.data.phantoms import VALIDATION, phantoms
from medclip.data.sources import tables
from medclip.data.sources.columns import Columns
from medclip.data.sources.folders import has_captions_beside, read_folder
from medclip.data.sources.roco import count_roco, is_roco, read_roco
from medclip.data.sources.tables import count_rows, read_table
from medclip.data.sources.tars import read_tars
from medclip.errors import UserError

_KINDS = (
    "a ROCO folder (train/radiology/captions.txt), a folder of pictures with captions beside them (x.jpg, x.txt), a "
    f"table ({', '.join(tables.SUFFIXES)}), WebDataset archives (.tar), or phantoms[:COUNT]"
)


def open_source(source: str, seed: int = 0, columns: Columns | None = None) -> Iterator[Pair | Dropped]:
    """The rows of SOURCE. Raises UserError where it is nothing that can be read."""
    name, _, pairs = source.partition(":")
    if name == "phantoms":
        if pairs and not (pairs.isdecimal() and int(pairs)):
            raise UserError(f"{source}: write phantoms:COUNT, for example phantoms:4000.")
        return phantoms(int(pairs or 4000), seed)
    path, columns = Path(source), columns or Columns()
    if path.is_file() and path.suffix.lower() in tables.SUFFIXES:
        return read_table(path, columns)
    if path.is_file() and path.suffix.lower() == ".tar":
        return read_tars([path])
    if path.is_dir():
        return _open_folder(path)
    raise UserError(f"{source} cannot be read: it is neither {_KINDS}.")


def known_length(source: str, limit: int | None = None) -> int | None:
    """How many rows `open_source` yields, at most `limit` of each split; None where only reading them would tell."""
    name, _, pairs = source.partition(":")
    path = Path(source)
    if name == "phantoms":
        rows = [int(pairs or 4000), VALIDATION]
    elif path.is_dir() and is_roco(path):
        rows = count_roco(path)
    elif path.suffix.lower() == ".parquet" and limit is None:  # whose splits are not known
        return count_rows(path)
    else:
        return None
    return sum(min(n, limit or n) for n in rows)


def _open_folder(folder: Path) -> Iterator[Pair | Dropped]:
    if is_roco(folder):
        return read_roco(folder)
    if archives := sorted(folder.glob("*.tar")) or sorted(folder.glob("data/*.tar")):
        return read_tars(archives)
    if parquets := sorted(folder.glob("data/*.parquet")):
        return chain.from_iterable(read_table(path, Columns()) for path in parquets)
    if has_captions_beside(folder):
        return read_folder(folder)
    raise UserError(f"{folder} cannot be read: it is neither {_KINDS}.")

"""Pairs from what a notebook holds: DataFrames of pandas or polars, datasets of Hugging Face, iterables of pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from medclip.data.normalize import canonical_split
from medclip.data.paths import AnyPath, inside, parse_image_path, parse_path
from medclip.data.prepare_config import Columns
from medclip.data.schema import Dropped, Pair, make_up_id
from medclip.data.sources.table_files import Row
from medclip.data.sources.tables import rows_to_pairs
from medclip.errors import UserError

_FORMS = "a DataFrame, a datasets.Dataset, an iterable of (image, caption) or of dicts, or a dict of splits of these"


def read_memory(source: Iterable[Any], columns: Columns) -> Iterator[Pair | Dropped]:
    """Every row of a value in memory, in order; a row with several captions yields one pair for each.

    `source` is a DataFrame (pandas, polars) or a `datasets.Dataset` with the columns of a table, an iterable of
    (image, caption), of dicts or of `Pair`, or a mapping from names of splits to any of these. An image is a path, a
    URL, encoded bytes, {"bytes", "path"}, a PIL image or a uint8 array. Without an id column, the id is a hash of the
    image (of its path, if it is a file) and its captions; without a group column, the group is that of the image
    alone. The order of rows decides neither. Raises UserError where a column or a row is not as described.
    """
    if isinstance(source, Mapping):
        splits = (_read(rows, columns, canonical_split(str(split))) for split, rows in source.items())
        return chain.from_iterable(splits)
    return _read(source, columns, "")


def _read(source: Iterable[Any], columns: Columns, split: str) -> Iterator[Pair | Dropped]:
    items = _items(source)
    first = next(items, None)
    items = items if first is None else chain([first], items)
    if isinstance(first, Pair | Dropped):
        return items
    root = parse_path(columns.image_root) if columns.image_root else None

    def locate(path: str) -> AnyPath | None:
        return inside(root, path) if root else parse_image_path(path)

    rows = (_row(item, number) for number, item in enumerate(items, start=1))
    return rows_to_pairs(rows, Path(type(source).__name__), columns, lambda _: split, _identify, locate)


def _items(source: Any) -> Iterator[Any]:
    """The rows of any of the kinds. They are recognized by their methods: none of the libraries is imported."""
    if isinstance(source, str | bytes) or not isinstance(source, Iterable):
        raise UserError(f"{type(source).__name__} is not a source of pairs; give {_FORMS}.")
    frame: Any = source
    if hasattr(frame, "iter_rows"):  # polars
        return frame.iter_rows(named=True)
    if hasattr(frame, "itertuples"):  # pandas
        names = [str(name) for name in frame.columns]
        return (dict(zip(names, values, strict=True)) for values in frame.itertuples(index=False, name=None))
    if hasattr(frame, "cast_column"):  # datasets: with images as they are stored, not decoded
        for name, feature in (frame.features or {}).items():
            if getattr(feature, "decode", False):
                frame = frame.cast_column(name, type(feature)(decode=False))
    return iter(frame)


def _row(item: Any, number: int) -> Row:
    if isinstance(item, Mapping):
        return {str(name): value for name, value in item.items()}
    if isinstance(item, tuple | list) and len(item) == 2:
        return {"image": item[0], "caption": item[1]}
    raise UserError(f"row {number} of the source is {type(item).__name__}, not a pair; give {_FORMS}.")


def _identify(image: str | bytes, captions: Sequence[str], id: str) -> tuple[str, str]:
    """The id, or one made up from the content of a row, and a group from its image."""
    return id or make_up_id(image, *captions), make_up_id(image)

"""Reads pairs from tables, with the columns named or found by their usual names."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from itertools import chain, count
from typing import Any

from medclip.data.normalize import HASHED_SPLITS, canonical_split, split_of
from medclip.data.paths import AnyPath, inside, parse_path, path_exists
from medclip.data.schema import Dropped, Pair, take_per_split
from medclip.data.sources.columns import Columns, match_columns, resolve_columns
from medclip.data.sources.pair_fields import extra_fields
from medclip.data.sources.table_files import read_rows

OUTSIDE = "image outside the table's folder (see --image-root)"


def read_tables(
    paths: Sequence[AnyPath], columns: Columns, split: str = "", limit: int | None = None
) -> Iterator[Pair | Dropped]:
    """Every row of the tables, in order; a row with several captions yields one pair for each.

    A row that names no split is of `split`, or of one by a hash where that is "". Without a column of ids, the row's
    number, counted through all tables, is its id; rows in succession with one id and one image are captions of that
    image. No path in a table leads out of its folder, or out of `columns.image_root`. Reading stops when every split
    has `limit` rows; not where a column says the splits, for it may say any. Raises UserError for a file that is not
    whole and for a column that is not there.
    """
    numbers = count(1)
    rows = chain.from_iterable(_read(path, columns, split, numbers) for path in paths)
    if limit and not any("split" in match_columns(list(next(read_rows(path), {})), columns) for path in paths):
        return take_per_split(rows, limit, (split,) if split else HASHED_SPLITS)
    return rows


def _read(path: AnyPath, columns: Columns, split: str, numbers: Iterator[int]) -> Iterator[Pair | Dropped]:
    root = parse_path(columns.image_root) if columns.image_root else path.parent
    start, before, again = None, None, 0
    for nth, (cells, number) in enumerate(zip(_cells(path, columns), numbers, strict=False), start=1):
        held = {what: _text(cells.get(what)) for what in ("id", "group", "split", "license", "attribution")}
        id, image = held["id"] or str(number), _image(cells.get("image"))
        again = again + 1 if (id, image) == before else 0
        before = (id, image)
        named = image if isinstance(image, str) else ""
        here = canonical_split(held["split"]) or split or split_of(held["group"] or named or id)
        if named:
            start = start or _start(named, root, path.parent)
            image = inside(root, named, start)
        captions = [caption for caption in map(_text, _listed(cells.get("caption"))) if caption]
        if not image or not captions:
            why = OUTSIDE if image is None else "row without image or caption"
            yield Dropped(id, here, why, f"{path.name} row {nth}")
            continue
        for one, caption in enumerate(captions):
            yield Pair(
                id="-".join((id, *[str(again)] * (again > 0), *[str(one)] * (len(captions) > 1))),
                image=image,
                caption=caption,
                split=here,
                article=held["group"] or id,
                license=held["license"],
                attribution=held["attribution"],
                concepts=_several(cells.get("concepts")),
                **{"source": path.stem} | cells["known"],
            )


def _cells(path: AnyPath, columns: Columns) -> Iterator[dict[str, Any]]:
    """What a row holds under the names of `Columns`, and under "known" what else it says in our own form."""
    keys, names = None, {}
    for row in read_rows(path):
        if row.keys() != keys:
            # Lines of JSON may leave out what they do not know; the first says what the columns are.
            names = resolve_columns(path, list(row), columns) if keys is None else match_columns(list(row), columns)
            keys = row.keys()
        cells = {what: row[name] for what, name in names.items()} | {"known": extra_fields(row)}
        if names.get("image") == "image_path":
            cells["caption"] = [_unwrapped(_text(caption)) for caption in _listed(cells.get("caption"))]
        yield cells


def _start(name: str, root: AnyPath, folder: AnyPath) -> AnyPath | None:
    """Where the paths of a table count from, if that can be seen by this one; asked until it can be."""
    starts = (root, root / "images", folder)
    seen = (start for start in starts if (there := inside(root, name, start)) is not None and path_exists(there))
    return next(seen, None)


def _image(value: Any) -> str | bytes:
    """A name or bytes, out of the {"bytes", "path"} in which Hugging Face keeps either; "" for neither."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    return value if isinstance(value, bytes) and value else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None or value != value else str(value)  # NaN is not itself


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _several(value: Any) -> tuple[str, ...]:
    if isinstance(value, list):
        return tuple(map(str, value))
    return tuple(_text(value).replace(";", " ").replace(",", " ").split())


def _unwrapped(caption: str) -> str:
    """A caption that the founding project wrote as the text of Python bytes (`b' axial …'`), as it was before."""
    if caption[:2] not in ("b'", 'b"') or caption[-1:] != caption[1]:
        return caption
    try:
        return ast.literal_eval(caption).decode()
    except (ValueError, SyntaxError):
        return caption

"""Pairs from tables: which columns hold what, and the rows read with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, TypedDict

import numpy as np

from medclip.data.normalize import HASHED_SPLITS, canonical_split, split_of
from medclip.data.paths import AnyPath, is_url, parse_path
from medclip.data.prepare_config import Columns
from medclip.data.schema import Dropped, Pair, is_row_number, make_up_id, take_per_split
from medclip.data.sources import dialogues
from medclip.data.sources.image_caption_folder import IMAGE_SUFFIXES
from medclip.data.sources.image_cells import (
    MISSING,
    ImageFinder,
    UsedFiles,
    cell_images,
    cell_text,
    find_image,
    parse_literal,
)
from medclip.data.sources.path_spellings import TRIED
from medclip.data.sources.reports import split_reading
from medclip.data.sources.stated_groups import (
    article_of_file,
    names_people,
    private_fields,
    stated_group,
    without_fraction,
)
from medclip.data.sources.stated_splits import SplitFolders, find_split_column, plain_name
from medclip.data.sources.table_files import Row, read_rows, table_suffix
from medclip.errors import ImageError, UserError
from medclip.hosts import without_credentials

NO_IMAGE_OR_CAPTION = "row without image or caption"
_COLUMN_NAMES = {
    "image": (
        *("image", "images", "img", "imagepath", "imgpath", "imagefile", "imagefilename", "imagename"),
        *("imagesfilename", "imagefilenames", "imagesfilenames", "filepath", "path", "file", "filename", "filenames"),
        "name",
    ),
    "caption": ("caption", "captions", "text", "report", "title", *dialogues.COLUMNS),
    "id": ("id", "imageid", "key"),
    "split": ("split",),
    "license": ("licence", "license"),  # both spellings occur in other people's tables
    "attribution": ("attribution",),
    "concepts": ("concepts", "cuis", "cui"),
}
"""Column names that need no flag, by what they hold, the first present one wins; see `plain_name`."""
_STARTS = ('["', "['", "[{", '{"', "{'")
"""Of the text of a list or an object."""
_TEXT_NAMES = ("caption", "captions", "text", "raw", "sentence", "sentences")


class ExtraFields(TypedDict):
    """Fields of a Pair besides image, caption and group, as the exchange forms of `medclip export` hold them."""

    keywords: tuple[str, ...]
    semantic_types: tuple[str, ...]
    labels: Mapping[str, str]
    source: str


def read_tables(
    paths: Sequence[AnyPath],
    columns: Columns,
    used: UsedFiles,
    split: str = "",
    max_samples: int | None = None,
) -> Iterator[Pair | Dropped]:
    """Every row of the tables, in order; a row with several captions yields one pair for each.

    A row that names no split belongs to `split` or, where that is "", to that of its image's folder (SplitFolders) or
    of a hash. Without an id column, an id is made up from the table's name, the image and its captions
    (see `make_up_id`), and where ids are row numbers the group is, from the image; consecutive rows with one id and one
    image are captions of that image. Paths never leave the table's folder or `columns.image_root`. Reading stops when
    every split has `max_samples` rows, unless a row states its split, for the last row may state a new one. Raises
    UserError for a damaged file and for an absent column.
    """
    image_root = parse_path(columns.image_root) if columns.image_root else None

    def read_table(path: AnyPath) -> Iterator[Pair | Dropped]:
        used.add(path)
        origin = (path.absolute().parent.name, path.name)

        def identify(image: str | bytes, captions: Sequence[str], id: str) -> tuple[str, str]:
            group = "" if id and not is_row_number(id) else make_up_id(*origin, image)
            return id or make_up_id(*origin, image, *captions), group

        locate = ImageFinder(path.parent, image_root, used)
        tried = "" if is_url(path) else TRIED
        return rows_to_pairs(read_rows(path), path, columns, split_of_path(path), identify, locate, tried)

    def split_of_path(path: AnyPath) -> Callable[[str], str]:
        root = image_root or path.parent
        return (lambda _: split) if split else SplitFolders(root, root / "images", path.parent).split_of

    def states_split(path: AnyPath) -> bool:
        row = next(read_rows(path), {})
        names = match_row(row, columns)
        image = row.get(names.get("image", ""))
        return "split" in names or (not split and isinstance(image, str) and split_of_path(path)(image) != "")

    rows = chain.from_iterable(map(read_table, paths))
    if max_samples and not any(map(states_split, paths)):
        return take_per_split(rows, max_samples, (split,) if split else HASHED_SPLITS)
    return rows


def resolve_columns(path: AnyPath, header: Sequence[str], columns: Columns) -> dict[str, str]:
    """The table's name for each column it has. Raises UserError where the image or the caption cannot be located."""
    for name in (*_column_flags(columns).values(), *columns.caption_column, *columns.label_column):
        if name is not None and name not in header:
            raise UserError(f"{path} has no column {name!r}; it has: {', '.join(header)}.")
    if private := next(filter(names_people, columns.label_column), None):
        raise UserError(
            f"--label-column {private}: a label is stored as it is, and such a column names patients, people or dates. "
            "Leave it out, or give it another name if it does not."
        )
    names = match_columns(header, columns)
    for field in ("image", "caption"):
        if field not in names:
            raise _column_error(path, field, header)
    return names


def _column_error(path: AnyPath, field: str, header: Sequence[str]) -> UserError:
    row = next((name for name in header if PurePosixPath(name.strip().lower()).suffix in IMAGE_SUFFIXES), "")
    if row and table_suffix(path) in (".csv", ".tsv"):
        return UserError(
            f"{path}: its first line ({row}) is a row, not the names of the columns. Put a line of names above it, "
            "such as image,caption."
        )
    names = [name for name in header if name.strip()]
    if len(names) < 2 and table_suffix(path) in (".csv", ".tsv"):
        return UserError(
            f"{path}: its first line ({', '.join(names)}) names one column. Delete the lines above the names of the "
            "columns, and separate cells by commas, semicolons, tabs or bars."
        )
    return UserError(f"{path}: which column is the {field}? Name it with --{field}-column: {', '.join(names)}.")


def match_row(row: Row, columns: Columns | None = None) -> dict[str, str]:
    """As `match_columns`; of the first row of a table, also a column of another name that holds splits."""
    other = find_split_column(row)
    return ({"split": other} if other else {}) | match_columns(list(row), columns)


def match_columns(header: Sequence[str], columns: Columns | None = None) -> dict[str, str]:
    """The name of each column in `header`: the requested one, or the first usual one."""
    requested = _column_flags(columns or Columns())
    by_plain_name = {plain_name(name): name for name in reversed(header)}
    names = {}
    for field, usual in _COLUMN_NAMES.items():
        name = requested.get(field) or next((by_plain_name[word] for word in usual if word in by_plain_name), None)
        if name is not None and name in header:
            names[field] = name
    return names


def _column_flags(columns: Columns) -> dict[str, str | None]:
    return {
        "image": columns.image_column,
        "caption": next(iter(columns.caption_column), None),
        "id": columns.id_column,
        "group": columns.group_column,
        "split": columns.split_column,
        "license": columns.license_column,
    }


def extra_fields(row: Mapping[str, Any], source: str) -> ExtraFields:
    """The extra fields of `row` that have medclip's own form; other forms are ignored. `source` is the default."""
    return {
        "keywords": as_strings(row.get("keywords")),
        "semantic_types": as_strings(row.get("semantic_types")),
        "labels": _labels(row.get("labels")),
        "source": row["source"] if isinstance(row.get("source"), str) else source,
    }


def _with_labels(fields: ExtraFields, row: Row, names: Sequence[str]) -> ExtraFields:
    """The fields with the cells of the columns `names` as labels; an empty cell is none."""
    values = {name: label_values(row.get(name)) for name in names}
    return {**fields, "labels": {**fields["labels"], **{name: value for name, value in values.items() if value}}}


def label_values(cell: Any) -> str:
    """The values of a cell, separated by semicolons as everywhere here: some tables have bars, PadChest Python's lists.

    Each value of a list has a semicolon, a single one too: the image could have several.
    """
    if isinstance(cell, list | tuple | np.ndarray):
        return "".join(f"{cell_text(value).strip()};" for value in cell) or ";"
    text = cell_text(cell).strip()
    if text.startswith("[") and text.endswith("]"):
        with suppress(ValueError):
            if (values := as_strings(parse_literal(text))) or text == "[]":
                return label_values(values)
    return ";".join(without_fraction(value.strip()) for value in text.replace("|", ";").split(";"))


def as_strings(value: Any) -> tuple[str, ...]:
    """A list of strings as a tuple; anything else is empty."""
    return tuple(value) if isinstance(value, list) and all(isinstance(text, str) for text in value) else ()


def _labels(value: Any) -> dict[str, str]:
    """From {name: value} or, where a format has no maps, [{"name": name, "value": value}]."""
    if isinstance(value, list) and all(
        isinstance(item, Mapping) and {"name", "value"} == item.keys() for item in value
    ):
        value = {item["name"]: item["value"] for item in value}
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in (*value, *value.values())):
        return {}
    return dict(value)


def rows_to_pairs(
    rows: Iterable[Row],
    table: AnyPath,
    columns: Columns,
    split_of_path: Callable[[str], str],
    identify: Callable[[str | bytes, Sequence[str], str], tuple[str, str]],
    locate: Callable[[str], AnyPath | bytes | None],
    tried: str = "",
) -> Iterator[Pair | Dropped]:
    """A pair for each caption of each row.

    `table` names the rows in messages; `split_of_path` gives the split of a row that states none by the path of its
    image, "": by a hash. `identify` gives id and default group of a row from its image, its captions and the id that it
    states (""); `locate` the file of a path, None where that is not allowed, and `tried` what it tries.
    """
    previous, repeats = None, 0
    for row_number, (row, cells) in enumerate(_read_cells(rows, table, columns), start=1):
        try:
            images, reason = cell_images(cells.get("image")), NO_IMAGE_OR_CAPTION
        except ImageError as error:
            images, reason = [], str(error)
        readings = [split_reading(report) for report in cell_captions(cells.get("caption"))]
        captions = [caption for caption, _ in readings]
        first = images[0] if images else ""
        file = first if isinstance(first, str) else ""
        id, default_group = identify(first, captions, cell_text(cells.get("id")))
        group = stated_group(row, columns.group_column) or article_of_file(file)
        repeats = repeats + 1 if (id, first) == previous else 0
        previous, private = (id, first), private_fields(row, columns)
        row_split = canonical_split(cell_text(cells.get("split"))) or split_of_path(file)
        row_split = row_split or split_of(group or file or default_group or id)
        article, detail = group or default_group or id, f"{table.name} row {row_number}"
        if not images or not captions:
            for cell in images:
                find_image(locate, cell)  # its file is not one that no row names
            yield Dropped(id, row_split, reason, detail, **private)
            continue
        id += f"-{repeats}" if repeats else ""
        for position, cell in enumerate(images):
            image_id = id + (f"-{position}" if len(images) > 1 else "")
            image = find_image(locate, cell)
            if_missing = f"{detail}: {without_credentials(cell)}; {tried}" if tried and isinstance(cell, str) else ""
            if isinstance(image, str):
                yield Dropped(image_id, row_split, image, if_missing if image == MISSING else detail, **private)
                continue
            for index, (caption, removed) in enumerate(readings):
                yield Pair(
                    id=image_id + (f"-{index}" if len(captions) > 1 else ""),
                    image=image,
                    caption=caption,
                    split=row_split,
                    article=article,
                    license=cell_text(cells.get("license")),
                    attribution=cell_text(cells.get("attribution")),
                    concepts=_concepts(cells.get("concepts")),
                    removed=removed,
                    if_missing=if_missing,
                    **private,
                    **_with_labels(extra_fields(row, table.stem), row, columns.label_column),
                )


def _read_cells(rows: Iterable[Row], table: AnyPath, columns: Columns) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Each row as written, and its cells by what they hold."""
    keys, names, other_split = None, dict[str, str](), None
    for row in rows:
        if row.keys() != keys:
            # JSON lines may leave out what they do not know; the first line decides what the columns are.
            other_split = find_split_column(row) if keys is None else other_split
            names = resolve_columns(table, list(row), columns) if keys is None else match_columns(list(row), columns)
            if other_split in row:
                names.setdefault("split", other_split)
            keys = row.keys()
        cells = {field: row[name] for field, name in names.items()}
        if len(columns.caption_column) > 1:
            parts = (caption for name in columns.caption_column for caption in cell_captions(row.get(name)))
            cells["caption"] = "\n".join(part for part in parts if part.strip())
        if names.get("image") == "image_path":
            cells["caption"] = [_unwrap_bytes(cell_text(caption)) for caption in _as_list(cells.get("caption"))]
        yield row, cells


def cell_captions(value: Any) -> list[str]:
    """The texts of a cell: a text, a list of texts, or one written as JSON; empty ones are left out.

    Of an object, as COCO and Flickr30k have them, the text under its usual name; of another, as {"findings",
    "impression"} or {"short", "long"}, each text; of a dialogue, each answer. One that is nested deeper than Python
    recurses has none.
    """
    try:
        return _texts(value)
    except RecursionError:
        return []


def _texts(value: Any) -> list[str]:
    if isinstance(value, str) and value[:2] in _STARTS and value[-1] == {"[": "]", "{": "}"}[value[0]]:
        value = _parse_cell(value)
    if isinstance(value, Mapping):
        texts = {name: _texts(item) for name, item in value.items()}  # each once: objects may be nested
        usual = next((texts[name] for name in _TEXT_NAMES if texts.get(name)), None)
        return list(chain.from_iterable(texts.values())) if usual is None else usual
    if isinstance(value, list | tuple | np.ndarray):
        answers = dialogues.answers(value)
        return [text for item in (value if answers is None else answers) for text in _texts(item)]
    return [text] if (text := cell_text(value)) else []


def _parse_cell(text: str) -> Any:
    """A list of texts or of objects, or an object, that a table's cell holds as JSON or as Python writes it.

    Another text stays.
    """
    try:
        value = _parse_json_or_literal(text)
    except ValueError:
        return text
    items = value if isinstance(value, list) else [value]
    kinds = (str, Mapping) if isinstance(value, list) else (Mapping,)
    return value if any(all(isinstance(item, kind) for item in items) for kind in kinds) else text


def _parse_json_or_literal(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return parse_literal(text)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple | np.ndarray) else [value]


def _concepts(value: Any) -> tuple[str, ...]:
    if isinstance(value, list | tuple | np.ndarray):
        return tuple(map(str, value))
    return tuple(cell_text(value).replace(";", " ").replace(",", " ").split())


def _unwrap_bytes(caption: str) -> str:
    """The original of a caption that the founding project stored as the text of Python bytes (`b' axial …'`)."""
    if caption[:2] not in ("b'", 'b"') or caption[-1:] != caption[1]:
        return caption
    try:
        value = parse_literal(caption)
        return value.decode() if isinstance(value, bytes) else caption
    except ValueError:
        return caption

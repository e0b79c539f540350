"""Rows of a JSON file that is one object: COCO, a table of pandas, rows by their ids, captions by their images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

Row = dict[str, Any]
_TABLE_NAMES = ("data", "rows", "records", "items", "samples", "examples", "entries", "annotations", "dataset")
_ROW_NAMES = {"image", "images", "caption", "captions", "text", "report"}


def document_rows(document: Row) -> Iterator[Row]:
    """The rows of an object; the object itself where it has none of the known forms."""
    values = list(document.values())
    table = next((document[name] for name in _TABLE_NAMES if _are_objects(document.get(name))), None)
    if _are_objects(document.get("images")) and _are_objects(document.get("annotations")):
        yield from _coco_rows(document)
    elif table is not None:
        yield from table
    elif _is_split(document):
        yield from (dict(zip(document["columns"], row, strict=True)) for row in document["data"])
    elif values and all(isinstance(value, Mapping) for value in values):
        yield from _nested_rows(document)
    elif values and all(map(_is_image_name, document)) and all(isinstance(value, str | list) for value in values):
        yield from ({"image": name, "caption": captions} for name, captions in document.items())
    else:
        yield document


def _coco_rows(document: Row) -> Iterator[Row]:
    """A row for each image with all of its captions, then one for each caption of an image that is not listed.

    https://cocodataset.org/#format-data
    """
    captions: dict[Any, list[Any]] = {}
    for annotation in document["annotations"]:
        captions.setdefault(annotation.get("image_id"), []).append(annotation.get("caption"))
    licenses = document.get("licenses")
    items = licenses if isinstance(licenses, list) and _are_objects(licenses) else []
    names = {item.get("id"): item.get("name") for item in items}
    for image in document["images"]:
        row = {**image, "caption": captions.pop(image.get("id"), [])}
        if "license" in image:
            row["license"] = names.get(image["license"], "")
        yield row
    for texts in captions.values():
        yield {"file_name": None, "caption": texts}


def _nested_rows(document: Mapping[str, Mapping[str, Any]]) -> Iterator[Row]:
    """Of {column: {"0": cell, …}}, as pandas writes a table, or of {id: row}."""
    numbers = list(dict.fromkeys(name for cells in document.values() for name in cells))
    if numbers and all(map(str.isdecimal, numbers)):
        yield from ({column: cells.get(number) for column, cells in document.items()} for number in numbers)
    elif _ROW_NAMES & document.keys():  # one row, whose cells are objects
        yield dict(document)
    else:
        yield from ({"id": id, **row} for id, row in document.items())


def _is_split(document: Row) -> bool:
    """Whether it is {"columns": [name, …], "data": [[cell, …], …]}, as pandas writes a table with orient="split"."""
    names, rows = document.get("columns"), document.get("data")
    return (
        isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and isinstance(rows, list)
        and all(isinstance(row, list) and len(row) == len(names) for row in rows)
    )


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _is_image_name(name: str) -> bool:
    return 1 < len(PurePosixPath(name).suffix) < 7

"""Published tables whose columns are their own: R2Gen's annotation.json, PadChest's CSV, MedICaT's JSON lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from medclip.data.normalize import SPLITS, canonical_split, split_of
from medclip.data.paths import AnyPath, check_link, is_url, parse_path, special_kind
from medclip.data.prepare_config import Columns
from medclip.data.schema import Dropped, Pair, is_row_number, make_up_id
from medclip.data.sources.image_cells import MISSING, ImageFinder, UsedFiles, find_image, parse_literal
from medclip.data.sources.path_spellings import TRIED
from medclip.data.sources.reports import split_reading
from medclip.data.sources.stated_groups import private_fields, stated_group
from medclip.data.sources.table_files import Row, load_json, read_document, read_rows, table_suffix
from medclip.data.sources.tables import NO_IMAGE_OR_CAPTION, cell_captions, match_columns
from medclip.errors import UserError
from medclip.hosts import without_credentials

_CUI = re.compile(r"C\d{7}")
_IMAGE_FOLDERS = ("images", "files", "figures")

Reader = Callable[[AnyPath, Columns, UsedFiles], Iterator[Pair | Dropped]]


def find_published(path: AnyPath) -> tuple[AnyPath, Reader] | None:
    """The published table at `path`, or directly in the folder `path`, with its reader; None where there is none."""
    if path.is_dir():
        tables = (file for file in sorted(path.iterdir(), key=str) if _may_be_published(file))
        published = (table for file in tables if (table := find_published(check_link(file, path))))
        return next(published, None)
    suffix = table_suffix(path)
    if suffix == ".json":
        return (path, read_annotations) if _is_annotations(path) else None
    if suffix not in (".csv", ".jsonl"):
        return None
    try:
        columns = next(read_rows(path), {}).keys()
    except UserError:
        return None
    if {"ImageID", "ImageDir", "Report"} <= columns:
        return path, read_padchest
    return (path, read_medicat) if {"pdf_hash", "fig_uri"} <= columns else None


def _may_be_published(path: AnyPath) -> bool:
    return table_suffix(path) in (".csv", ".jsonl") or path.name in ("annotation.json", "annotations.json")


def _is_annotations(path: AnyPath) -> bool:
    """Whether a JSON file is one object whose first name is that of a split, its value a list."""
    if special_kind(path):
        return False
    with path.open("rb") as file:
        match = re.match(rb'(?:\xef\xbb\xbf)?\s*\{\s*"(\w+)"\s*:\s*\[\s*[{\]]', file.read(4096))
    return match is not None and canonical_split(match.group(1).decode()) in SPLITS


def read_annotations(path: AnyPath, columns: Columns, used: UsedFiles) -> Iterator[Pair | Dropped]:
    """Every image of {"train": [{"id", "report", "image_path": [...]}, …], "val": …}: a pair each, a group a report.

    A row may state a patient or study (subject_id), which is its group then. Raises UserError for other JSON.
    """
    locate = _image_finder(path, columns, used)
    for row in read_document(_annotation_rows, path):
        yield from _read_annotation(path, columns, locate, **row)


def _annotation_rows(path: AnyPath) -> Iterator[Row]:
    """Each row with its split and its number in that."""
    try:
        splits = load_json(path)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged and cannot be read as JSON ({error}). Fetch it again.") from None
    for split, rows in splits.items():
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(f"{path}: {split!r} is not a list of objects, as a split is.")
        yield from ({"split": split, "number": number, "row": row} for number, row in enumerate(rows, start=1))


def _read_annotation(
    path: AnyPath, columns: Columns, locate: ImageFinder, split: str, number: int, row: Row
) -> Iterator[Pair | Dropped]:
    names = match_columns(list(row), columns)
    images = row.get(names.get("image", "images"))
    images = [image for image in (images if isinstance(images, list) else [images]) if isinstance(image, str) and image]
    captions = _captions(row, columns, names.get("caption", "report"))
    if not captions and not columns.caption_column:
        captions = _captions(row, Columns(caption_column=("findings", "impression")), "")
    made_up = make_up_id(path.name, *images, *captions)
    id = str(row.get(names.get("id", "id")) or made_up)
    group = stated_group(row, columns.group_column) or (made_up if is_row_number(id) else id)
    split, private = canonical_split(split), private_fields(row, columns)
    if not images or not captions:
        for image in images:
            find_image(locate, image)
        yield Dropped(id, split, NO_IMAGE_OR_CAPTION, f"{path.name} {split} row {number}", **private)
    for index, image in enumerate(images if captions else ()):
        image_id = f"{id}-{index}" if len(images) > 1 else id
        yield from _pairs(
            path, locate, image_id, (image,), captions, split=split, article=group, **private, source=path.stem
        )


def read_padchest(path: AnyPath, columns: Columns, used: UsedFiles) -> Iterator[Pair | Dropped]:
    """Every row of PadChest's table: the image ImageDir/ImageID with its Spanish report; a patient is a group.

    Labels are the values of the label `findings`, separated by semicolons, and the projection that of `view`.
    """
    locate = _image_finder(path, columns, used)
    for number, row in enumerate(read_rows(path), start=1):
        name, patient = (row["ImageID"] or "").strip(), (row.get("PatientID") or "").strip()
        group = patient or (row.get("StudyID") or "").strip() or name
        private = private_fields(row, columns)
        captions = _captions(row, columns, "Report")
        names = (f"{row['ImageDir'] or ''}/{name}".lstrip("/"), name) if name else ()
        if not name or not captions:
            find_image(locate, *names)
            yield Dropped(name, split_of(group), NO_IMAGE_OR_CAPTION, f"{path.name} row {number}", **private)
            continue
        findings = "; ".join(_parse_list(row.get("Labels")))
        labels = {"findings": findings, "view": (row.get("Projection") or "").strip()}
        yield from _pairs(
            path,
            locate,
            name.rpartition(".")[0] or name,
            names,
            captions,
            split=split_of(group),
            article=group,
            labels={label: value for label, value in labels.items() if value},
            concepts=tuple(dict.fromkeys(_CUI.findall(row.get("LabelCUIS") or row.get("labelCUIS") or ""))),
            source="PadChest",
            **private,
        )


def _parse_list(cell: str | None) -> list[str]:
    """The texts of "['pleural effusion', 'cardiomegaly']"; none for a cell that is not a list."""
    try:
        items = parse_literal(cell or "")
    except ValueError:
        return []
    names = (str(item).strip() for item in items if item) if isinstance(items, list) else ()
    return list(dict.fromkeys(filter(None, names)))


def read_medicat(path: AnyPath, columns: Columns, used: UsedFiles) -> Iterator[Pair | Dropped]:
    """Every figure of MedICaT, figures/PDF_HASH_FIG_URI, with its caption; an article is a group.

    The sentences that refer to a figure are joined to its caption by --caption-column s2_caption s2orc_references.
    """
    locate = _image_finder(path, columns, used)
    for number, row in enumerate(read_rows(path), start=1):
        article, figure = str(row.get("pdf_hash") or ""), str(row.get("fig_uri") or "")
        id = f"{article}_{figure.rpartition('.')[0] or figure}"
        captions = _captions(row, columns, "s2_caption") or _captions(row, columns, "s2orc_caption")
        if not article or not figure or not captions:
            find_image(locate, f"{article}_{figure}")
            yield Dropped(id, split_of(article), NO_IMAGE_OR_CAPTION, f"{path.name} row {number}")
            continue
        terms = _mapping(row.get("oa_info"))
        access = _mapping(terms.get("oa"))
        yield from _pairs(
            path,
            locate,
            id,
            (f"{article}_{figure}",),
            captions,
            split=split_of(article),
            article=article,
            license=str(access.get("license") or ""),
            attribution=str(terms.get("doi_url") or terms.get("doi") or ""),
            source="MedICaT",
        )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _captions(row: Row, columns: Columns, name: str) -> list[str]:
    """The captions of a row in its column `name`, or in those of --caption-column, joined."""
    texts = [text for column in columns.caption_column or (name,) for text in cell_captions(row.get(column))]
    texts = [text for text in texts if text.strip()]
    return ["\n".join(texts)] if texts and len(columns.caption_column) > 1 else texts


def _image_finder(table: AnyPath, columns: Columns, used: UsedFiles) -> ImageFinder:
    used.add(table)
    root = parse_path(columns.image_root) if columns.image_root else None
    return ImageFinder(root or table.parent, root, used, _IMAGE_FOLDERS)


def _pairs(
    table: AnyPath, locate: ImageFinder, id: str, names: tuple[str, ...], captions: list[str], **fields: Any
) -> Iterator[Pair | Dropped]:
    """A pair for each caption of the image that the first of `names` has below the table's folder."""
    image = find_image(locate, *names)
    if_missing = "" if is_url(table) else f"{table.name}: {without_credentials(names[0])}; {TRIED}"
    if isinstance(image, str):
        detail = if_missing if image == MISSING else table.name
        yield Dropped(id, fields["split"], image, detail, fields.get("private", ()), fields.get("identifying", ()))
        return
    for index, (caption, removed) in enumerate(map(split_reading, captions)):
        yield Pair(
            id=f"{id}-{index}" if len(captions) > 1 else id,
            image=image,
            caption=caption,
            removed=removed,
            if_missing=if_missing,
            **fields,
        )

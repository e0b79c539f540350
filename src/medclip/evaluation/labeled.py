"""Images with class labels: of a prepared dataset, of a table beside images, or of a folder for each class."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from medclip.atomic_io import sha256
from medclip.data.dataset import Split, default_split, read_dataset
from medclip.data.normalize import SPLITS, canonical_split, split_of
from medclip.data.paths import AnyPath, check_link, fold_name, inside, is_url, parse_path, path_exists
from medclip.data.sources.image_caption_folder import list_images
from medclip.data.sources.labeled_sets import (
    FINDINGS,
    SOURCES,
    UNCERTAIN,
    LabeledImage,
    find_labeled_set,
    read_findings,
    refuse_link,
)
from medclip.data.sources.stated_groups import stated_group
from medclip.data.sources.table_files import read_rows
from medclip.data.sources.tables import label_values, match_row
from medclip.errors import UserError
from medclip.evaluation.config import EvalConfig, LabelConfig
from medclip.prompts import class_key

LOG = logging.getLogger("medclip.evaluation")
LABELS_FILE = "labels.csv"
NO_CLASSES = {"-1", "-1.0", "u", "uncertain", "nan", "na", "n/a", "<na>", "null"}
"""What tables write, by `fold_name`, where a label is uncertain or absent."""
CONTRADICTORY = "other labels in another row (several of one image are joined by ;)"
_LABEL_REMEDY = (
    "Name the one to evaluate with --label, or with --classes columns of findings, which hold 1, 0, -1 (uncertain) or "
    "nothing."
)
FORMS = (
    f"a prepared dataset, a folder with {LABELS_FILE} (file,label[,split][,article]) beside its images, {SOURCES}, or "
    "one with a folder of images for each class"
)


@dataclass(frozen=True)
class Labeled:
    """Images with labels, in the order of their source, and how many of its rows are excluded, by reason."""

    rows: tuple[LabeledImage, ...]
    name: str
    """The split; "all" where the source has none."""
    label: str
    dataset: Mapping[str, Any]
    """`source` and `synthetic`, as in a prepared dataset."""
    excluded: Mapping[str, int] = dataclasses.field(default_factory=dict)
    allows_several: bool = False
    """Whether the source's images can have several values, even where these have not."""
    excluded_several: bool = False
    """Whether an excluded row had several values: an empty value means the same whichever rows are left."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    @cached_property
    def multilabel(self) -> bool:
        """Whether an image can have several values, separated by semicolons; an empty one then means none of them."""
        return self.allows_several or self.excluded_several or any(";" in (row.value or "") for row in self.rows)

    @cached_property
    def labels(self) -> list[tuple[str, ...]]:
        """The values of each image."""
        return [tuple(dict.fromkeys(filter(None, map(str.strip, (row.value or "").split(";"))))) for row in self.rows]

    @cached_property
    def classes(self) -> list[str]:
        """Every value that occurs, sorted."""
        return sorted({value for values in self.labels for value in values})

    @property
    def articles(self) -> list[str]:
        """Article, patient or file of each image."""
        return [row.article for row in self.rows]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over ids, labels and images in order, wherever they came from."""
        digest = hashlib.sha256()
        for row in self.rows:
            image = hashlib.sha256(row.image).hexdigest() if isinstance(row.image, bytes) else sha256(row.image)
            digest.update(json.dumps([row.id, row.value, image]).encode())
        return digest.hexdigest()

    def exclude(self, reason: Callable[[int], str | None]) -> Labeled:
        """Without the rows, by number, that have a reason to be excluded; these are counted by it."""
        reasons = [reason(i) for i in range(len(self))]
        excluded = Counter(self.excluded) + Counter(filter(None, reasons))
        rows = tuple(row for row, why in zip(self.rows, reasons, strict=True) if not why)
        return dataclasses.replace(self, rows=rows, excluded=dict(excluded), excluded_several=self.multilabel)


def labeled_rows(config: EvalConfig, labels: LabelConfig) -> Labeled:
    """The labeled images of the split to evaluate: validation, else test, else all."""
    data = _parse_data(config)
    if _is_prepared(data):
        images = _read_prepared(data, config.split or default_split(data), config.max_samples, labels)
        return _with_one_spelling(images)[0]
    (images,) = _with_one_spelling(_read_folder(data, labels))
    names = {row.split for row in images.rows}
    split = _evaluation_split(config, names)
    return _select(images, {split} if split else names, split or "all", config, labels)


def probe_rows(config: EvalConfig, labels: LabelConfig) -> tuple[Labeled, Labeled]:
    """Labeled images to train on (the split train) and to evaluate on, which share no article.

    Where the source has no splits, a tenth of the articles is evaluated on, by a hash of their names.
    """
    data = _parse_data(config)
    if _is_prepared(data):
        test = _read_prepared(data, config.split or default_split(data), config.max_samples, labels)
        train = _read_prepared(data, "train", config.max_samples, labels)
    else:
        images = _read_folder(data, labels)
        if not any(row.split for row in images.rows):
            rows = tuple(dataclasses.replace(row, split=split_of(row.article)) for row in images.rows)
            images = dataclasses.replace(images, rows=rows)
        split = _evaluation_split(config, {row.split for row in images.rows}) or "validation"
        test = _select(images, {split}, split, config, labels)
        train = _select(images, {"train"}, "train", config, labels)
    test, train = (_single_valued(images, config, labels) for images in _with_one_spelling(test, train))
    if test.name == "train":
        raise UserError("a probe learns from --split train; measure another split.")
    if test.multilabel or train.multilabel:
        raise UserError(f"a probe takes one value an image; {config.data} has several (separated by ;).")
    shared = set(test.articles)
    train = train.exclude(lambda i: "article is evaluated on" if train.rows[i].article in shared else None)
    if not len(train):
        raise UserError(f"no image of split train in {config.data} is left to learn from: {train.excluded}.")
    return train, test


def _with_one_spelling(*parts: Labeled) -> list[Labeled]:
    """The same images, where values that differ in case alone have the spelling that comes first, composed (NFC)."""
    spellings: dict[str, str] = {}

    def respell(row: LabeledImage) -> LabeledImage:
        if not row.value:
            return row
        parts = [part.strip() for part in row.value.split(";")]
        values = [spellings.setdefault(fold_name(part), unicodedata.normalize("NFC", part)) for part in parts]
        return row if values == parts else dataclasses.replace(row, value=";".join(values))

    return [dataclasses.replace(images, rows=tuple(map(respell, images.rows))) for images in parts]


def _single_valued(images: Labeled, config: EvalConfig, labels: LabelConfig) -> Labeled:
    """Of a published set with several values an image: the images with exactly one, of the chosen classes."""
    if not images.allows_several:
        return images

    def reason(i: int) -> str | None:
        values = images.labels[i]
        if len(values) != 1:
            return "more than one finding" if values else "no finding"
        return None if not labels.classes or fold_name(values[0]) in labels.class_keys else "of another class"

    single = dataclasses.replace(images.exclude(reason), allows_several=False, excluded_several=False)
    if not len(single):
        raise UserError(f"no image of {config.data}, {images.name}, has exactly one finding: {single.excluded}.")
    return single


def _parse_data(config: EvalConfig) -> AnyPath:
    if not config.data:
        raise UserError(f"give --data: {FORMS}.")
    return parse_path(config.data)


def _evaluation_split(config: EvalConfig, names: set[str]) -> str:
    """Which split of a folder to evaluate on; "" where it has none that is usual."""
    return canonical_split(config.split or next((name for name in ("validation", "test") if name in names), ""))


def _is_prepared(data: AnyPath) -> bool:
    return is_url(data) or (data / "dataset.json").is_file()


def _read_prepared(data: AnyPath, name: str, limit: int | None, config: LabelConfig) -> Labeled:
    split = Split(data, name, limit)
    labels = [dict(pairs) for pairs in split.iter_column("labels")]
    kinds = sorted({kind for values in labels for kind in values})
    label = config.label or (kinds[0] if len(kinds) == 1 else None)
    if label is None or label not in kinds:
        options = f"it has: {', '.join(kinds)}" if kinds else "it has none"
        question = "which label (--label)?" if label is None else f"no label {label!r} (--label);"
        raise UserError(f"{data}, split {name}: {question} {options}.")
    columns = zip(labels, split.column("id"), split.column("article"), strict=True)
    rows = (
        LabeledImage(split.image(i) if label in values else b"", values.get(label), id, article, name)
        for i, (values, id, article) in enumerate(columns)
    )
    dataset = {key: read_dataset(split.folder)[key] for key in ("source", "synthetic")}
    return _usable(Labeled(tuple(rows), name, label, dataset), data, config)


def _read_folder(data: AnyPath, config: LabelConfig) -> Labeled:
    """Every row of a folder, of all splits."""
    if is_url(data):
        raise UserError(f"{data} is not a folder; give {FORMS}.")
    dataset = {"source": data.name, "synthetic": False}
    if (data / LABELS_FILE).is_file():
        if findings := _finding_columns(data, config):
            rows = tuple(_read_table(data, "", findings))
            return Labeled(rows, "all", FINDINGS, dataset, allows_several=True)
        label = config.label or "label"
        return Labeled(tuple(_read_table(data, label)), "all", label, dataset)
    if published := find_labeled_set(data, config.classes):
        if config.label not in (None, published.label):
            raise UserError(f"{data} has the label {published.label!r} only; choose of its values with --classes.")
        rows = tuple(published.images)
        return Labeled(rows, "all", published.label, dataset, allows_several=published.multilabel)
    if not data.is_dir():
        raise UserError(f"{data} is not a folder; give {FORMS}.")
    if config.label:
        raise UserError(f"{data} has no {LABELS_FILE}, so no label {config.label!r}: its folders are the classes.")
    return Labeled(tuple(_read_class_folders(data, config.class_keys)), "all", "label", dataset)


def _finding_columns(data: Path, config: LabelConfig) -> list[str]:
    """The columns of labels.csv that --classes names, each a finding; none where one column holds the labels.

    UserError where --classes names such columns and others that are absent.
    """
    path = data / LABELS_FILE
    header = next(read_rows(check_link(path, data)), {})
    if config.label or "label" in header:
        return []
    columns = {key: name for name in header if (key := fold_name(name)) in config.class_keys}
    absent = [name for name in config.classes if fold_name(name) not in columns]
    if columns and absent:
        raise UserError(f"{path} has no column {absent[0]!r} of --classes; it has: {', '.join(header)}.")
    return list(columns.values())


def _read_table(data: Path, label: str, findings: Sequence[str] = ()) -> Iterator[LabeledImage]:
    """The rows of labels.csv. Where those of an image have different labels, none is used: nothing says which holds."""
    rows = list(_table_rows(data, label, findings))
    values: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        values[row.split, row.id].add(fold_name((row.value or "").strip()))
    keys = set()
    for row in rows:
        key = row.split, row.id
        flaw = "duplicate row" if key in keys else ""
        keys.add(key)
        flaw = row.flaw or (CONTRADICTORY if len(values[key]) > 1 else flaw)
        yield dataclasses.replace(row, flaw=flaw) if flaw else row


def _table_rows(data: Path, label: str, findings: Sequence[str]) -> Iterator[LabeledImage]:
    path = data / LABELS_FILE
    names: dict[str, str] = {}
    for row in read_rows(check_link(path, data)):
        names = names or match_row(row) | ({} if findings else {"label": label})
        for field, description, remedy in (
            ("image", "of images (file)", "Call it file."),
            ("label", repr(label), _LABEL_REMEDY),
        ):
            if names.get(field) not in row and not (findings and field == "label"):
                raise UserError(f"{path} has no column {description}; it has: {', '.join(row)}. {remedy}")
        cells = {field: (row[name] or "").strip() for field, name in names.items()}
        name, split = cells["image"], canonical_split(cells.get("split", ""))
        candidates = (inside(data, f"images/{name}"), inside(data, name)) if name else ()
        files = [file for file in candidates if file and not is_url(file)]
        flaw = "" if len(files) == 2 else "image outside the folder" if name else "row without an image"
        image = b"" if flaw else next(filter(path_exists, files), files[0])
        columns = findings or (label,)
        if any(row[column] is None for column in columns):
            value = None  # the line ends before it
        elif findings:
            value, uncertain = read_findings({column: row[column] for column in findings}, f"{path}, {name}")
            flaw = flaw or uncertain
        else:
            value = label_values(cells["label"])
        yield refuse_link(LabeledImage(image, value, name, stated_group(row) or name, split, flaw), data)


def _read_class_folders(data: Path, class_keys: frozenset[str]) -> Iterator[LabeledImage]:
    """The images of a folder for each class, below folders of splits where these are all that `data` holds.

    `class_keys` are those of `LabelConfig`; none: every folder is a class.
    One image of each class after the other, so that the first of them are of every class.
    """
    splits = {folder: canonical_split(folder.name) for folder in _folders(data)}
    if splits and not set(splits.values()) <= set(SPLITS):
        splits = {data: ""}
    images = []
    for top, split in splits.items():
        for folder in _folders(top):
            if class_keys and fold_name(folder.name) not in class_keys:
                if class_key(folder.name) in map(class_key, class_keys):
                    raise UserError(f"{folder} is a class that --classes spells otherwise: give {folder.name!r}.")
                continue
            files = list(list_images(folder))
            if not files:
                raise UserError(f"{folder} holds no images. Remove it, or name the other folders with --classes.")
            images += [(i, folder, file, split) for i, file in enumerate(files)]
    if not images:
        raise UserError(f"{data} holds no labeled images; give {FORMS}.")
    for _, folder, file, split in sorted(images, key=lambda image: (image[0], str(image[1]))):
        id = file.relative_to(data)
        article = id if file.parent == folder else id.parent  # a folder inside that of a class is a patient
        yield refuse_link(LabeledImage(file, folder.name, id.as_posix(), article.as_posix(), split), data)


def _folders(data: Path) -> list[Path]:
    return sorted(path for path in data.iterdir() if path.is_dir() and not path.name.startswith("."))


def _select(images: Labeled, splits: set[str], name: str, config: EvalConfig, labels: LabelConfig) -> Labeled:
    rows = [row for row in images.rows if row.split in splits][: config.max_samples]
    if not rows:
        names = ", ".join(sorted({row.split for row in images.rows} - {""})) or "none"
        raise UserError(f"{config.data} has no images of split {name!r}; its splits: {names}.")
    return _usable(dataclasses.replace(images, rows=tuple(rows), name=name), parse_path(config.data), labels)


def _usable(images: Labeled, data: AnyPath, config: LabelConfig) -> Labeled:
    """The rows that have a label, and of the chosen classes.

    UserError where one is spelled otherwise: it would be a class that no image shows. UserError too where no classes
    are chosen and a value reads as a mark: what it means decides the numbers, and only the user knows.
    """
    present = {fold_name(name): name for name in images.classes}
    if not config.classes and (marks := [name for key, name in present.items() if key in NO_CLASSES]):
        number = sum(marks[0] in values for values in images.labels)
        names = " ".join(shlex.quote(name) for key, name in present.items() if key not in NO_CLASSES)
        raise UserError(
            f"{data}, split {images.name}: {images.label!r} is {marks[0]!r} for {number} images, which is no class but "
            "a mark of an uncertain or absent label. Name the classes, and the other images are excluded and counted "
            f"(--classes {names}), or write in the data what it means."
        )
    for name in config.classes:
        spellings = [other for key, other in present.items() if class_key(key) == class_key(name)]
        if spellings and fold_name(name) not in present:
            raise UserError(f"{data}, split {images.name}: no class is spelled {name!r}; give {spellings[0]!r}.")

    def reason(i: int) -> str | None:
        if images.rows[i].flaw:
            return images.rows[i].flaw
        if images.rows[i].value is None or not (images.labels[i] or images.multilabel):
            return "without label"
        if set(map(fold_name, images.labels[i])) & NO_CLASSES - config.class_keys:
            return UNCERTAIN
        if images.multilabel or not config.classes:
            return None
        return None if config.class_keys & set(map(fold_name, images.labels[i])) else "of another class"

    usable = images.exclude(reason)
    if not len(usable):
        reasons = ", ".join(f"{count} × {why}" for why, count in Counter(usable.excluded).most_common())
        raise UserError(
            f"{data}, split {images.name}: no image has a label {images.label!r} of the chosen classes ({reasons})."
        )
    shown = set(map(fold_name, usable.classes))
    if absent := [name for name in config.classes if fold_name(name) not in shown]:
        LOG.warning(
            f"{data}, split {images.name}: no image is of class {', '.join(map(repr, absent))} of --classes; "
            f"{images.label!r} has: {', '.join(images.classes)}."
        )
    return usable

"""Images with what they show: from a prepared dataset, a table beside images, or a folder a class."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from medclip.data.dataset import Split, default_split, read_dataset
from medclip.data.normalize import SPLITS, canonical_split, split_of
from medclip.data.paths import AnyPath, inside, is_url, parse_path, path_exists
from medclip.data.sources.image_caption_folder import list_images
from medclip.data.sources.table_files import read_rows
from medclip.data.sources.tables import match_columns
from medclip.errors import UserError
from medclip.evaluate.config import EvalConfig

TABLE = "labels.csv"
FORMS = (
    f"a prepared dataset, a folder with {TABLE} (file,label[,split][,article]) beside its images, or a folder with "
    "a folder of images for each class"
)


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """What is told apart, and what it is held against."""

    label: str | None = None
    """One of a prepared dataset's labels (modality, organ, …), or a column of labels.csv; left out: the only one."""
    classes: tuple[str, ...] = ()
    """These classes only; images of others are left out and counted. Left out: all that there are."""
    random_weights: bool = True
    """Measure the same architecture with random weights too: what images give away without any training."""

    def among(self, there: Iterable[str]) -> list[str]:
        """The classes that can be called: those asked for, or else those that are `there`, sorted."""
        return list(dict.fromkeys(self.classes)) or sorted(set(there))


@dataclass(frozen=True, slots=True)
class Row:
    """An image: its file or its bytes, and its label as it was written (None: it has none)."""

    image: bytes | Path
    said: str | None
    id: str
    article: str
    split: str = ""
    flaw: str = ""
    """Why it cannot be used, where that is known before its image is opened."""


@dataclass(frozen=True)
class Labeled:
    """Images with labels, in the order of their source, and how many of its rows are not among them and why."""

    rows: tuple[Row, ...]
    name: str
    """The split; "all" where the source has none."""
    label: str
    dataset: Mapping[str, Any]
    """`source` and `synthetic`, as a prepared dataset says them."""
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.rows)

    @cached_property
    def several(self) -> bool:
        """Whether an image can have several values, separated by semicolons; an empty one then means none of them."""
        return any(";" in (row.said or "") for row in self.rows)

    @cached_property
    def labels(self) -> list[tuple[str, ...]]:
        """The values of each image."""
        return [tuple(dict.fromkeys(filter(None, map(str.strip, (row.said or "").split(";"))))) for row in self.rows]

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
        said = hashlib.sha256()
        for row in self.rows:
            picture = row.image if isinstance(row.image, bytes) else row.image.read_bytes()
            said.update(json.dumps([row.id, row.said, hashlib.sha256(picture).hexdigest()]).encode())
        return said.hexdigest()

    def without(self, reason: Callable[[int], str | None]) -> Labeled:
        """The rows, by their number, for which there is no reason to leave them out; the others are counted by it."""
        reasons = [reason(i) for i in range(len(self))]
        left_out = Counter(self.left_out) + Counter(why for why in reasons if why)
        kept = tuple(row for row, why in zip(self.rows, reasons, strict=True) if not why)
        return dataclasses.replace(self, rows=kept, left_out=dict(left_out))


def measured_rows(subject: EvalConfig, task: LabelConfig) -> Labeled:
    """The labeled images of the split that is measured: validation, else test, else all there are."""
    data = parse_path(subject.data)
    if _prepared(data):
        return _of_data(data, subject.split or default_split(data), subject.max_samples, task)
    every = _of_folder(data, task)
    names = {row.split for row in every.rows}
    split = _measured(subject, names)
    return _only(every, {split} if split else names, split or "all", subject, task)


def probed_rows(subject: EvalConfig, task: LabelConfig) -> tuple[Labeled, Labeled]:
    """Labeled images to learn from (the split train) and to be measured on, which share no article.

    Where the source has no splits, a tenth of the articles is measured, by a hash of their names.
    """
    data = parse_path(subject.data)
    if _prepared(data):
        measured = _of_data(data, subject.split or default_split(data), subject.max_samples, task)
        train = _of_data(data, "train", subject.max_samples, task)
    else:
        every = _of_folder(data, task)
        if not any(row.split for row in every.rows):
            hashed = tuple(dataclasses.replace(row, split=split_of(row.article)) for row in every.rows)
            every = dataclasses.replace(every, rows=hashed)
        split = _measured(subject, {row.split for row in every.rows}) or "validation"
        measured = _only(every, {split}, split, subject, task)
        train = _only(every, {"train"}, "train", subject, task)
    if measured.name == "train":
        raise UserError("--split train is what a probe learns from; measure another split.")
    if measured.several or train.several:
        raise UserError(f"a probe takes one value an image; {subject.data} has several (separated by ;).")
    shared = set(measured.articles)
    train = train.without(lambda i: "article is measured too" if train.rows[i].article in shared else None)
    if not len(train):
        raise UserError(f"no image of split train in {subject.data} is left to learn from: {train.left_out}.")
    return train, measured


def _measured(subject: EvalConfig, names: set[str]) -> str:
    """Which split of a folder is measured; "" where it has none that is usually."""
    return canonical_split(subject.split or next((name for name in ("validation", "test") if name in names), ""))


def _prepared(data: AnyPath) -> bool:
    return is_url(data) or (data / "dataset.json").is_file()


def _of_data(data: AnyPath, name: str, limit: int | None, task: LabelConfig) -> Labeled:
    split = Split(data, name, limit)
    labels = [dict(said) for said in split.iter_column("labels")]
    known = sorted({key for said in labels for key in said})
    label = task.label or (known[0] if len(known) == 1 else None)
    if label not in known:
        there = f"it has: {', '.join(known)}" if known else "it has none"
        raise UserError(f"{data}, split {name}: which label (--label)? {there}.")
    columns = zip(labels, split.column("id"), split.column("article"), strict=True)
    rows = (
        Row(split.image(i) if label in said else b"", said.get(label), id, article, name)
        for i, (said, id, article) in enumerate(columns)
    )
    dataset = {key: read_dataset(split.folder)[key] for key in ("source", "synthetic")}
    return _usable(Labeled(tuple(rows), name, label, dataset), data, task)


def _of_folder(data: AnyPath, task: LabelConfig) -> Labeled:
    """Every row of a folder, whatever its split."""
    if not data.is_dir():
        raise UserError(f"{data} is no folder; give {FORMS}.")
    dataset = {"source": data.name, "synthetic": False}
    if (data / TABLE).is_file():
        label = task.label or "label"
        return Labeled(tuple(_table(data, label)), "all", label, dataset)
    if task.label:
        raise UserError(f"{data} has no {TABLE}, so no label {task.label!r}: its folders are the classes.")
    return Labeled(tuple(_folders(data, task.classes)), "all", "label", dataset)


def _table(data: Path, label: str) -> Iterator[Row]:
    path, names, known = data / TABLE, {}, set()
    for row in read_rows(path):
        names = names or match_columns(list(row)) | {"label": label}
        for what, asked in (("image", "of images (file)"), ("label", repr(label))):
            if names.get(what) not in row:
                raise UserError(f"{path} has no column {asked}; it has: {', '.join(row)}.")
        cells = {what: (row[name] or "").strip() for what, name in names.items()}
        name = cells["image"]
        places = [inside(data, f"images/{name}"), inside(data, name)] if name else []
        flaw = "" if places and None not in places else "image outside the folder" if name else "row without an image"
        split = canonical_split(cells.get("split", ""))
        flaw = flaw or ("duplicate row" if (split, name) in known else "")
        known.add((split, name))
        image = b"" if flaw else next((place for place in places if path_exists(place)), places[0])
        said = row[label] and cells["label"]  # None where the line ends before it
        yield Row(image, said, name, cells.get("group") or name, split, flaw)


def _folders(data: Path, classes: Iterable[str]) -> Iterator[Row]:
    """The images of a folder a class, below folders of splits where these are all there is.

    One image of each class after the other, so that the first of them are of every class.
    """
    there = sorted(path for path in data.iterdir() if path.is_dir() and not path.name.startswith("."))
    splits = {path: canonical_split(path.name) for path in there}
    if there and not set(splits.values()) <= set(SPLITS):
        splits = {data: ""}
    found = []
    for top, split in splits.items() if there else ():
        for folder in sorted(path for path in top.iterdir() if path.is_dir() and not path.name.startswith(".")):
            if classes and folder.name not in classes:
                continue
            own = list(list_images(folder))
            if not own:
                raise UserError(f"{folder} holds no images. Remove it, or name the other folders with --classes.")
            found += [(nth, folder, picture, split) for nth, picture in enumerate(own)]
    if not found:
        raise UserError(f"{data} holds no labeled images; give {FORMS}.")
    for _, folder, picture, split in sorted(found, key=lambda one: (one[0], str(one[1]))):
        id = picture.relative_to(data)
        article = id if picture.parent == folder else id.parent  # a folder inside that of a class is a patient
        yield Row(picture, folder.name, id.as_posix(), article.as_posix(), split)


def _only(every: Labeled, splits: set[str], name: str, subject: EvalConfig, task: LabelConfig) -> Labeled:
    rows = [row for row in every.rows if row.split in splits][: subject.max_samples]
    if not rows:
        there = ", ".join(sorted({row.split for row in every.rows} - {""})) or "none"
        raise UserError(f"{subject.data} has no images of split {name!r}; its splits: {there}.")
    return _usable(dataclasses.replace(every, rows=tuple(rows), name=name), parse_path(subject.data), task)


def _usable(found: Labeled, data: AnyPath, task: LabelConfig) -> Labeled:
    """The rows that have a label, and of the classes asked for."""
    wanted = set(task.classes)

    def reason(i: int) -> str | None:
        if found.rows[i].flaw:
            return found.rows[i].flaw
        if found.rows[i].said is None or not (found.labels[i] or found.several):
            return "without label"
        return "of another class" if wanted and not wanted & set(found.labels[i]) and not found.several else None

    kept = found.without(reason)
    if not len(kept):
        raise UserError(f"{data}, split {found.name}: no image has a label {found.label!r} that is asked for.")
    return kept

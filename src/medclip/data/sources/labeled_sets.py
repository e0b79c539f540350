"""Published sets of labeled images: CheXpert, MIMIC-CXR-JPG, NIH ChestX-ray14, RSNA Pneumonia, VinDr-CXR, MedMNIST."""

from __future__ import annotations

import math
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from medclip.bounded_files import read_bounded
from medclip.data.images import to_png
from medclip.data.normalize import split_in
from medclip.data.paths import (
    LEAVES_FOLDER,
    check_link,
    fold_name,
    inside,
    is_url,
    leaves_folder,
    path_exists,
)
from medclip.data.sources.image_cells import MAX_MEMBER_BYTES, MISSING
from medclip.data.sources.mimic_cxr import is_mimic_cxr, read_images, read_labels
from medclip.data.sources.table_files import Row, read_columns, read_rows
from medclip.errors import MAX_PIXELS, UserError

FINDINGS = "findings"
SOURCES = "CheXpert, MIMIC-CXR-JPG, NIH ChestX-ray14, RSNA Pneumonia, VinDr-CXR or a MedMNIST .npz as published"
UNCERTAIN = "uncertain label"
_CHEXPERT_TABLES = ("train.csv", "valid.csv", "test.csv", "test_labels.csv")
_CHEXPERT_FACTS = {"Path", "Sex", "Age", "Frontal/Lateral", "AP/PA"}
_MIMIC_FACTS = {"subject_id", "study_id"}
_NIH_TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
_NIH_SPLITS = {"train_val_list.txt": "train", "test_list.txt": "test"}
_VINDR_TABLES = {"image_labels_train.csv": "train", "image_labels_test.csv": "test", "train.csv": "train"}
"""PhysioNet's tables of labels, and Kaggle's of boxes."""
_VINDR_FACTS = {"image_id", "rad_id"}
_PANDAS_INDEX = re.compile(r"(Unnamed: \d+)?")
"""The column of row numbers that a table saved by pandas begins with."""
_LABELS = {
    **dict.fromkeys(("", "nan", "0", "0.0", "false"), 0),
    **dict.fromkeys(("1", "1.0", "true"), 1),
    **dict.fromkeys(("-1", "-1.0", "u"), -1),
}
"""What a finding's cell says, as labelers write it and pandas saves it."""
_CHEST = (
    *("atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia", "pneumothorax"),
    *("consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia"),
)
_ORGANS = (
    *("bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left"),
    *("lung-right", "pancreas", "spleen"),
)
_MEDMNIST_CLASSES = {
    "chestmnist": _CHEST,
    "pneumoniamnist": ("normal", "pneumonia"),
    "breastmnist": ("malignant", "normal or benign"),
    **dict.fromkeys(("organamnist", "organcmnist", "organsmnist"), _ORGANS),
}
"""Names of classes by the package's name of a dataset (https://medmnist.com); another has its numbers as names."""


@dataclass(frozen=True, slots=True)
class LabeledImage:
    """An image: its file or its bytes, and its label as it was written (None: it has none)."""

    image: bytes | Path
    value: str | None
    """Several values are separated by semicolons."""
    id: str
    article: str
    split: str = ""
    flaw: str = ""
    """Why it cannot be used, where that is known before its image is opened."""


@dataclass(frozen=True, slots=True)
class LabeledSet:
    """The images of a published set, of all splits."""

    images: Iterator[LabeledImage]
    label: str
    multilabel: bool
    """Whether an image can have several values or none of them."""


def find_labeled_set(data: Path, classes: Iterable[str] = ()) -> LabeledSet | None:
    """The published set in the folder or .npz file `data`, None for another one.

    Of CheXpert's labels 1 is a finding, 0 and none are not; an image where one of `classes` (none: of all) is -1,
    uncertain, is flawed. So of MIMIC-CXR's, a study's by CheXpert's labeler, or by NegBio where that table is absent.
    In VinDr-CXR a finding is what most of an image's readers report.
    """
    if is_url(data):
        return None
    if data.is_file() and data.suffix.lower() == ".npz":
        return _medmnist(data)
    labeled = _find_layout(data, frozenset(map(fold_name, classes)))
    return labeled and replace(labeled, images=(refuse_link(image, data) for image in labeled.images))


def refuse_link(image: LabeledImage, data: Path) -> LabeledImage:
    """The image, with a flaw where it is a link that leads out of the folder `data`."""
    if isinstance(image.image, Path) and leaves_folder(image.image, data):
        return replace(image, flaw=f"image: {LEAVES_FOLDER}")
    return image


def _find_layout(data: Path, folded: frozenset[str]) -> LabeledSet | None:
    if any(_is_chexpert(data / name) for name in _CHEXPERT_TABLES):
        return LabeledSet(_read_chexpert(data, folded), FINDINGS, True)
    if is_mimic_cxr(data) and (labels := read_labels(data)):
        return LabeledSet(_read_mimic(data, labels[1], folded), FINDINGS, True)
    if any((data / name).is_file() for name in _NIH_TABLES):
        return LabeledSet(_read_nih(data), FINDINGS, True)
    if (data / "stage_2_train_labels.csv").is_file():
        return LabeledSet(_read_rsna(data), "class", False)
    if any(_vindr_tables(data)):
        return LabeledSet(_read_vindr(data), FINDINGS, True)
    return None


def _read_table(table: Path) -> Iterator[Row]:
    """The rows of a table. UserError where it is a link that leaves its folder."""
    return read_rows(check_link(table, table.parent))


def _is_chexpert(table: Path) -> bool:
    return table.is_file() and {"Path", "No Finding"} <= next(_read_table(table), {}).keys()


def _read_chexpert(data: Path, classes: frozenset[str]) -> Iterator[LabeledImage]:
    """The images of all tables; a path begins with the name of the folder as published."""
    for table in filter(_is_chexpert, (data / name for name in _CHEXPERT_TABLES)):
        for row in _read_table(table):
            name = row["Path"] or ""
            value, uncertain = _findings(_labels(row, _CHEXPERT_FACTS, f"{table}, {name}"), classes)
            patient = next((part for part in name.split("/") if part.startswith("patient")), name)
            image, flaw = _locate(data, name, name.partition("/")[2])
            yield LabeledImage(image, value, name, patient, split_in(table.name), flaw or uncertain)


def read_findings(row: Mapping[str, Any], where: str) -> tuple[str, str]:
    """The findings of a row of nothing but findings that are 1, and a flaw where one is -1; errors as in `_labels`."""
    return _findings(_labels(row, set(), where), frozenset())


def _findings(labels: Mapping[str, int], classes: frozenset[str]) -> tuple[str, str]:
    """The findings that are 1, and a flaw where one of `classes` (folded; none: any) is -1."""
    chosen = [value for name, value in labels.items() if not classes or fold_name(name) in classes]
    return ";".join(name for name, value in labels.items() if value == 1), UNCERTAIN * (-1 in chosen)


def _labels(row: Mapping[str, Any], facts: Set[str], where: str) -> dict[str, int]:
    """1, 0 or -1 (uncertain) of each finding, a column that is none of `facts`; 0 where a report does not mention it.

    UserError for another cell: it says nothing of the finding, and counting it as 0 would.
    """
    labels = {}
    for name in (name for name in row if name not in facts and not _PANDAS_INDEX.fullmatch(name)):
        cell = str(row[name] or "").strip()
        if (label := _LABELS.get(cell.casefold())) is None:
            raise UserError(
                f"{where}: column {name!r} holds {cell[:40]!r}, where a finding has 1, 0, -1 (uncertain) or nothing. "
                "Write these, or take the column out of the table."
            )
        labels[name] = label
    return labels


def _read_mimic(
    data: Path, labels: Mapping[str, Mapping[str, str | None]], classes: frozenset[str]
) -> Iterator[LabeledImage]:
    """The images of MIMIC-CXR-JPG, also those that are only listed, each with its study's labels."""
    without_image = dict.fromkeys(labels)
    for id, image, patient, study, split in read_images(data):
        without_image.pop(study, None)
        value, flaw = _findings(_labels(labels.get(study, {}), _MIMIC_FACTS, f"{data}, study {study}"), classes)
        file = b"" if image is None else Path(str(image))
        yield LabeledImage(file, value if study in labels else None, id, patient, split, flaw if image else MISSING)
    for study in without_image:
        yield LabeledImage(b"", None, study, f"p{labels[study]['subject_id']}", flaw="study without an image")


def _read_nih(data: Path) -> Iterator[LabeledImage]:
    """The images of Data_Entry_2017.csv, with findings separated by |; splits are those of its two lists."""
    splits = {
        name: split
        for file, split in _NIH_SPLITS.items()
        if (data / file).is_file()
        for name in _read_names(data / file)
    }
    files = {path.name: path for path in data.glob("images*/**/*.png")}
    table = next(data / name for name in _NIH_TABLES if (data / name).is_file())
    for row in _read_table(table):
        name, patient = row.get("Image Index") or "", row.get("Patient ID") or ""
        value = (row.get("Finding Labels") or "").replace("|", ";")
        image, flaw = (files[name], "") if name in files else _locate(data, f"images/{name}")
        yield LabeledImage(image, value, name, patient or name, splits.get(name, ""), flaw)


def _read_names(path: Path) -> list[str]:
    try:
        return read_bounded(check_link(path, path.parent), MAX_MEMBER_BYTES).decode().split()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error}). Fetch it again.") from None


def _read_rsna(data: Path) -> Iterator[LabeledImage]:
    """An image for each patient, whose boxes are rows; its class is that of the detailed table, else of its target."""
    labels, details = data / "stage_2_train_labels.csv", data / "stage_2_detailed_class_info.csv"
    classes = _read_column(details, "patientId", "class") if details.is_file() else {}
    targets = _read_column(labels, "patientId", "Target")
    for patient, target in targets.items():
        value = classes.get(patient) or ("Lung Opacity" if target == "1" else "No Lung Opacity")
        image, flaw = _locate(data, f"stage_2_train_images/{patient}.dcm", f"stage_2_train_images/{patient}.png")
        yield LabeledImage(image, value, patient, patient, "", flaw)


def _read_column(table: Path, key: str, column: str) -> dict[str, str]:
    """A column by another; the last row of a key counts. Raises UserError where one of both is absent."""
    values = {}
    for row in read_columns(check_link(table, table.parent), {key, column}):
        values[row[key] or ""] = row[column] or ""
    return values


def _vindr_tables(data: Path) -> Iterator[tuple[Path, str]]:
    """The tables of VinDr-CXR with their splits."""
    for name, split in _VINDR_TABLES.items():
        for table in (data / name, data / "annotations" / name):
            if table.is_file() and "image_id" in next(_read_table(table), {}):
                yield table, split


def _read_vindr(data: Path) -> Iterator[LabeledImage]:
    """An image for each image_id; its findings are those that most of its readers report (test: their consensus).

    A reader's findings are columns of 0 and 1, or the class_name of each of the reader's boxes.
    """
    for table, split in _vindr_tables(data):
        readers: defaultdict[str, set[str]] = defaultdict(set)
        reports: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)  # finding and reader, in order below
        order: dict[str, None] = {}
        for row in _read_table(table):
            id, reader = row["image_id"] or "", row.get("rad_id") or ""
            boxed = [row["class_name"] or ""] if "class_name" in row else []
            labels = {} if boxed else _labels(row, _VINDR_FACTS, f"{table}, {id}")
            findings = boxed or [name for name, value in labels.items() if value == 1]
            readers[id].add(reader)
            reports[id].update((finding, reader) for finding in findings)
            order |= dict.fromkeys(findings)
        for id, members in readers.items():
            votes = Counter(finding for finding, _ in reports[id])
            value = ";".join(finding for finding in order if 2 * votes[finding] > len(members))
            image, flaw = _locate(data, *(f"{split}/{id}.{suffix}" for suffix in ("dicom", "dcm", "png", "jpg")))
            yield LabeledImage(image, value, id, id, split, flaw)


def _locate(data: Path, *names: str) -> tuple[Path | bytes, str]:
    """The first of the files that is there, else the first; with a flaw where it is not below the folder."""
    files = [path for name in names if name and isinstance(path := inside(data, name), Path)]
    if not files:
        return b"", "image outside the folder" if any(names) else "row without an image"
    return next(filter(path_exists, files), files[0]), ""


def _medmnist(path: Path) -> LabeledSet:
    """A file of MedMNIST: SPLIT_images u8 (n, s, s) or (n, s, s, 3), SPLIT_labels (n, 1) or (n, k).

    Files made by others may have images (n, s, s, 1) and labels (n,), which mean the same. Images are unpacked one at a
    time: a small file can unpack to more than the memory.
    """
    with _npz_errors(path), zipfile.ZipFile(path) as archive:
        members = set(archive.namelist())
        splits = {
            name: (_read_header(archive, f"{name}_images.npy"), _read_labels(archive, f"{name}_labels.npy"))
            for name in ("train", "val", "test")
            if {f"{name}_images.npy", f"{name}_labels.npy"} <= members
        }
    if not splits:
        raise UserError(f"{path} has no train_images and train_labels, so it is not a file of MedMNIST.")
    for images, labels in splits.values():
        is_flat = len(images.shape) in (3, 4) and images.shape[3:] in ((), (1,), (3,)) and labels.ndim == 2
        if not (is_flat and 0 < math.prod(images.shape[1:3]) <= MAX_PIXELS):
            raise UserError(f"{path} holds images of shape {images.shape[1:]}; only 2D images are read.")
        are_numbers = labels.dtype.kind in "iu" and not (labels < 0).any()
        if images.dtype != np.uint8 or images.is_fortran or images.shape[0] != len(labels) or not are_numbers:
            raise UserError(f"{path} is not as MedMNIST writes it: images u8 with a row of labels each, from 0 on.")
    names = _MEDMNIST_CLASSES.get(path.stem.partition("_")[0].lower(), ())
    multilabel = any(labels.shape[1] > 1 for _, labels in splits.values())
    return LabeledSet(_read_arrays(path, splits, names), FINDINGS if multilabel else "class", multilabel)


class _Header(NamedTuple):
    """What a .npy file says of its array."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype


@contextmanager
def _npz_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of the archive, of a member's compression, of its header, of the memory it claims
        raise UserError(f"{path} is not a complete .npz file ({error}). Fetch it again.") from None


def _read_header(archive: zipfile.ZipFile, member: str) -> _Header:
    with archive.open(member) as file:
        return _skip_header(file)


def _skip_header(file: IO[bytes]) -> _Header:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    return _Header(*readers[np.lib.format.read_magic(file)](file))


def _read_labels(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    """A row of labels for each image."""
    if (size := archive.getinfo(member).file_size) > MAX_MEMBER_BYTES:
        raise ValueError(f"its {member} unpacks to {size:,} bytes")
    with archive.open(member) as file:
        labels = np.lib.format.read_array(file, allow_pickle=False)
    return labels[:, None] if labels.ndim == 1 else labels


def _read_arrays(
    path: Path, splits: Mapping[str, tuple[_Header, np.ndarray]], names: tuple[str, ...]
) -> Iterator[LabeledImage]:
    def class_name(number: int) -> str:
        return names[number] if number < len(names) else str(number)

    for split, (images, labels) in splits.items():
        shape = images.shape[1:3] if images.shape[3:] == (1,) else images.shape[1:]
        unpacked = _iter_images(path, f"{split}_images.npy", shape)
        for number, (image, row) in enumerate(zip(unpacked, labels, strict=True)):
            numbers = np.flatnonzero(row) if len(row) > 1 else row
            id = f"{split}/{number}"
            yield LabeledImage(to_png(image), ";".join(class_name(int(n)) for n in numbers), id, id, split_in(split))


def _iter_images(path: Path, member: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The images u8 of a shape in a member, one at a time. UserError where it holds more or less than whole ones."""
    size = math.prod(shape)
    with _npz_errors(path), zipfile.ZipFile(path) as archive, archive.open(member) as file:
        num_images = _skip_header(file).shape[0]
        for _ in range(num_images):
            pixels = file.read(size)
            if len(pixels) < size:
                raise ValueError(f"its {member} ends early")
            yield np.frombuffer(pixels, np.uint8).reshape(shape)
        if file.read(1):  # at whose end its checksum is compared
            raise ValueError(f"its {member} holds more than its header says")

"""Reads MIMIC-CXR-JPG: files/p10/p10000032/s50414267/DICOM_ID.jpg, with the report of a study beside its folder.

Layout: https://physionet.org/content/mimic-cxr-jpg/. The reports come in an archive of their own, mimic-cxr-reports.zip
of MIMIC-CXR, and may be unpacked into the same tree or beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from medclip.data.normalize import HASHED_SPLITS, canonical_split, split_of
from medclip.data.paths import LEAVES_FOLDER, AnyPath, check_link, leaves_folder, special_kind
from medclip.data.schema import Dropped, Pair, take_per_split
from medclip.data.sources.image_caption_folder import IMAGE_SUFFIXES, list_images
from medclip.data.sources.image_cells import MISSING, UsedFiles
from medclip.data.sources.reports import read_report, split_reading
from medclip.data.sources.table_files import read_columns

SOURCE = "MIMIC-CXR-JPG"
LABELERS = ("chexpert", "negbio")
"""Published labels by labeler; the first is the usual one."""
NO_IMAGE = "report without an image"
_PATIENT, _STUDY, _REPORT = re.compile(r"p\d{8}"), re.compile(r"s\d{8}"), re.compile(r"s\d{8}\.txt")
_TREES = ("", "files", "mimic-cxr-reports", "mimic-cxr-reports/files", "reports", "reports/files")
"""Where a tree of patients may be, below the folder or beside it."""

Listing = Mapping[str, tuple[str, str, str]]
"""Patient, study and value by image."""


def is_mimic_cxr(folder: AnyPath) -> bool:
    """Whether `folder` has images where MIMIC-CXR-JPG keeps them; those of MIMIC-CXR are DICOM files."""
    studies = (
        study for tree in _trees(folder) for patient in _patients(tree) for study in _subfolders(patient, _STUDY)
    )
    first_study = next(studies, None)
    return first_study is not None and any(path.suffix.lower() in IMAGE_SUFFIXES for path in first_study.iterdir())


def read_mimic_cxr(folder: AnyPath, max_samples: int | None, used: UsedFiles) -> Iterator[Pair | Dropped]:
    """Every image of the tree with its study's findings and impression, then images that are only listed and reports.

    Splits are those of mimic-cxr-2.0.0-split.csv.gz, else of a hash of the patient; a patient is a group. Images that
    mimic-cxr-2.0.0-metadata.csv.gz or the splits list and the tree lacks are dropped, and reports without an image.
    Raises UserError for a damaged table.
    """
    splits = _read_listing(folder, "split", "split", used)
    views = _read_listing(folder, "metadata", "ViewPosition", used)
    names = {canonical_split(split) for _, _, split in splits.values()}
    yield from take_per_split(_read(folder, splits, views, used), max_samples, sorted(names | set(HASHED_SPLITS)))


def _read(folder: AnyPath, splits: Listing, views: Listing, used: UsedFiles) -> Iterator[Pair | Dropped]:
    split_of_patient = _patient_splits(splits)
    reports = [tree for base in (folder, folder.parent) for tree in _trees(base)]
    read_report = lru_cache(maxsize=1)(lambda study: _read_report(reports, study, used))

    def patient_split(patient: str) -> str:
        return split_of_patient.get(patient) or split_of(patient)

    present = set()
    for image in _images(folder):
        study, id = image.parent, image.stem
        patient = study.parent.name
        split = canonical_split(splits.get(id, ("", "", ""))[2]) or patient_split(patient)
        present.add(id)
        used.add(image)
        report, reason = read_report(f"{study.parent.parent.name}/{patient}/{study.name}.txt")
        if reason:
            yield Dropped(id, split, reason, f"{study.name}.txt")
            continue
        view, (reading, removed) = views.get(id, ("", "", ""))[2], split_reading(report)
        yield Pair(
            id=id,
            image=image,
            caption=reading,
            split=split,
            article=patient,
            labels={"view": view} if view else {},
            source=SOURCE,
            removed=removed,
        )
    for id, (patient, study, _) in {**views, **splits}.items():
        if id not in present:
            yield Dropped(id, patient_split(patient), MISSING, f"{patient}/{study}")
    for report in (report for tree in dict.fromkeys(reports) for report in _report_files(tree)):
        if report not in used:
            used.add(report)
            patient = report.parent.name
            yield Dropped(report.stem, patient_split(patient), NO_IMAGE, f"{patient}/{report.name}")


def _patient_splits(splits: Listing) -> dict[str, str]:
    return {patient: canonical_split(split) for patient, _, split in splits.values()}


def _report_files(tree: AnyPath) -> Iterator[AnyPath]:
    for patient in _patients(tree):
        yield from sorted((path for path in patient.iterdir() if _REPORT.fullmatch(path.name)), key=str)


def _read_report(trees: list[AnyPath], name: str, used: UsedFiles) -> tuple[str, str]:
    """The report of a study, or "" and why there is none."""
    for tree in trees:
        try:
            used.add(tree / name)
            if reason := LEAVES_FOLDER if leaves_folder(tree / name, tree) else special_kind(tree / name):
                return "", f"report: {reason}"
            return read_report(tree / name), ""
        except (FileNotFoundError, NotADirectoryError):
            continue
        except UnicodeDecodeError:
            return "", "report is not UTF-8"
        except OSError:
            return "", "report unreadable"
    return "", "no report"


def _read_listing(folder: AnyPath, kind: str, column: str, used: UsedFiles) -> dict[str, tuple[str, str, str]]:
    """The column of mimic-cxr-2.0.0-KIND.csv(.gz) by image, with patient and study; {} where there is no such file."""
    tables = _tables(folder, kind)
    if not tables:
        return {}
    used.add(tables[0])
    rows = read_columns(tables[0], {"dicom_id", "subject_id", "study_id", column})
    return {row["dicom_id"] or "": (f"p{row['subject_id']}", f"s{row['study_id']}", row[column] or "") for row in rows}


def read_labels(folder: AnyPath) -> tuple[AnyPath, dict[str, Mapping[str, str | None]]] | None:
    """The table mimic-cxr-2.0.0-chexpert.csv(.gz), else -negbio, and its rows by study, s50414267; None: no table."""
    tables = [path for labeler in LABELERS for path in _tables(folder, labeler)]
    if not tables:
        return None
    return tables[0], {f"s{row['study_id']}": row for row in read_columns(tables[0], {"subject_id", "study_id"})}


def read_images(folder: AnyPath) -> Iterator[tuple[str, AnyPath | None, str, str, str]]:
    """Every image: its id, file, patient, study and split ("" where none is listed); None for one that is only listed.

    Splits are those of the listing, of a patient as a whole.
    """
    splits = _read_listing(folder, "split", "split", UsedFiles())
    split_of_patient = _patient_splits(splits)
    present = set()
    for image in _images(folder):
        patient, study = image.parent.parent.name, image.parent.name
        present.add(image.stem)
        yield image.stem, image, patient, study, split_of_patient.get(patient, "")
    for id, (patient, study, split) in splits.items():
        if id not in present:
            yield id, None, patient, study, canonical_split(split)


def _tables(folder: AnyPath, kind: str) -> list[AnyPath]:
    return [
        check_link(path, base) for base in (folder, folder.parent) for path in base.glob(f"mimic-cxr-2.*-{kind}.csv*")
    ]


def _trees(folder: AnyPath) -> list[AnyPath]:
    """The folders at or below `folder` that hold patients, p10/p10000032."""
    trees = (folder / name if name else folder for name in _TREES)
    return [tree for tree in trees if tree.is_dir() and next(_patients(tree), None) is not None]


def _images(folder: AnyPath) -> Iterator[AnyPath]:
    return (image for tree in _trees(folder) for patient in _patients(tree) for image in list_images(patient))


def _patients(tree: AnyPath) -> Iterator[AnyPath]:
    for group in _subfolders(tree, re.compile(r"p\d\d")):
        yield from _subfolders(group, _PATIENT)


def _subfolders(folder: AnyPath, name: re.Pattern[str]) -> Iterator[AnyPath]:
    yield from sorted((path for path in folder.iterdir() if name.fullmatch(path.name) and path.is_dir()), key=str)

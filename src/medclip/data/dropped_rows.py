"""The rows that became no pair: the file that lists them, and why a source gave none at all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from medclip.atomic_io import whole_file
from medclip.data.deidentify import REDACTED
from medclip.data.unread_files import remedy_of_kind
from medclip.plain_text import printable

DROPPED_FILE = "dropped.jsonl"
_FIELDS = ("id", "split", "reason", "detail")
_NUM_REASONS = 3
_REMEDIES = {
    "image missing": "Name the folder that the paths start from with --image-root, or fetch the files.",
    "duplicate id": "An id is one image: where its column names patients or studies, name another with --id-column.",
    "image outside": "Name the folder that holds the images with --image-root; no others are read.",
    "image behind a URL": "Download the images first, for example by img2dataset: its archives are read.",
    "image cell is a list of numbers": "Write the images to files, or as bytes into a Parquet file.",
    "image unreadable": "Open one of the files by hand: it may be damaged or no image.",
    "row without image or caption": "Name the columns with --image-column and --caption-column.",
    "sample without image or caption": "A sample of an archive is KEY.jpg with KEY.txt, or with a caption in KEY.json.",
    "no caption beside the image": "Put the caption of x.jpg into x.txt in the same folder, or give a table (CSV) "
    "that names both.",
    "caption without image": "Put the image of x.txt, x.jpg, into the same folder. A list of images with their "
    "captions is a table: call it .csv or .tsv and give that.",
    "caption is RTF": "Export the reports as plain text, or convert them, for example by: soffice --convert-to txt.",
    **dict.fromkeys(
        ("report is not UTF-8", "caption is not UTF-8"), "Convert it, for example by: iconv -f WINDOWS-1252 -t UTF-8."
    ),
    "caption under": "Captions that short say nothing to learn from: look at the caption column.",
    "license not in --licenses": "Leave --licenses out, or name the licenses that the source states.",
    "not retrieved from the server": "Ask who runs the server why it does not give the object.",
    "study not retrieved": "Ask who runs the server why it does not give the study.",
    "report not retrieved": "Ask who runs the server why it does not give the report.",
    "no report": "Put the report of a study beside it (x.txt beside x.dcm, or report.txt in its folder); docs/pacs.md "
    "writes those of a table there. On a server, search for studies with structured reports (ModalitiesInStudy=SR).",
    **dict.fromkeys(
        ("report without an image", "report without images"),
        "Fetch the images of the reports, or give the folder that holds both.",
    ),
    "not a DICOM file": "Where a table names the images, give the table instead of the folder.",
}
"""By the beginning of the reason."""


def write_dropped(folder: Path, rows: Iterable[Sequence[str]]) -> None:
    """Write `folder`/dropped.jsonl; a row is its id, its split, its reason and a detail."""
    with whole_file(folder / DROPPED_FILE) as partial, partial.open("w", encoding="utf-8") as lines:
        for row in rows:
            lines.write(printable(json.dumps(dict(zip(_FIELDS, row, strict=True)), ensure_ascii=False)) + "\n")


def explain_dropped(folder: Path) -> str:
    """The most frequent reasons in `folder`/dropped.jsonl with what to do about each, as sentences."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    with (folder / DROPPED_FILE).open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            counts[row["reason"]] += 1
            examples.setdefault(row["reason"], row["detail"] or row["id"])
    reasons = counts.most_common(_NUM_REASONS)
    sentences = [
        f"{count:,} × {reason} (first: {examples[reason]}). {remedy_of(reason, examples[reason])}".rstrip()
        for reason, count in reasons
    ]
    if any(REDACTED in examples[reason] for reason, _ in reasons):
        sentences.append(f"{REDACTED} stands for what may name a patient.")
    return " ".join((*sentences, f"All: {folder / DROPPED_FILE}."))


def remedy_of(reason: str, example: str = "") -> str:
    """What to do about rows that were dropped for a reason, as the file `example`; "" where they may be meant to be."""
    if reason == "image unreadable" and (remedy := remedy_of_kind(example)):
        return remedy
    if reason.startswith(("file of a kind that is not read", "archive member of a kind that is not read")):
        return remedy_of_kind(reason)
    return next((remedy for beginning, remedy in _REMEDIES.items() if reason.startswith(beginning)), "")

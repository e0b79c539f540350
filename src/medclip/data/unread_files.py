"""Files of kinds that are not read, as people have them: what to do about each."""

from __future__ import annotations

_REMEDIES = {
    (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers"): "It is a spreadsheet: save its sheet as CSV (UTF-8) and "
    "give that.",
    (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz"): "It is a volume: write the slices that captions are "
    "about as PNG.",
    (".npy", ".npz", ".mat", ".h5", ".hdf5"): "It is an array: write its images as PNG, or as bytes into Parquet.",
    (".mp4", ".avi", ".mov", ".mkv", ".wmv"): "It is a video: write the frames that the captions are about as PNG.",
    (".heic", ".heif", ".svg", ".psd"): "It is an image of a kind that is not read: save it as PNG or JPEG.",
    (".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"): "It is compressed: unpack it and give what is inside.",
    (".txt",): "If it is a table, call it .csv or .tsv; if it is the caption of an image, give the folder of both.",
    (".pkl", ".pickle"): "It is a pickle, which may run what is in it: write the DataFrame as Parquet and give that.",
    (".feather",): "It is a table of Arrow: call it .arrow.",
    (".doc", ".docx", ".rtf", ".odt", ".pdf"): "It is a document: save images or pages as PNG, write image and "
    "caption of each pair into a CSV, and give that.",
}
"""By the end of the name, in lower case."""
_CONTENTS = {
    b"PK\3\4": "It holds a spreadsheet or another ZIP archive: save its sheet as CSV (UTF-8), or call it .zip.",
    b"\xd0\xcf\x11\xe0": "It holds a spreadsheet of an older Excel: save its sheet as CSV (UTF-8) and give that.",
    b"\x1f\x8b": "It is compressed by gzip: call it {name}.gz.",
    b"PAR1": "It is Parquet: call it {stem}.parquet.",
    b"ARROW1": "It is Arrow: call it {stem}.arrow.",
    b"<!doctype": "It holds a web page, as a login gives: fetch it again.",
    b"<html": "It holds a web page, as a login gives: fetch it again.",
}
"""By how the content begins, in lower case where it is text."""


def remedy_of_content(name: str, start: bytes) -> str:
    """What to do about a file that is no text, as its name says, by the bytes that it begins with; "" if it may be."""
    stem, text = name.rpartition(".")[0], start.lstrip().lower()
    remedies = (remedy for begin, remedy in _CONTENTS.items() if start.startswith(begin) or text.startswith(begin))
    return next(remedies, "").format(name=name, stem=stem)


def remedy_of_kind(name: str) -> str:
    """What to do about a file of a kind that is not read, by its name or suffix; "" where nothing is known."""
    return next((remedy for ends, remedy in _REMEDIES.items() if name.lower().endswith(ends)), "")

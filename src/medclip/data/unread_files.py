"""Files of kinds that are not read, as people have them: what to do about each."""

from __future__ import annotations

_REMEDIES = {
    (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers"): "It is a spreadsheet: save its sheet as CSV (UTF-8) and "
    "give that.",
    (".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"): "It is compressed: unpack it and give what is inside.",
    (".txt",): "If it is a table, call it .csv or .tsv; if it is the caption of an image, give the folder of both.",
    (".pkl", ".pickle"): "It is a pickle, which may run what is in it: write the DataFrame as Parquet and give that.",
    (".feather",): "It is a table of Arrow: call it .arrow.",
    (".doc", ".docx", ".rtf", ".odt", ".pdf"): "It is a document: write image and caption of each pair into a CSV and "
    "give that.",
}
"""By the end of the name, in lower case."""


def remedy_of_kind(name: str) -> str:
    """What to do about a file of a kind that is not read, by its name or suffix; "" where nothing is known."""
    return next((remedy for ends, remedy in _REMEDIES.items() if name.lower().endswith(ends)), "")

"""The table of docs/dicom.md: the outcome for pydicom's own files, by transfer syntax.

cd tests && python -m support.dicom_table > ../docs/dicom.md
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import pydicom
from pydicom.pixels.decoders.base import _PIXEL_DATA_DECODERS as DECODERS

from medclip.data.images import decode, is_dicom
from medclip.errors import ImageError
from support.dicom_files import PACKAGED

PACKAGES = ("pydicom", "pyjpegls", "pylibjpeg-openjpeg", "python-gdcm")


def outcomes() -> dict[str, dict[str, str]]:
    """Outcome of `decode` by transfer syntax and file; files without pixels are left out."""
    by_syntax: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted(filter(is_dicom, PACKAGED.glob("*.dcm"))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some files are made to cause warnings
            ds = pydicom.dcmread(path, force=True)  # some lack the preamble
        if "PixelData" in ds and "TransferSyntaxUID" in ds.file_meta:
            by_syntax[ds.file_meta.TransferSyntaxUID.name][path.name] = outcome(path)
    return by_syntax


def outcome(path: Path) -> str:
    """ "decoded", or the reason of the refusal."""
    try:
        decode(path)
    except ImageError as error:
        return str(error)
    return "decoded"


def table(with_files: dict[str, dict[str, str]]) -> str:
    """docs/dicom.md."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = [
        "# DICOM by transfer syntax",
        "",
        "Which DICOM files are decoded, by transfer syntax (how a file is compressed): every file with pixels that",
        f"comes with pydicom, read with {packages}.",
        "A DICOMweb server is asked for objects as it stores them, so the same table holds for it.",
        "",
        "Made by `cd tests && python -m support.dicom_table`.",
        "",
        "| transfer syntax | files | decoded | dropped, by reason |",
        "|---|---|---|---|",
    ]
    for name in dict.fromkeys([*(uid.name for uid in DECODERS), *with_files]):
        files = with_files.get(name, {})
        refused = "; ".join(f"{file}: {outcome}" for file, outcome in files.items() if outcome != "decoded")
        decoded = sum(outcome == "decoded" for outcome in files.values())
        lines.append(f"| {name} | {len(files) or 'none to test with'} | {decoded if files else ''} | {refused} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(outcomes()), end="")

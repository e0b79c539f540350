"""DICOM files for the tests: pydicom's own that come inside its package, and small ones made here."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

PACKAGED = Path(pydicom.__file__).parent / "data" / "test_files"  # pydicom-data's larger files need the network


def gray_ramp(rows: int = 40, columns: int = 32, top: int = 4000, dtype: type = np.uint16) -> np.ndarray:
    """A ramp from 0 to `top`, row by row."""
    return np.linspace(0, top, rows * columns).reshape(rows, columns).astype(dtype)


def dicom(pixels: np.ndarray | None, **attributes) -> Dataset:
    """A dataset of these stored pixels: (rows, columns), (frames, rows, columns) or, as RGB, (rows, columns, 3)."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CTImageStorage, generate_uid(), "CT"
    if pixels is not None:
        color = pixels.shape[-1] == 3
        bits = pixels.dtype.itemsize * 8
        ds.Rows, ds.Columns = pixels.shape[:2] if color else pixels.shape[-2:]
        ds.SamplesPerPixel = 3 if color else 1
        ds.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
        ds.PixelRepresentation = int(pixels.dtype.kind == "i")
        if color:
            ds.PlanarConfiguration = 0
        elif pixels.ndim == 3:
            ds.NumberOfFrames = len(pixels)
        ds.PixelData = pixels.tobytes()
        ds["PixelData"].VR = "OW"
    with pydicom.config.disable_value_validation():
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
    return ds


def dicom_bytes(ds: Dataset, syntax: UID | None = None) -> bytes:
    """The bytes of a file of the dataset, in the transfer syntax `syntax` (None: its own)."""
    out = io.BytesIO()
    if syntax is not None:
        ds.file_meta.TransferSyntaxUID = syntax
    with pydicom.config.disable_value_validation():
        ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def without_meta(data: bytes) -> bytes:
    """The bytes of a file without its preamble and its meta information."""
    return data[132 + 12 + int.from_bytes(data[140:144], "little") :]


def write_dicom(ds: Dataset, path: Path) -> Path:
    """The dataset as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dicom_bytes(ds))
    return path


def count_removed(dataset: dict[str, Any]) -> Counter[str]:
    """How many pairs of a prepared dataset left what behind, over all splits."""
    return sum(map(Counter, dataset["privacy"].values()), Counter())


def sequence(**attributes) -> list[Dataset]:
    """A sequence of one item."""
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return [item]


def crashing_dicom() -> bytes:
    """A lossless JPEG of pydicom's with one byte changed, at which GDCM 3.2.6 aborts its process."""
    image = bytearray((PACKAGED / "SC_rgb_jpeg_gdcm.dcm").read_bytes())
    image[1358] = 148
    return bytes(image)

"""Stored pixels of a DICOM image in the values that a viewer first displays: PS3.3 C.11 and C.7.6.3.

Optional attributes that are empty or that the standard does not allow count as absent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from medclip.errors import NO_FINITE_PIXELS, ImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_VOI_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_MAX_EXPONENT = 700.0  # exp of more overflows


def numbers(dataset: Dataset, keyword: str) -> list[float | None]:
    """The values of an attribute, None for each that is empty or not a finite number; [] where there is none."""
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom raises nearly every class there is for a value of another length or type
        return []
    if isinstance(value, bytes):
        value = value.decode("latin-1").rstrip("\0")
    if isinstance(value, str):
        value = value.split("\\")
    values = value if isinstance(value, Iterable) else [value]
    return [_finite_number(each) for each in values]


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; [] where it is absent or damaged."""
    try:
        return [item for item in dataset.get(keyword) or () if hasattr(item, "keys")]
    except Exception:
        return []


def to_display(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Stored pixels, (rows, columns) or (rows, columns, 3), as u8 in display values.

    Raises ImageError where no pixel is finite, and ValueError for a palette that does not hold the colors used.
    """
    photometric = header.PhotometricInterpretation
    if photometric == "PALETTE COLOR":
        return _apply_palette(stored, header)
    if stored.ndim == 3:
        return _to_uint8(stored, header.BitsStored)
    outside = _padding_mask(stored, header)
    values = _apply_modality(stored, header)
    brightness = _apply_voi(values, header)
    if brightness is None:
        inside = values[~outside & np.isfinite(values)]
        inside = inside if inside.size else values[np.isfinite(values)]
        if not inside.size:
            raise ImageError(NO_FINITE_PIXELS)
        brightness = _ramp(values, float(inside.min()), float(inside.max()))
    if photometric == "MONOCHROME1":
        brightness = 1 - brightness
    brightness[outside | np.isnan(values)] = 0
    return np.rint(255 * brightness.clip(0, 1)).astype(np.uint8)


def _finite_number(value: Any) -> float | None:
    try:
        number = float(str(value).strip())
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _number(dataset: Dataset, keyword: str, default: float) -> float:
    values = [value for value in numbers(dataset, keyword) if value is not None]
    return values[0] if values else default


def _ramp(values: np.ndarray, black: float, white: float) -> np.ndarray:
    if black == white:
        return np.zeros(values.shape)
    return (values - black) / (white - black)


def _apply_modality(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Stored values through the modality LUT, else the rescale (PS3.3 C.11.1), as float64."""
    for item in items(header, "ModalityLUTSequence")[:1]:
        if lut := _read_lut(item, header):
            return _look_up(stored, *lut).astype(np.float64)
    slope = _number(header, "RescaleSlope", 1) or 1.0  # a slope of 0 would show nothing
    return stored * slope + _number(header, "RescaleIntercept", 0)


def _apply_voi(values: np.ndarray, header: Dataset) -> np.ndarray | None:
    """Brightness, 0 black and 1 white, by the first VOI LUT, else the first window; None where neither is usable."""
    for item in items(header, "VOILUTSequence"):
        if lut := _read_lut(item, header):
            first, entries = lut  # its entries need not fill their bits, nor ascend
            return _ramp(_look_up(values, first, entries), float(entries.min()), float(entries.max()))
    function = str(header.get("VOILUTFunction") or "").strip().upper()
    function = function if function in _VOI_FUNCTIONS else "LINEAR"
    window = _first_window(header, 1 if function == "LINEAR" else math.ulp(0))
    return None if window is None else _apply_window(values, function, *window)


def _first_window(header: Dataset, min_width: float) -> tuple[float, float] | None:
    """The first center and width that are both usable."""
    centers, widths = numbers(header, "WindowCenter"), numbers(header, "WindowWidth")
    if len(centers) != len(widths):  # an empty value in one only
        centers, widths = ([value for value in values if value is not None] for values in (centers, widths))
    for center, width in zip(centers, widths, strict=False):
        if center is not None and width is not None and width >= min_width:
            return center, width
    return None


def _apply_window(values: np.ndarray, function: str, center: float, width: float) -> np.ndarray:
    """Brightness by a window: the formulas of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        exponent = (-4 * (values - center) / width).clip(-_MAX_EXPONENT, _MAX_EXPONENT)
        return 1 / (1 + np.exp(exponent))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    return (values - center) / width + 0.5


def _read_lut(item: Dataset, header: Dataset) -> tuple[int, np.ndarray] | None:
    """The first value mapped and the entries of a LUT; None where it is empty or shorter than it says."""
    descriptor = numbers(item, "LUTDescriptor")
    entries = _read_entries(item, "LUTData", descriptor, header)
    if entries is None or len(entries) < _num_entries(descriptor):
        return None
    return int(descriptor[1] or 0), entries


def _num_entries(descriptor: list[float | None]) -> int:
    return int(descriptor[0] or 0) % 2**16 or 2**16  # 0 stands for 65,536; signed where the pixels are


def _read_entries(dataset: Dataset, keyword: str, descriptor: list[float | None], header: Dataset) -> np.ndarray | None:
    """The entries of a LUT, as i64; None without a descriptor or data. Entries of 8 bits may fill words of 16."""
    try:
        data = dataset.get(keyword)
    except Exception:
        return None
    if data in (None, "", b"") or len(descriptor) != 3 or None in descriptor:
        return None
    order = "<" if header.file_meta.TransferSyntaxUID.is_little_endian else ">"
    if not isinstance(data, bytes):
        data = (np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF).astype(f"{order}u2").tobytes()
    count = _num_entries(descriptor)
    if len(data) < 2 * count and count <= len(data):
        return np.frombuffer(data, np.uint8, count).astype(np.int64)
    return np.frombuffer(data, f"{order}u2", min(count, len(data) // 2)).astype(np.int64)


def _look_up(values: np.ndarray, first: int, entries: np.ndarray) -> np.ndarray:
    """Values through a LUT whose first entry is for `first`; those below and above take its first and last entry."""
    if first >= 2**15 and values.min() < 0:  # written unsigned
        first -= 2**16
    indices = np.nan_to_num(np.rint(values) - first).clip(0, len(entries) - 1)
    return entries[indices.astype(np.int64)]


def _apply_palette(stored: np.ndarray, header: Dataset) -> np.ndarray:
    descriptor = numbers(header, "RedPaletteColorLookupTableDescriptor")
    tables = []
    for color in ("Red", "Green", "Blue"):
        entries = _read_entries(header, f"{color}PaletteColorLookupTableData", descriptor, header)
        if entries is not None:
            tables.append(entries)
    first = int(descriptor[1] or 0)
    if not tables:  # segmented
        from pydicom.pixels.processing import apply_color_lut

        inputs = np.arange(first, first + _num_entries(descriptor))
        tables = list(np.moveaxis(apply_color_lut(inputs, header)[..., :3], -1, 0).astype(np.int64))
    num_used = min(int(stored.max()) - first + 1, _num_entries(descriptor))
    if len(tables) != 3 or min(map(len, tables)) < num_used:
        raise ValueError("a palette without the colors used")
    colors = np.stack([_look_up(stored, first, table) for table in tables], -1)
    # The entries tell their depth better than the descriptor, which may say 16 for entries of 8 bits or 8 for 16.
    largest, bits = max(int(table.max()) for table in tables), int(descriptor[2] or 16)
    return _to_uint8(colors, 8 if largest < 2**8 else bits if bits > 8 and largest < 2**bits else 16)


def _to_uint8(colors: np.ndarray, bits: int) -> np.ndarray:
    return np.ascontiguousarray(colors >> max(0, bits - 8)).astype(np.uint8)


def _padding_mask(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Pixels outside the image: of PixelPaddingValue, or from there to PixelPaddingRangeLimit."""
    prefix = {"f4": "Float", "f8": "DoubleFloat"}.get(stored.dtype.str[1:], "")
    value = _number(header, f"{prefix}PixelPaddingValue", math.nan)
    if math.isnan(value):
        return np.zeros(stored.shape, bool)
    limit = _number(header, f"{prefix}PixelPaddingRangeLimit", value)
    limits = np.array([value, limit], np.float64 if prefix else np.int64)
    if stored.dtype != np.uint8:  # either may be written unsigned where the pixels are signed
        limits = limits.astype(stored.dtype)
    return (stored >= limits.min()) & (stored <= limits.max())

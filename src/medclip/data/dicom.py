"""The pixels of a DICOM file as an image: one frame, as a viewer first displays it."""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from medclip.errors import MAX_PIXELS, TOO_MANY_PIXELS, ImageError, UserError
from medclip.require import require

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

BURNED_IN = "burned-in annotation"
RECOGNIZABLE = "recognizable visual features"
NO_PIXELS = "no pixels in the DICOM file"
TWELVE_BITS = "12-bit extended JPEG (pylibjpeg-libjpeg reads it; its license is the GPL)"
BORDER_DIVISOR = 10
"""A masked border is a tenth of each side."""

_DEFLATED = "1.2.840.10008.1.2.1.99"
_JPEG_EXTENDED_12_BIT = "1.2.840.10008.1.2.4.51"
# GDCM aborts on some damaged JPEG, JPEG-LS and JPEG 2000 streams, so other plugins decode whatever they can.
_DECODING_PLUGINS = {
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG baseline
    "1.2.840.10008.1.2.5": "pydicom",  # RLE lossless
    **dict.fromkeys(("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"), "pyjpegls"),  # JPEG-LS
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 92, 93, 201, 202, 203)), "pylibjpeg"),  # JPEG 2000
}
# The functional groups in which enhanced objects keep rescale and window.
_DISPLAY_MACROS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
_BELOW_AND_ABOVE_ALL = np.array([-1e12, 1e12])


def read_header(source: Path | BinaryIO) -> Dataset:
    """A file's dataset without its pixels. Raises ImageError, and UserError where pydicom is not installed."""
    with dicom_errors(), _open(source) as file:
        _refuse_large_inflation(file)
        return _pydicom().dcmread(file, stop_before_pixels=True)


def frame_count(header: Dataset) -> int:
    """The number of frames that a header claims; 1 where it holds no number."""
    return max(1, int_attribute(header, "NumberOfFrames", 1))


def int_attribute(header: Dataset, keyword: str, default: int) -> int:
    """The number in an attribute, or `default` where it holds none."""
    try:
        return int(header.get(keyword) or default)
    except (TypeError, ValueError):
        return default


def decode_frame(image: Path | bytes, frame: int | None = None, masked: bool = False) -> Image.Image:
    """One frame (None: the middle one) as mode L or RGB.

    Gray values pass through the modality LUT or rescale and the first VOI LUT or window; without one, their own range
    is stretched to 0–255. MONOCHROME1 is inverted and padding is black. `masked` paints a tenth of each side black.
    Raises ImageError for an image whose header reports burned-in text (unless masked) or recognizable features, for a
    file without pixels, damaged or too large, and for a transfer syntax without a decoder; UserError where pydicom is
    not installed.
    """
    with dicom_errors(), _open(io.BytesIO(image) if isinstance(image, bytes) else image) as file:
        header = read_header(file)
        if str(header.get("RecognizableVisualFeatures")).upper() == "YES":
            raise ImageError(RECOGNIZABLE)
        if str(header.get("BurnedInAnnotation")).upper() == "YES" and not masked:
            raise ImageError(BURNED_IN)
        number = frame_count(header) // 2 if frame is None else frame
        stored = _read_pixels(file, header, number)
        _lift_display_macros(header, number)
        display = _to_display(stored, header)
    if masked:
        rows, columns = (-(-side // BORDER_DIVISOR) for side in display.shape[:2])  # rounded up
        center = display[rows:-rows, columns:-columns].copy()
        display[:] = 0
        display[rows:-rows, columns:-columns] = center
    return Image.fromarray(display)


@contextmanager
def dicom_errors() -> Iterator[None]:
    """Turn any error in a DICOM file into an ImageError; nothing of its header is printed or logged."""
    pydicom = _pydicom()
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")  # they quote values of the header
            yield
    except (ImageError, UserError, FileNotFoundError):
        raise
    except Exception as error:  # on damaged files pydicom and its decoders raise nearly every class there is
        raise ImageError("image unreadable") from error


def _pydicom(module: str = "pydicom") -> Any:
    """pydicom or one of its modules, with its logger silenced, as warnings quote values of the header."""
    imported = require(module, extra="dicom")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    return imported


@contextmanager
def _open(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    else:
        source.seek(0)
        yield source


def _refuse_large_inflation(file: BinaryIO) -> None:
    """Refuse a deflated dataset that grows too large: readers inflate it in memory, so it is measured in pieces."""
    file.seek(132)
    meta = _pydicom("pydicom.filereader").data_element_generator(
        file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag >> 16 != 2
    )
    syntax = {int(element.tag): element.value for element in meta}.get(0x00020010) or b""
    if syntax.rstrip(b"\0 ") == _DEFLATED.encode():
        inflate, remaining = zlib.decompressobj(-zlib.MAX_WBITS), 4 * MAX_PIXELS
        while remaining > 0 and (piece := inflate.unconsumed_tail or file.read(2**16)):
            remaining -= len(inflate.decompress(piece, 2**20))
        if remaining <= 0:
            raise ImageError(TOO_MANY_PIXELS)
    file.seek(0)


def _read_pixels(file: BinaryIO, header: Dataset, number: int) -> np.ndarray:
    """Pixels as stored, (rows, columns) or (rows, columns, 3); `file` is positioned where its header ends."""
    pixels = _pydicom("pydicom.pixels")
    if "Rows" not in header or "Columns" not in header:
        raise ImageError(NO_PIXELS)
    if header.Rows * header.Columns > MAX_PIXELS:
        raise ImageError(TOO_MANY_PIXELS)
    syntax = header.file_meta.TransferSyntaxUID
    try:
        pixels.get_decoder(syntax)
    except NotImplementedError:
        name = "" if syntax.name == str(syntax) else f": {syntax.name}"
        raise ImageError(f"transfer syntax that nothing here decodes{name}") from None
    plugin = _DECODING_PLUGINS.get(syntax, "")
    if not (syntax.is_encapsulated or syntax == _DEFLATED):
        if not file.read(1):
            raise ImageError(NO_PIXELS)
        return pixels.pixel_array(file, index=number, decoding_plugin=plugin)
    file.seek(0)
    dataset = _pydicom().dcmread(file)
    if "PixelData" not in dataset:
        raise ImageError(NO_PIXELS)
    if syntax.is_encapsulated:
        offsets = (header.get("ExtendedOffsetTable"), header.get("ExtendedOffsetTableLengths"))
        frame = _pydicom("pydicom.encaps").get_frame(
            dataset.PixelData,
            number,
            number_of_frames=frame_count(header),
            extended_offsets=offsets if all(offsets) else None,
        )
        _refuse_stream(frame, syntax)
    return pixels.pixel_array(dataset, index=number, decoding_plugin=plugin)


def _refuse_stream(stream: bytes, syntax: UID) -> None:
    """Refuse a stream that claims too many pixels, whatever its header says, and 12-bit JPEG without a decoder."""
    if stream[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: the reference grid and where the image begins on it
        right, bottom, left, top = struct.unpack_from(">4I", stream, 8)
        if (right - left) * (bottom - top) > MAX_PIXELS:
            raise ImageError(TOO_MANY_PIXELS)
        return
    position = 2
    while stream[position : position + 1] == b"\xff":
        marker, length = stream[position + 1], int.from_bytes(stream[position + 2 : position + 4])
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # a start of frame
            precision, rows, columns = struct.unpack_from(">BHH", stream, position + 4)
            if rows * columns > MAX_PIXELS:
                raise ImageError(TOO_MANY_PIXELS)
            if syntax == _JPEG_EXTENDED_12_BIT and precision > 8 and not _decodes_twelve_bits():
                raise ImageError(TWELVE_BITS)
            return
        position += 1 if marker == 0xFF else 2 + length  # markers may be preceded by any number of fill bytes


def _decodes_twelve_bits() -> bool:
    return "pylibjpeg" in _pydicom("pydicom.pixels").get_decoder(_JPEG_EXTENDED_12_BIT).available_plugins


def _to_display(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Stored pixels as u8 in display values."""
    pixels = _pydicom("pydicom.pixels")
    if header.PhotometricInterpretation == "PALETTE COLOR":
        colors = pixels.apply_color_lut(stored, header)[..., :3]
        return _to_uint8(colors, header.RedPaletteColorLookupTableDescriptor[2])
    if stored.ndim == 3:
        return _to_uint8(stored, header.BitsStored)
    padding = _padding_mask(stored, header)
    values = pixels.apply_modality_lut(stored, header)
    window = _apply_window(values, header)
    if window is None:
        inside = values[~padding] if not padding.all() else values
        window = values, float(inside.min()), float(inside.max())
    values, black, white = window
    brightness = (values - black) / (white - black) if white != black else np.zeros(values.shape)
    if header.PhotometricInterpretation == "MONOCHROME1":
        brightness = 1 - brightness
    brightness[padding] = 0
    return np.rint(255 * brightness.clip(0, 1)).astype(np.uint8)


def _to_uint8(colors: np.ndarray, bits: int) -> np.ndarray:
    return np.ascontiguousarray(colors >> max(0, bits - 8)).astype(np.uint8)


def _apply_window(values: np.ndarray, header: Dataset) -> tuple[np.ndarray, float, float] | None:
    """Values through the VOI LUT or window, with the values of black and white; None without a meaningful window."""
    apply_voi_lut = _pydicom("pydicom.pixels").apply_voi_lut
    lut = header.get("VOILUTSequence")
    if not (lut and "LUTData" in lut[0]) and None in (header.get("WindowCenter"), header.get("WindowWidth")):
        return None
    try:
        if lut and "LUTData" in lut[0]:
            entries, first = lut[0].LUTDescriptor[0] or 2**16, lut[0].LUTDescriptor[1]
            outputs = apply_voi_lut(np.arange(first, first + entries), header)  # need not fill its bits, nor ascend
            mapped = apply_voi_lut(np.rint(values).astype(np.int64), header).astype(float)
            return mapped, float(outputs.min()), float(outputs.max())
        black, white = map(float, apply_voi_lut(_BELOW_AND_ABOVE_ALL, header))
        return apply_voi_lut(values, header), black, white
    except (ValueError, NotImplementedError):  # a width of 0, a function that the standard does not define
        return None


def _padding_mask(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Pixels outside the image: of PixelPaddingValue, or from there to PixelPaddingRangeLimit."""
    value = header.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    limit = header.get("PixelPaddingRangeLimit")
    # either may be written unsigned where the pixels are signed
    limits = np.array([value, value if limit is None else limit], np.int64).astype(stored.dtype)
    return (stored >= limits.min()) & (stored <= limits.max())


def _lift_display_macros(header: Dataset, number: int) -> None:
    """Copy rescale and window of an enhanced object from its functional groups to where the LUT functions look."""
    for groups, index in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", number)):
        for group in (header.get(groups) or [])[index : index + 1]:
            for macro in _DISPLAY_MACROS:
                for item in (group.get(macro) or [])[:1]:
                    header.update(item)

"""The pixels of a DICOM file as an image: one frame, as a viewer first displays it."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from medclip.data.dicom_display import items, to_display
from medclip.data.dicom_geometry import middle_frame, square_size
from medclip.data.header_readings import keep_bytes
from medclip.errors import MAX_PIXELS, TOO_MANY_PIXELS, ImageError, UserError
from medclip.require import require
from medclip.warning_filters import ignore_warnings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

BURNED_IN = "burned-in annotation"
RECOGNIZABLE = "recognizable visual features"
NO_PIXELS = "no pixels in the DICOM file"
NO_SYNTAX = "compressed pixels whose transfer syntax is missing or wrong"
TOO_LARGE_BARE = "DICOM without preamble or transfer syntax, over 512 MiB"
TWELVE_BITS = "12-bit extended JPEG (pylibjpeg-libjpeg reads it; its license is the GPL)"
BORDER_DIVISOR = 10
"""A masked border is a tenth of each side."""

_MAX_BARE_BYTES = 2**29  # of a file that is copied in memory, thrice
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_RLE = "1.2.840.10008.1.2.5"
_IMPLICIT, _EXPLICIT, _BIG_ENDIAN = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2"
_JPEG_EXTENDED_12_BIT = "1.2.840.10008.1.2.4.51"
# GDCM aborts on some damaged JPEG, JPEG-LS and JPEG 2000 streams, so other plugins decode whatever they can.
_DECODING_PLUGINS = {
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG baseline
    _RLE: "pydicom",
    **dict.fromkeys(("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"), "pyjpegls"),  # JPEG-LS
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 92, 93, 201, 202, 203)), "pylibjpeg"),  # JPEG 2000
}
# The functional groups in which enhanced objects keep rescale, window and the distances of pixels.
_DISPLAY_MACROS = ("PixelValueTransformationSequence", "FrameVOILUTSequence", "PixelMeasuresSequence")


def read_header(source: Path | BinaryIO) -> Dataset:
    """A file's dataset without its pixels. Raises ImageError, and UserError where pydicom is not installed."""
    with dicom_errors(), _open(source) as file:
        header = _pydicom().dcmread(file, stop_before_pixels=True)
        keep_bytes(header)
        return header


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
    is stretched to 0–255. MONOCHROME1 is inverted and padding is black; pixels that are not square are made so.
    `masked` paints a tenth of each side black. Raises ImageError for an image whose header reports burned-in text
    (unless masked) or recognizable features, for a file without pixels, damaged or too large, and for a transfer syntax
    without a decoder; UserError where pydicom is not installed.
    """
    with dicom_errors(), _open(io.BytesIO(image) if isinstance(image, bytes) else image) as file:
        header = _pydicom().dcmread(file, stop_before_pixels=True)
        if str(header.get("RecognizableVisualFeatures")).upper() == "YES":
            raise ImageError(RECOGNIZABLE)
        if str(header.get("BurnedInAnnotation")).upper() == "YES" and not masked:
            raise ImageError(BURNED_IN)
        number = middle_frame(header, frame_count(header)) if frame is None else frame
        stored = _read_pixels(file, header, number)
        _lift_display_macros(header, number)
        display = to_display(stored, header)
    if masked:
        rows, columns = (-(-side // BORDER_DIVISOR) for side in display.shape[:2])  # rounded up
        center = display[rows:-rows, columns:-columns].copy()
        display[:] = 0
        display[rows:-rows, columns:-columns] = center
    decoded = Image.fromarray(display)
    size = square_size(header, *decoded.size)
    return decoded if size == decoded.size else decoded.resize(size, Image.Resampling.BICUBIC)


@contextmanager
def dicom_errors() -> Iterator[None]:
    """Turn any error in a DICOM file into an ImageError; nothing of its header is printed or logged."""
    try:
        yield
    except (ImageError, UserError, FileNotFoundError):
        raise
    except Exception as error:  # on damaged files pydicom and its decoders raise nearly every class there is
        raise ImageError("image unreadable") from error


def silence_pydicom() -> None:
    """Let pydicom check no values and print nothing of a header from now on, in any thread."""
    config = require("pydicom.config", extra="dicom")
    config.settings.reading_validation_mode = config.settings.writing_validation_mode = config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    ignore_warnings("pydicom")


def _pydicom(module: str = "pydicom") -> Any:
    """pydicom, silenced, or one of its modules."""
    silence_pydicom()
    return require(module, extra="dicom")


@contextmanager
def _open(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield _with_syntax(file)
    else:
        yield _with_syntax(source)


def _with_syntax(file: BinaryIO) -> BinaryIO:
    """The file at its start; a copy in memory where it lacks the preamble or names no transfer syntax.

    Such a file is Implicit VR Little Endian or, where its first element names a value representation, Explicit VR
    Little or Big Endian: the one that gives a dataset. Raises ImageError where none does, for one that is too large to
    be copied and for one that inflates to too much.
    """
    file.seek(0)
    start = 132 if file.read(132)[128:] == b"DICM" else 0
    file.seek(start)
    syntax, end = _read_meta(file)
    if syntax == _DEFLATED:
        _refuse_large_inflation(file, end)
    file.seek(0)
    if syntax and start:
        return file
    file.seek(end)
    dataset = file.read(_MAX_BARE_BYTES + 1)
    if len(dataset) > _MAX_BARE_BYTES:
        raise ImageError(TOO_LARGE_BARE)
    if syntax:
        return _with_meta(dataset, syntax)
    is_explicit = dataset[4:6].isalpha() and dataset[4:6].isupper()
    for guess in (_EXPLICIT, _BIG_ENDIAN) if is_explicit else (_IMPLICIT,):
        copy = _with_meta(dataset, guess)
        if _holds_dataset(copy):
            copy.seek(0)
            return copy
    raise ImageError("image unreadable")


def _with_meta(dataset: bytes, syntax: bytes) -> BinaryIO:
    """A file of a dataset in a transfer syntax."""
    uid = syntax + b"\0" * (len(syntax) % 2)
    element = struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid
    meta = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(element)) + element
    return io.BytesIO(bytes(128) + b"DICM" + meta + dataset)


def _read_meta(file: BinaryIO) -> tuple[bytes, int]:
    """The transfer syntax in the file meta information, b"" where it names none, and where the dataset begins."""
    start, syntax = file.tell(), b""
    meta = _pydicom("pydicom.filereader").data_element_generator(
        file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag >> 16 != 2
    )
    if file.read(2) != b"\x02\x00":
        return b"", start
    file.seek(start)
    for element in meta:
        if element.tag == 0x00020010:
            syntax = (element.value or b"").strip(b"\0 ")
    return syntax, file.tell()


def _holds_dataset(file: BinaryIO) -> bool:
    """Whether a header of the file is read as it should be: an object's class, or the size of an image."""
    try:
        header = _pydicom().dcmread(file, stop_before_pixels=True)
        sizes = [header.get(keyword) for keyword in ("Rows", "Columns", "BitsAllocated")]
        return str(header.get("SOPClassUID")).startswith("1.") or all(isinstance(n, int) and n > 0 for n in sizes)
    except Exception:
        return False


def _refuse_large_inflation(file: BinaryIO, start: int) -> None:
    """Refuse a deflated dataset that grows too large: readers inflate it in memory, so it is measured in pieces."""
    file.seek(start)
    inflate, remaining = zlib.decompressobj(-zlib.MAX_WBITS), 4 * MAX_PIXELS
    while remaining > 0 and (piece := inflate.unconsumed_tail or file.read(2**16)):
        remaining -= len(inflate.decompress(piece, 2**20))
    if remaining <= 0:
        raise ImageError(TOO_MANY_PIXELS)


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
    if not (syntax.is_encapsulated or syntax == _DEFLATED.decode()):
        start = file.read(12)
        if not start:
            raise ImageError(NO_PIXELS)
        if b"\xff" * 4 in (start[8:], start[4:8]):  # of undefined length, in either kind of value representation
            raise ImageError(NO_SYNTAX)
        return _decode(file, header, number, plugin)
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
    return _decode(dataset, header, number, plugin)


def _decode(source: BinaryIO | Dataset, header: Dataset, number: int, plugin: str) -> np.ndarray:
    """A frame decoded; where its bits do not begin at the lowest of a word, as HighBit says, shifted there."""
    pixel_array = _pydicom("pydicom.pixels").pixel_array
    words, bits, high = (int_attribute(header, keyword, 0) for keyword in ("BitsAllocated", "BitsStored", "HighBit"))
    syntax = header.file_meta.TransferSyntaxUID
    if not 0 < bits <= high < words or words not in (8, 16, 32) or (syntax.is_encapsulated and syntax != _RLE):
        return pixel_array(source, index=number, decoding_plugin=plugin)
    whole = pixel_array(source, index=number, decoding_plugin=plugin, bits_stored=words, pixel_representation=0)
    shifted = (whole.astype(np.int64) >> (high + 1 - bits)) & (2**bits - 1)
    if header.PixelRepresentation == 1:
        shifted = (shifted ^ 2 ** (bits - 1)) - 2 ** (bits - 1)
    return shifted.astype(f"{'ui'[header.PixelRepresentation]}{words // 8}")


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


def _lift_display_macros(header: Dataset, number: int) -> None:
    """Copy the display macros of an enhanced object from its functional groups to where the LUT functions look."""
    for groups, index in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", number)):
        for group in items(header, groups)[index : index + 1]:
            for macro in _DISPLAY_MACROS:
                for item in items(group, macro)[:1]:
                    header.update(item)

"""The pixels of a DICOM file as an image: one frame, as a viewer shows it first."""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image

from medclip.errors import MAX_PIXELS, TOO_MANY_PIXELS, ImageError, UserError

try:
    import pydicom
    from pydicom import uid
    from pydicom.encaps import get_frame
    from pydicom.filereader import data_element_generator
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, get_decoder, pixel_array
except ImportError:
    raise UserError("reading DICOM needs pydicom: pip install 'medclip[dicom]'.") from None

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

BURNED_IN = "burned-in annotation"
RECOGNIZABLE = "recognizable visual features"
NO_PIXELS = "no pixels in the DICOM file"
TWELVE_BITS = "12-bit extended JPEG (pylibjpeg-libjpeg reads it; its license is the GPL)"
BORDER_DIVISOR = 10
"""A masked border is a tenth of each side."""

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its warnings quote values of the header

# GDCM aborts on some damaged JPEG, JPEG-LS and JPEG 2000 streams, so others decode whatever they can.
_DECODERS = {
    uid.JPEGBaseline8Bit: "pillow",
    uid.RLELossless: "pydicom",
    **dict.fromkeys(uid.JPEGLSTransferSyntaxes, "pyjpegls"),
    **dict.fromkeys(uid.JPEG2000TransferSyntaxes, "pylibjpeg"),
}
_MACROS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")  # where enhanced objects keep rescale and window
_ENDS = np.array([-1e12, 1e12])  # below and above every pixel


def read_header(source: Path | BinaryIO) -> Dataset:
    """A file's dataset without its pixels. Raises ImageError."""
    with dicom_errors(), _opened(source) as file:
        _refuse_inflation(file)
        return pydicom.dcmread(file, stop_before_pixels=True)


def frame_count(said: Dataset) -> int:
    """How many frames a header says there are; 1 where it says nothing that is a number."""
    return max(1, int_attribute(said, "NumberOfFrames", 1))


def int_attribute(said: Dataset, keyword: str, otherwise: int) -> int:
    """The number an attribute holds, or another where it holds none."""
    try:
        return int(said.get(keyword) or otherwise)
    except (TypeError, ValueError):
        return otherwise


def decode_frame(image: Path | bytes, frame: int | None = None, masked: bool = False) -> Image.Image:
    """One frame (None: the middle one) as mode L or RGB.

    Grey values go through the modality LUT or rescale and the first VOI LUT or window, or, where there is none, from
    their own range to 0–255; MONOCHROME1 is inverted and padding is black. `masked` paints a tenth of each side black.
    Raises ImageError: images whose header says that text is burned in (unless masked) or that a person can be
    recognized, files without pixels, damaged, too large, or of a transfer syntax that nothing here decodes.
    """
    with dicom_errors(), _opened(io.BytesIO(image) if isinstance(image, bytes) else image) as file:
        said = read_header(file)
        if str(said.get("RecognizableVisualFeatures")).upper() == "YES":
            raise ImageError(RECOGNIZABLE)
        if str(said.get("BurnedInAnnotation")).upper() == "YES" and not masked:
            raise ImageError(BURNED_IN)
        number = frame_count(said) // 2 if frame is None else frame
        stored = _stored(file, said, number)
        _lift_macros(said, number)
        shown = _shown(stored, said)
    if masked:
        down, right = -(-shown.shape[0] // BORDER_DIVISOR), -(-shown.shape[1] // BORDER_DIVISOR)
        kept = shown[down:-down, right:-right].copy()
        shown[:] = 0
        shown[down:-down, right:-right] = kept
    return Image.fromarray(shown)


@contextmanager
def dicom_errors() -> Iterator[None]:
    """Whatever goes wrong with a DICOM file inside the block is an ImageError; nothing of its header is printed."""
    try:
        with warnings.catch_warnings(), pydicom.config.disable_value_validation():
            warnings.simplefilter("ignore")  # they quote values of the header
            yield
    except (ImageError, FileNotFoundError):
        raise
    except Exception as error:  # on damaged files pydicom and its decoders raise nearly every class there is
        raise ImageError("image unreadable") from error


@contextmanager
def _opened(source: Path | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    else:
        source.seek(0)
        yield source


def _refuse_inflation(file: BinaryIO) -> None:
    """A deflated dataset is inflated in memory by whoever reads it: measure it piece by piece first."""
    file.seek(132)
    meta = data_element_generator(file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
    syntax = {element.tag: element.value for element in meta}.get(0x00020010) or b""
    if syntax.rstrip(b"\0 ") == uid.DeflatedExplicitVRLittleEndian.encode():
        inflate, left = zlib.decompressobj(-zlib.MAX_WBITS), 4 * MAX_PIXELS
        while left > 0 and (piece := inflate.unconsumed_tail or file.read(2**16)):
            left -= len(inflate.decompress(piece, 2**20))
        if left <= 0:
            raise ImageError(TOO_MANY_PIXELS)
    file.seek(0)


def _stored(file: BinaryIO, said: Dataset, number: int) -> np.ndarray:
    """Pixels as stored, (rows, columns) or (rows, columns, 3); `file` stands where its header ends."""
    if "Rows" not in said or "Columns" not in said:
        raise ImageError(NO_PIXELS)
    if said.Rows * said.Columns > MAX_PIXELS:
        raise ImageError(TOO_MANY_PIXELS)
    syntax = said.file_meta.TransferSyntaxUID
    try:
        get_decoder(syntax)
    except NotImplementedError:
        known = "" if syntax.name == str(syntax) else f": {syntax.name}"
        raise ImageError(f"transfer syntax that nothing here decodes{known}") from None
    source: Dataset | BinaryIO = file
    if syntax.is_encapsulated or syntax == uid.DeflatedExplicitVRLittleEndian:
        file.seek(0)
        source = pydicom.dcmread(file)
        if "PixelData" not in source:
            raise ImageError(NO_PIXELS)
        if syntax.is_encapsulated:
            table = (said.get("ExtendedOffsetTable"), said.get("ExtendedOffsetTableLengths"))
            frame = get_frame(
                source.PixelData,
                number,
                number_of_frames=frame_count(said),
                extended_offsets=table if all(table) else None,
            )
            _refuse_stream(frame, syntax)
    elif not file.read(1):
        raise ImageError(NO_PIXELS)
    return pixel_array(source, index=number, decoding_plugin=_DECODERS.get(syntax, ""))


def _refuse_stream(stream: bytes, syntax: uid.UID) -> None:
    """Decoders allocate what the stream says, not what the header says; and none here reads 12-bit extended JPEG."""
    if stream[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: the reference grid and where the image begins on it
        right, bottom, left, top = struct.unpack_from(">4I", stream, 8)
        if (right - left) * (bottom - top) > MAX_PIXELS:
            raise ImageError(TOO_MANY_PIXELS)
        return
    at = 2
    while stream[at : at + 1] == b"\xff":
        marker, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4])
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # a start of frame
            precision, rows, columns = struct.unpack_from(">BHH", stream, at + 4)
            if rows * columns > MAX_PIXELS:
                raise ImageError(TOO_MANY_PIXELS)
            if syntax == uid.JPEGExtended12Bit and precision > 8 and not _reads_twelve_bits():
                raise ImageError(TWELVE_BITS)
            return
        at += 1 if marker == 0xFF else 2 + length  # markers may be preceded by any number of fill bytes


def _reads_twelve_bits() -> bool:
    return "pylibjpeg" in get_decoder(uid.JPEGExtended12Bit).available_plugins


def _shown(stored: np.ndarray, said: Dataset) -> np.ndarray:
    """u8 as displayed."""
    if said.PhotometricInterpretation == "PALETTE COLOR":
        colors = apply_color_lut(stored, said)[..., :3]
        return _bytes(colors, said.RedPaletteColorLookupTableDescriptor[2])
    if stored.ndim == 3:
        return _bytes(stored, said.BitsStored)
    padding = _padding(stored, said)
    values = apply_modality_lut(stored, said)
    black, white, shown = _window(values, said)
    if shown is None:
        inside = values[~padding] if not padding.all() else values
        black, white, shown = float(inside.min()), float(inside.max()), values
    share = (shown - black) / (white - black) if white != black else np.zeros(shown.shape)
    if said.PhotometricInterpretation == "MONOCHROME1":
        share = 1 - share
    share[padding] = 0
    return np.rint(255 * share.clip(0, 1)).astype(np.uint8)


def _bytes(colors: np.ndarray, bits: int) -> np.ndarray:
    return np.ascontiguousarray(colors >> max(0, bits - 8)).astype(np.uint8)


def _window(values: np.ndarray, said: Dataset) -> tuple[float, float, np.ndarray | None]:
    """Values through the VOI LUT or window, and what black and white are there; None where there is none of sense."""
    lut = said.get("VOILUTSequence")
    if not (lut and "LUTData" in lut[0]) and None in (said.get("WindowCenter"), said.get("WindowWidth")):
        return 0, 0, None
    try:
        if lut and "LUTData" in lut[0]:
            entries, first = lut[0].LUTDescriptor[0] or 2**16, lut[0].LUTDescriptor[1]
            ends = apply_voi_lut(np.arange(first, first + entries), said)  # a LUT need not fill its bits, nor ascend
            black, white = float(ends.min()), float(ends.max())
            return black, white, apply_voi_lut(np.rint(values).astype(np.int64), said).astype(float)
        black, white = map(float, apply_voi_lut(_ENDS, said))
        return black, white, apply_voi_lut(values, said)
    except (ValueError, NotImplementedError):  # a width of 0, a function that the standard does not know
        return 0, 0, None


def _padding(stored: np.ndarray, said: Dataset) -> np.ndarray:
    """Where there is no image: pixels of PixelPaddingValue, or from there to PixelPaddingRangeLimit."""
    value = said.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    limit = said.get("PixelPaddingRangeLimit")
    # either may be written unsigned where the pixels are signed
    ends = np.array([value, value if limit is None else limit], np.int64).astype(stored.dtype)
    return (stored >= ends.min()) & (stored <= ends.max())


def _lift_macros(said: Dataset, number: int) -> None:
    """Rescale and window of an enhanced object, from its functional groups to where the LUT functions look."""
    for groups, at in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", number)):
        for group in (said.get(groups) or [])[at : at + 1]:
            for macro in _MACROS:
                for item in (group.get(macro) or [])[:1]:
                    said.update(item)

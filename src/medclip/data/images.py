"""Images decoded from bytes and files, and encoded as preparation stores them.

Without numpy, which few images need: a process that decodes starts in half the time.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from PIL import ExifTags, Image, ImageChops, ImageOps, UnidentifiedImageError

from medclip.data.decode_workers import UNREADABLE, isolate
from medclip.data.paths import special_kind
from medclip.data.schema import DicomFrame, WebInstance
from medclip.errors import (
    IS_FOLDER,
    MAX_ASPECT_RATIO,
    MAX_PIXELS,
    MAX_SIDE,
    REMOTE,
    SIDE_TOO_LONG,
    STRIP,
    TOO_MANY_PIXELS,
    ImageError,
)
from medclip.warning_filters import ignore_warnings

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import TypeIs

    from medclip.data.pixel_arrays import ImageInput

T = TypeVar("T")
R = TypeVar("R")
JPEG_QUALITY = 95
UPLOAD_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP")  # of strangers: few decoders to attack
FORMATS = (*UPLOAD_FORMATS, "JPEG2000", "AVIF", "PPM", "TGA", "PCX", "DIB", "SGI")
_START_BYTES = 132
_DECODED_HERE = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # JPEG, PNG
_FIRST_VRS = (b"UL", b"CS", b"UI", b"OB", b"DA", b"DT", b"TM", b"LO", b"SH", b"LT")
_LAST_FIRST_ELEMENT, _MAX_FIRST_LENGTH = 0x70, 64
_WHITE_IS_ZERO, _PHOTOMETRIC_TAG = 0, 262  # TIFF 6.0, section 8
_URL_AS_PATH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a path has one of the two slashes
_pil_load_lock = threading.Lock()  # an image may stand twice in a batch, and Pillow's lazy load is not thread-safe


def decode(image: ImageInput | DicomFrame) -> Image.Image:
    """Decode the whole image, upright, as an image of its own of mode L or RGB.

    Only JPEG, PNG and what is in memory is decoded in this process: decoders of other formats, such as GDCM and
    OpenJPEG, crash on damaged images. For any image of a stranger call it by `isolate`.

    16-bit grays and floats are scaled from their own finite range (NaN is black), transparency is laid on black, and
    a color image whose channels are equal becomes gray. For DICOM see `medclip.data.dicom`. Raises ImageError ("image
    missing", REMOTE, IS_FOLDER, "image unreadable", "image over 100 million pixels", "image over 65,500 pixels a side",
    "no finite pixel values", and DICOM's reasons).
    """
    image = Path(image) if isinstance(image, str) else image
    with _image_errors():
        if isinstance(image, Image.Image):
            with _pil_load_lock:
                return _upright(image)
        if _is_array(image):
            from medclip.data.pixel_arrays import from_pixels

            return _upright(from_pixels(image))
        file = image.file if isinstance(image, DicomFrame) else image
        if isinstance(file, Path) and _URL_AS_PATH.match(str(file)) and not file.exists():
            raise ImageError(REMOTE)
        if isinstance(file, Path) and (kind := special_kind(file)):
            raise ImageError(kind)
        return isolate(_decode_file, image) if isinstance(image, DicomFrame) else _decode_here_or_apart(image)


def check_image(image: bytes) -> None:
    """Raises ImageError as `decode` does; from a worker no pixels come back."""
    decode(image)


def _is_array(image: object) -> TypeIs[np.ndarray]:
    return hasattr(image, "__array_interface__")


def _decode_here_or_apart(image: Path | bytes) -> Image.Image:
    with io.BytesIO(image) if isinstance(image, bytes) else image.open("rb") as file:  # opened once
        start = file.read(_START_BYTES)
        if start.startswith(_DECODED_HERE) and not _begins_as_dicom(start):
            file.seek(0)
            return _open_image(file)
    return isolate(_decode_file, image)


def _decode_file(image: Path | bytes | DicomFrame) -> Image.Image:
    with _image_errors():
        if isinstance(image, DicomFrame):
            from medclip.data.dicom import decode_frame

            assert not isinstance(image.file, WebInstance), "`retrieve` it first"
            return _to_gray_or_rgb(decode_frame(image.file, image.number, image.masked))
        if is_dicom(image):
            from medclip.data.dicom import decode_frame

            return _to_gray_or_rgb(decode_frame(image))
        with io.BytesIO(image) if isinstance(image, bytes) else image.open("rb") as file:
            return _open_image(file)


def _open_image(file: BinaryIO) -> Image.Image:
    ignore_warnings("PIL")  # of damaged EXIF and of large sizes; both are handled
    with Image.open(file, formats=FORMATS) as opened:
        return _upright(opened)


@contextmanager
def _image_errors() -> Iterator[None]:
    """Turn the errors of files and of Pillow into ImageErrors."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError("image missing") from None
    except IsADirectoryError:
        raise ImageError(IS_FOLDER) from None
    except Image.DecompressionBombError:  # Pillow's own limit, which lies higher, is met while opening
        raise ImageError(TOO_MANY_PIXELS) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ImageError(UNREADABLE) from error


def header_size(image: bytes) -> tuple[int, int]:
    """Width and height in the header of an upload, which is not decoded.

    Raises ImageError, also for formats that only a source may have.
    """
    if is_dicom(image):
        from medclip.data.dicom import int_attribute, read_header

        header = read_header(io.BytesIO(image))
        return int_attribute(header, "Columns", 0), int_attribute(header, "Rows", 0)
    ignore_warnings("PIL")
    with _image_errors(), Image.open(io.BytesIO(image), formats=UPLOAD_FORMATS) as opened:
        return opened.size


def is_dicom(image: Path | bytes) -> bool:
    """Whether the image begins as a DICOM file does, whatever its name; some lack the preamble.

    Check it before any other format: a DICOM file's first 128 bytes may make it a TIFF too.
    """
    return _begins_as_dicom(read_start(image))


def read_start(image: Path | bytes) -> bytes:
    """The first bytes of an image, as many as tell its format."""
    if isinstance(image, bytes):
        return image[:_START_BYTES]
    with image.open("rb") as file:
        return file.read(_START_BYTES)


def _begins_as_dicom(start: bytes) -> bool:
    return start[128:] == b"DICM" or _begins_as_dataset(start)


def _begins_as_dataset(start: bytes) -> bool:
    """Whether bytes begin with an element of the groups that come first, 0002 or 0008; big endian only where explicit.

    An element is its group, its number, then a value representation and a length, or where that is implicit a length.
    """
    is_big_endian, is_explicit = start[:2] == b"\x00\x08", start[4:6] in _FIRST_VRS
    if len(start) < 8 or not (is_big_endian or start[:2] in (b"\x02\x00", b"\x08\x00")):
        return False
    element = int.from_bytes(start[2:4], "big" if is_big_endian else "little")
    is_implicit = start[:2] == b"\x08\x00" and 0 < int.from_bytes(start[4:8], "little") <= _MAX_FIRST_LENGTH
    return element <= _LAST_FIRST_ELEMENT and (is_explicit or is_implicit)


def _upright(image: Image.Image) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(TOO_MANY_PIXELS)
    if max(image.size) > MAX_SIDE:
        raise ImageError(SIDE_TOO_LONG)
    image.load()
    # Pillow inverts such TIFF images of 8 bits and fewer only.
    is_inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # exif_transpose copies the others as well
        image = ImageOps.exif_transpose(image)
    decoded = _to_gray_or_rgb(image, is_inverted)
    decoded.info = {}  # EXIF and comments name people, and go wherever the image does
    return decoded


def _to_gray_or_rgb(image: Image.Image, is_inverted: bool = False) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        from medclip.data.pixel_arrays import stretch

        return stretch(image, is_inverted)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    if image.mode in ("1", "L"):
        return image.convert("L")
    color = image.convert("RGB")
    red, green, blue = color.split()
    is_gray = not any(ImageChops.difference(red, other).getbbox() for other in (green, blue))
    return red if is_gray else color


def standardize(image: ImageInput | DicomFrame, shorter_side: int) -> tuple[bytes, int, int]:
    """Encode as JPEG with the shorter side at most `shorter_side` pixels (never enlarged) and no metadata.

    Returns the bytes, width and height. Raises ImageError, also for a strip, which at a model's size is too large.
    """
    decoded = decode(image)
    shorter = min(decoded.size)
    if max(decoded.size) > MAX_ASPECT_RATIO * shorter:
        raise ImageError(STRIP)
    if shorter > shorter_side:
        width, height = (max(1, round(n * shorter_side / shorter)) for n in decoded.size)
        decoded = decoded.resize((width, height), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    decoded.info.clear()  # without EXIF, comment or profile: nothing identifying leaves preparation
    decoded.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue(), decoded.width, decoded.height


def to_png(image: Image.Image | np.ndarray) -> bytes:
    """An image in memory as a file, lossless but for what `decode` does. Raises ImageError."""
    with io.BytesIO() as out:
        decode(image).save(out, "PNG", compress_level=1)
        return out.getvalue()


def decode_ahead(decode: Callable[[T], R], images: Iterable[T], batch_size: int) -> Iterator[list[R]]:
    """Decode images in threads: lists of `batch_size` results of `decode`, in order, the last one shorter.

    The next list is decoded while one is used, so two of them are in memory. What `decode` raises is raised when its
    list is drawn; a caller that goes on past unreadable images lets `decode` return the reason.
    """
    remaining = iter(images)
    with ThreadPoolExecutor() as threads:

        def submit() -> list[Future[R]]:
            return [threads.submit(decode, image) for image in islice(remaining, batch_size)]

        next_batch = submit()
        while next_batch:
            batch, next_batch = next_batch, submit()
            yield [future.result() for future in batch]

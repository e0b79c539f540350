"""Images decoded from bytes and files, and encoded as preparation stores them."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from medclip.data.schema import DicomFrame
from medclip.errors import MAX_PIXELS, MAX_SIDE, SIDE_TOO_LONG, TOO_MANY_PIXELS, ImageError

T = TypeVar("T")
R = TypeVar("R")
JPEG_QUALITY = 95
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP")
_RESAMPLING = Image.Resampling.BICUBIC
_PIL_LOAD = threading.Lock()  # an image may stand twice in a batch, and Pillow's lazy load is not thread-safe
ImageInput = str | Path | bytes | Image.Image | np.ndarray
"""An image file, encoded bytes, a PIL image, or pixels: uint8 (h, w), (h, w, 1), (h, w, 3) or (h, w, 4)."""


def decode(image: ImageInput | DicomFrame) -> Image.Image:
    """Decode wholly, upright, as mode L or RGB.

    16-bit greys are scaled from their own range, transparency is laid on black, and a color image
    whose channels are equal becomes grey. DICOM is shown as `medclip.data.dicom` says. Raises ImageError ("image
    missing", "image unreadable", "image over 100 million pixels", "image over 65,500 pixels a side", what DICOM adds).
    """
    image = Path(image) if isinstance(image, str) else image
    try:
        if isinstance(image, np.ndarray):
            return _upright(_from_pixels(image))
        if isinstance(image, Image.Image):
            with _PIL_LOAD:
                return _upright(image)
        if isinstance(image, DicomFrame) or is_dicom(image):
            from medclip.data.dicom import decode_frame

            said = (image.path, image.number, image.masked) if isinstance(image, DicomFrame) else (image,)
            return _plain(decode_frame(*said))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of damaged EXIF and of large sizes; both are handled
            with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=FORMATS) as opened:
                return _upright(opened)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError("image missing") from None
    except Image.DecompressionBombError:  # Pillow's own limit, which lies higher, is met while opening
        raise ImageError(TOO_MANY_PIXELS) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ImageError("image unreadable") from error


def header_size(image: bytes) -> tuple[int, int]:
    """Width and height as the header of an encoded image has them, without decoding it. Raises ImageError."""
    if is_dicom(image):
        from medclip.data.dicom import int_attribute, read_header

        said = read_header(io.BytesIO(image))
        return int_attribute(said, "Columns", 0), int_attribute(said, "Rows", 0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
                return opened.size
    except Image.DecompressionBombError:
        raise ImageError(TOO_MANY_PIXELS) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ImageError("image unreadable") from error


def is_dicom(image: Path | bytes) -> bool:
    """Whether it begins as a DICOM file does, whatever its name. Asked before any other format: both can be true."""
    if isinstance(image, bytes):
        return image[128:132] == b"DICM"
    with image.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _from_pixels(pixels: np.ndarray) -> Image.Image:
    channels = pixels.shape[2:] or (1,)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels[0] not in (1, 3, 4) or not pixels.size:
        raise ImageError(f"image array of {pixels.dtype} {pixels.shape}, not uint8 (h, w) or (h, w, 1, 3 or 4)")
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def _upright(image: Image.Image) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(TOO_MANY_PIXELS)
    if max(image.size) > MAX_SIDE:
        raise ImageError(SIDE_TOO_LONG)
    image.load()
    return _plain(ImageOps.exif_transpose(image))


def _plain(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        low, high = float(values.min()), float(values.max())
        scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
        return Image.fromarray(np.rint(scaled).astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        clear = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", clear.size, (0, 0, 0, 255)), clear)
    if image.mode in ("1", "L"):
        return image.convert("L")
    color = image.convert("RGB")
    red, green, blue = color.split()
    grey = red.tobytes() == green.tobytes() == blue.tobytes()
    return red if grey else color


def standardize(image: ImageInput | DicomFrame, side: int) -> tuple[bytes, int, int]:
    """Encode as JPEG with the shorter side at most `side` (never enlarged) and no metadata.

    Returns the bytes, width and height. Raises ImageError.
    """
    picture = decode(image)
    shorter = min(picture.size)
    if shorter > side:
        picture = picture.resize(tuple(max(1, round(n * side / shorter)) for n in picture.size), _RESAMPLING)
    out = io.BytesIO()
    # A fresh image carries no EXIF, comment or profile: nothing identifying leaves preparation.
    Image.frombytes(picture.mode, picture.size, picture.tobytes()).save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue(), picture.width, picture.height


def decode_ahead(decode: Callable[[T], R], images: Iterable[T], batch_size: int) -> Iterator[list[R]]:
    """What `decode` makes of the images, in threads: lists of `batch_size` in order, the last one shorter.

    The next list is decoded while one is used, so two of them are in memory. What `decode` raises is raised when its
    list is drawn; a caller that goes on past unreadable images lets `decode` return the reason.
    """
    left = iter(images)
    with ThreadPoolExecutor() as threads:

        def submit() -> list[Future[R]]:
            return [threads.submit(decode, image) for image in islice(left, batch_size)]

        following = submit()
        while following:
            batch, following = following, submit()
            yield [decoded.result() for decoded in batch]

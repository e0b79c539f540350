"""The one decode stream: images to a model's pixels, in threads, ahead of the device that uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np
import PIL
from jaxtyping import UInt8
from PIL import Image

from medclip.data.decode_workers import UNREADABLE
from medclip.data.images import decode, decode_ahead, header_size
from medclip.data.pixel_arrays import ImageInput
from medclip.data.unread_files import remedy_of_kind
from medclip.errors import ImageError, UserError
from medclip.model.image_processor import ImageProcessor, preprocess
from medclip.progress import Advance
from medclip.versions import library_versions, source_digest

T = TypeVar("T")
BATCH_SIZE = 64
MAX_UPLOAD_PIXELS = 40_000_000  # a full mammogram has about 30 million
Pixels = UInt8[np.ndarray, "b s s 3"]
PIXEL_MODULES = (
    *(f"medclip.data.{name}" for name in ("images", "dicom", "dicom_display", "dicom_geometry")),
    *("medclip.model.image_processor", "medclip.encode.decode"),
)
"""What decides the pixels of given bytes, beside libraries: another version of any of these has caches of its own."""

_DICOM_LIBRARIES = ("pydicom", "pyjpegls", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "python-gdcm")


def pixel_software() -> tuple[str, ...]:
    """What decides the pixels of an image beside its bytes and the image processor."""
    versions = library_versions(*_DICOM_LIBRARIES)
    own = (versions.get(name, "") for name in _DICOM_LIBRARIES)
    return np.__version__, PIL.__version__, *own, source_digest(*PIXEL_MODULES)


def decode_pixels(image: ImageInput, processor: ImageProcessor) -> UInt8[np.ndarray, "s s 3"]:
    """Decode one image and fit it to a model's square. Raises ImageError."""
    return preprocess(decode(image), processor)


def query_error(name: str, error: ImageError) -> UserError:
    """Why the image of a query, called `name`, cannot be used, and what to do about its kind."""
    remedy = remedy_of_kind(name) if str(error) == UNREADABLE else ""
    return UserError(f"{name}: {error}. {remedy}".rstrip())


def decode_upload(image: bytes, processor: ImageProcessor) -> UInt8[np.ndarray, "s s 3"]:
    """As `decode_pixels`, of fewer formats and pixels. Call it in a worker."""
    return preprocess(_decode_upload(image), processor)


def decode_upload_thumbnail(image: bytes, max_side: int) -> Image.Image:
    """As `decode`, of fewer formats and pixels, its longer side made `max_side` at most. Call it in a worker."""
    decoded = _decode_upload(image)
    decoded.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    return decoded


def _decode_upload(image: bytes) -> Image.Image:
    width, height = header_size(image)
    if width * height > MAX_UPLOAD_PIXELS:
        raise ImageError(f"image over {MAX_UPLOAD_PIXELS // 10**6} million pixels")
    return decode(image)


def pixel_batches(
    images: Iterable[T], read_pixels: Callable[[T], np.ndarray], batch_size: int = BATCH_SIZE
) -> Iterator[Pixels]:
    """Pixels of images in order, in batches, the next decoded while one is used; `read_pixels` makes those of one.

    An image is what `read_pixels` takes: bytes, a path, a row number. What it raises is raised here.
    """
    return (np.stack(batch) for batch in decode_ahead(read_pixels, images, batch_size))


def fill_pixels(
    out: Pixels, images: Iterable[T], read_pixels: Callable[[T], np.ndarray], advance: Advance | None = None
) -> Pixels:
    """`out` with the pixels of as many images as it has room for: no second copy of all is in memory."""
    done = 0
    for batch in pixel_batches(islice(images, len(out)), read_pixels):
        out[done : done + len(batch)] = batch
        done += len(batch)
        if advance:
            advance(len(batch))
    return out

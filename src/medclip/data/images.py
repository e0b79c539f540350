"""Images: decoded once in preparation, fitted to a model's square as its folder says."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from medclip.data.schema import DicomFrame
from medclip.errors import MAX_PIXELS, MAX_SIDE, SIDE_TOO_LONG, TOO_MANY_PIXELS, ImageError

JPEG_QUALITY = 95
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP")
_RESAMPLING = Image.Resampling.BICUBIC


def decode(image: Path | bytes | DicomFrame) -> Image.Image:
    """Decode wholly, upright, as mode L or RGB.

    16-bit greys are scaled from their own range, transparency is laid on black, and a color image
    whose channels are equal becomes grey. DICOM is shown as `medclip.data.dicom` says. Raises ImageError ("image
    missing", "image unreadable", "image over 100 million pixels", "image over 65,500 pixels a side", what DICOM adds).
    """
    try:
        if isinstance(image, DicomFrame) or is_dicom(image):
            from medclip.data.dicom import decode_frame

            said = (image.path, image.number, image.masked) if isinstance(image, DicomFrame) else (image,)
            return _plain(decode_frame(*said))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of damaged EXIF and of large sizes; both are handled
            with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=FORMATS) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ImageError(TOO_MANY_PIXELS)
                if max(opened.size) > MAX_SIDE:
                    raise ImageError(SIDE_TOO_LONG)
                opened.load()
                return _plain(ImageOps.exif_transpose(opened))
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


def standardize(image: Path | bytes | DicomFrame, side: int) -> tuple[bytes, int, int]:
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


def preprocess(image: Path | bytes, preprocessor: Mapping[str, Any]) -> np.ndarray:
    """Pixels u8 (s, s, 3) as a Hugging Face `preprocessor_config.json` asks, before normalization.

    `size` is {"shortest_edge": n} or {"height": n, "width": n}, or a number, which older files mean as the shortest
    edge where they crop and as a square where they do not. Raises ImageError.
    """
    picture = decode(image)
    resized, box = _geometry(picture.size, preprocessor)
    if resized[0] * resized[1] > MAX_PIXELS:  # a line, whose shorter side becomes the model's
        raise ImageError(TOO_MANY_PIXELS)
    if preprocessor.get("do_resize", True):
        resample = Image.Resampling(preprocessor.get("resample") or (2 if _squares(preprocessor) else 3))
        picture = picture.resize(resized, resample)
    picture = picture.crop(box)  # what lies outside the image is black
    return np.asarray(picture.convert("RGB"))  # last: resizing one channel gives what resizing three equal ones gives


def map_to_image(values: np.ndarray, size: tuple[int, int], preprocessor: Mapping[str, Any]) -> np.ndarray:
    """Values f32 (s, s) of a square that `fit` made, laid back over the image of that size (w, h): f32 (h, w).

    What `fit` cuts off gets 0.
    """
    (width, height), (left, top, right, bottom) = _geometry(size, preprocessor)
    whole = np.zeros((height, width), np.float32)
    x, y = slice(max(left, 0), min(right, width)), slice(max(top, 0), min(bottom, height))
    whole[y, x] = values[y.start - top : y.stop - top, x.start - left : x.stop - left]
    return np.asarray(Image.fromarray(whole).resize(size, Image.Resampling.BILINEAR))


def _geometry(
    size: tuple[int, int], preprocessor: Mapping[str, Any]
) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """What an image of `size` (w, h) is resized to, and the box (left, top, right, bottom) of that which is kept."""
    crop, wanted = _crop(preprocessor), preprocessor.get("size", 224)
    if isinstance(wanted, int):
        wanted = {"shortest_edge": wanted} if crop else {"height": wanted, "width": wanted}
    if not preprocessor.get("do_resize", True):
        resized = size
    elif "shortest_edge" in wanted:
        scale = wanted["shortest_edge"] / min(size)
        # transformers truncates the longer side; rounding it would shift the crop by a pixel
        resized = tuple(max(wanted["shortest_edge"], int(n * scale)) for n in size)
    else:
        resized = (wanted["width"], wanted["height"])
    width, height = crop or resized
    left, top = (resized[0] - width) // 2, (resized[1] - height) // 2  # negative where the crop is the larger
    return resized, (left, top, left + width, top + height)


def mean_std(preprocessor: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of pixels / 255, channel by channel, that `preprocessor_config.json` asks for."""
    mean, std = preprocessor.get("image_mean", (0.5,) * 3), preprocessor.get("image_std", (0.5,) * 3)
    if not preprocessor.get("do_normalize", True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    factor = preprocessor.get("rescale_factor", 1 / 255) if preprocessor.get("do_rescale", True) else 1
    return tuple(m / (255 * factor) for m in mean), tuple(s / (255 * factor) for s in std)


def _squares(preprocessor: Mapping[str, Any]) -> bool:
    """Whether it is ViT's, which squeezes to a square and interpolates linearly where its file does not say."""
    kind = preprocessor.get("image_processor_type") or preprocessor.get("feature_extractor_type") or ""
    return kind.startswith("ViT")


def _crop(preprocessor: Mapping[str, Any]) -> tuple[int, int] | None:
    squares = _squares(preprocessor) or (preprocessor.get("image_processor_type") or "").startswith("Siglip")
    if not preprocessor.get("do_center_crop", not squares):
        return None
    size = preprocessor.get("crop_size", 224)
    return (size, size) if isinstance(size, int) else (size["width"], size["height"])

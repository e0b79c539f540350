"""Images as arrays of numbers: what a caller gives as pixels, and what files hold of more than eight bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from medclip.errors import NO_FINITE_PIXELS, ImageError

ImageInput = str | Path | bytes | Image.Image | np.ndarray
"""An image file, encoded bytes, a PIL image, or pixels: uint8 (h, w), (h, w, 1), (h, w, 3) or (h, w, 4)."""


def from_pixels(pixels: np.ndarray) -> Image.Image:
    """Pixels as an image. ImageError where they are none."""
    channels = pixels.shape[2:] or (1,)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels[0] not in (1, 3, 4) or not pixels.size:
        raise ImageError(f"image array of {pixels.dtype} {pixels.shape}, not uint8 (h, w) or (h, w, 1, 3 or 4)")
    return Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)


def stretch(image: Image.Image, is_inverted: bool) -> Image.Image:
    """Grays from the finite range of an image's values; black where they are all equal, and for NaN."""
    values = np.asarray(image, dtype=np.float64)
    values = -values if is_inverted else values
    finite = np.isfinite(values)
    if not finite.any():
        raise ImageError(NO_FINITE_PIXELS)
    low, high = float(values[finite].min()), float(values[finite].max())
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))

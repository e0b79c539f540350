"""Corruptions of images as they occur: compression, blur, noise, low contrast, rotation, crop, text, low resolution.

Pure functions of an image that keep its size and mode. Photographs have such a list (Hendrycks & Dietterich 2019);
this is one for films and screens.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from medclip.data.images import decode

_LINEAR, _CUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
_BURNED_IN = ("AP ERECT", "SERIES 3 IMAGE 14/60", "kV 110 mAs 2.0", "W 400 L 40", "ZOOM 1.2", "THICKNESS 5.0 mm")


@dataclass(frozen=True)
class Corruption:
    """A change of an image, the stronger the higher the severity, from 1 on."""

    name: str
    change: Callable[[Image.Image, float, np.random.Generator], Image.Image]
    settings: tuple[float, ...]
    """The strength at each severity."""
    setting_text: str
    """What a setting means, with {} in its place."""

    @property
    def severities(self) -> range:
        """The numbers of its severities."""
        return range(1, len(self.settings) + 1)


def corrupt(image: bytes, corruption: Corruption, severity: int, id: str, seed: int) -> bytes:
    """A stored image, corrupted, as a PNG; severity 0 is the image itself.

    What is random (noise, the direction of a rotation or crop) is drawn from `seed`, the image's `id` and the
    corruption's name: severities of one corruption differ in strength alone.
    """
    if severity == 0:
        return image
    rng = np.random.default_rng((seed, zlib.crc32(f"{corruption.name} {id}".encode())))
    changed = corruption.change(decode(image), corruption.settings[severity - 1], rng)
    out = io.BytesIO()
    changed.save(out, "PNG", compress_level=0)  # decoded again at once, so that the encoder gets its usual input
    return out.getvalue()


def _compress(image: Image.Image, quality: float, _: np.random.Generator) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=int(quality))
    with Image.open(out) as made:
        made.load()
        return made


def _blur(image: Image.Image, share: float, _: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(share / 100 * min(image.size)))


def _add_noise(image: Image.Image, deviation: float, rng: np.random.Generator) -> Image.Image:
    """Noise of a detector: the same in all channels."""
    values = np.asarray(image, np.float32)
    noise = deviation * rng.standard_normal(values.shape[:2], np.float32)
    return Image.fromarray(np.rint((values.T + noise.T).T.clip(0, 255)).astype(np.uint8))


def _reduce_contrast(image: Image.Image, factor: float, _: np.random.Generator) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(factor)


def _rotate(image: Image.Image, degrees: float, rng: np.random.Generator) -> Image.Image:
    return image.rotate(degrees * rng.choice((-1, 1)), _CUBIC)


def _crop(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """A window of that share of each side, anywhere, enlarged to the whole."""
    sides = [n * share for n in image.size]
    left, top = (rng.random() * (n - side) for n, side in zip(image.size, sides, strict=True))
    return image.resize(image.size, _CUBIC, (left, top, left + sides[0], top + sides[1]))


def _burn_in_text(image: Image.Image, lines: float, rng: np.random.Generator) -> Image.Image:
    """Lines of white text as machines burn them in, from one of the four corners; none names a side or a person."""
    made = image.copy()
    brush, size = ImageDraw.Draw(made), max(6, min(made.size) / 14)
    text, font = "\n".join(_BURNED_IN[: int(lines)]), ImageFont.load_default(size)
    left, top, right, bottom = brush.multiline_textbbox((0, 0), text, font)
    x = size / 3 - left if rng.random() < 0.5 else made.width - size / 3 - right
    y = size / 3 - top if rng.random() < 0.5 else made.height - size / 3 - bottom
    brush.multiline_text((x, y), text, "white", font, stroke_width=1, stroke_fill="black")
    return made


def _reduce_resolution(image: Image.Image, side: float, _: np.random.Generator) -> Image.Image:
    scale = min(1.0, side / min(image.size))
    small = [max(1, math.ceil(n * scale)) for n in image.size]
    return image.resize(small, _CUBIC).resize(image.size, _LINEAR)


CORRUPTIONS = (
    Corruption("JPEG", _compress, (30, 15, 5), "quality {}"),
    Corruption("blur", _blur, (0.5, 1, 2), "radius {} % of the side"),
    Corruption("noise", _add_noise, (10, 25, 50), "deviation {} of 255"),
    Corruption("contrast", _reduce_contrast, (0.6, 0.35, 0.15), "{} of its own"),
    Corruption("rotation", _rotate, (5, 15, 30), "{} degrees"),
    Corruption("crop", _crop, (0.9, 0.75, 0.6), "{} of each side kept"),
    Corruption("burned-in text", _burn_in_text, (1, 3, 6), "{} lines"),
    Corruption("low resolution", _reduce_resolution, (64, 32, 16), "{} pixels"),
)

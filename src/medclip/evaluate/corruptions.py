"""Images as they also reach a reader: compressed, blurred, noisy, flat, turned, cut, written on, coarse.

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
    """What is done to an image, and how strongly at each severity from 1 on."""

    change: Callable[[Image.Image, float, np.random.Generator], Image.Image]
    settings: tuple[float, float, float]
    said: str
    """What a setting means, with {} in its place."""


def corrupted(image: bytes, name: str, severity: int, id: str, seed: int) -> bytes:
    """A stored image as a PNG with corruption `name` of CORRUPTIONS; severity 0 is the image itself.

    What is random (noise, the way it is turned or cut) is drawn from `seed`, the image's `id` and `name`: severities
    of one corruption differ in strength alone.
    """
    if severity == 0:
        return image
    corruption = CORRUPTIONS[name]
    rng = np.random.default_rng((seed, zlib.crc32(f"{name} {id}".encode())))
    changed = corruption.change(decode(image), corruption.settings[severity - 1], rng)
    out = io.BytesIO()
    changed.save(out, "PNG", compress_level=0)  # read again at once, so that the encoder sees what it always sees
    return out.getvalue()


def _jpeg(picture: Image.Image, quality: float, _: np.random.Generator) -> Image.Image:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=int(quality))
    with Image.open(out) as made:
        made.load()
        return made


def _blurred(picture: Image.Image, share: float, _: np.random.Generator) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(share / 100 * min(picture.size)))


def _noisy(picture: Image.Image, deviation: float, rng: np.random.Generator) -> Image.Image:
    """Noise of a detector: grey, the same in all channels."""
    values = np.asarray(picture, np.float32)
    noise = deviation * rng.standard_normal(values.shape[:2], np.float32)
    return Image.fromarray(np.rint((values.T + noise.T).T.clip(0, 255)).astype(np.uint8))


def _flat(picture: Image.Image, factor: float, _: np.random.Generator) -> Image.Image:
    return ImageEnhance.Contrast(picture).enhance(factor)


def _turned(picture: Image.Image, degrees: float, rng: np.random.Generator) -> Image.Image:
    return picture.rotate(degrees * rng.choice((-1, 1)), _CUBIC)


def _cropped(picture: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """A window of that share of each side, anywhere, enlarged to the whole."""
    sides = [n * share for n in picture.size]
    left, top = (rng.random() * (n - side) for n, side in zip(picture.size, sides, strict=True))
    return picture.resize(picture.size, _CUBIC, (left, top, left + sides[0], top + sides[1]))


def _written(picture: Image.Image, lines: float, rng: np.random.Generator) -> Image.Image:
    """Lines of white text as machines burn them in, from one of the four corners; none names a side or a person."""
    made = picture.copy()
    brush, size = ImageDraw.Draw(made), max(6, min(made.size) / 14)
    text, font = "\n".join(_BURNED_IN[: int(lines)]), ImageFont.load_default(size)
    left, top, right, bottom = brush.multiline_textbbox((0, 0), text, font)
    place = [
        size / 3 - low if rng.random() < 0.5 else whole - size / 3 - high
        for low, high, whole in ((left, right, made.width), (top, bottom, made.height))
    ]
    brush.multiline_text(place, text, "white", font, stroke_width=1, stroke_fill="black")
    return made


def _coarse(picture: Image.Image, side: float, _: np.random.Generator) -> Image.Image:
    scale = min(1.0, side / min(picture.size))
    small = [max(1, math.ceil(n * scale)) for n in picture.size]
    return picture.resize(small, _CUBIC).resize(picture.size, _LINEAR)


CORRUPTIONS = {
    "JPEG": Corruption(_jpeg, (30, 15, 5), "quality {}"),
    "blur": Corruption(_blurred, (0.5, 1, 2), "radius {} % of the side"),
    "noise": Corruption(_noisy, (10, 25, 50), "deviation {} of 255"),
    "contrast": Corruption(_flat, (0.6, 0.35, 0.15), "{} of its own"),
    "rotation": Corruption(_turned, (5, 15, 30), "{} degrees"),
    "crop": Corruption(_cropped, (0.9, 0.75, 0.6), "{} of each side kept"),
    "burned-in text": Corruption(_written, (1, 3, 6), "{} lines"),
    "low resolution": Corruption(_coarse, (64, 32, 16), "{} pixels"),
}

"""Where an image shows what a text says: each place is blurred in turn, and the cosine that goes with it is its own.

Occlusion (Zeiler & Fergus 2014) with a blur in place of a grey square (Fong & Vedaldi 2017), in soft spots: it needs
nothing of a model but its vectors, so it is the same for every tower, and a place without detail has no relevance.
Chosen by where it points on phantoms whose finding is known: `benchmarks/relevance.py`, docs/log.md.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from medclip.data.images import decode
from medclip.encode.encoder import embed_pixels, embed_texts
from medclip.errors import ImageError, UserError
from medclip.model.checkpoint import Model
from medclip.model.image_processor import map_to_image, preprocess

SPOTS = 8  # to a side: 64 spots are one batch of the encoder
WIDTH = 0.75  # of the distance between two spots: the deviation of a spot, and of the blur in it
NOTHING = 1e-5  # a cosine that changes less has not changed: float32 in batches of another shape
_FOR, _AGAINST = (255, 96, 0), (0, 128, 255)  # told apart without red and green
_COVER = 0.6  # of the image, at the strongest place


def saliency_map(model: Model, image: bytes | Path, text: str) -> np.ndarray:
    """What each place of an image adds to its cosine with a text: f32 (h, w) of the image, in units of cosine.

    Above 0 the place speaks for the text, below 0 against it; 0 where the model does not look. UserError where the text
    is empty or the image cannot be read.
    """
    if not text.strip():
        raise UserError("the text is empty.")
    try:
        decoded = decode(image)
        pixels, size = preprocess(decoded, model.preprocessor), decoded.size
    except ImageError as error:
        raise UserError(f"{image if isinstance(image, Path) else 'the image'}: {error}.") from None
    spots = _spots(len(pixels))
    blurred = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(WIDTH * len(pixels) / SPOTS)))
    changed = [np.rint(pixels + spot[..., None] * (blurred - pixels.astype(np.float32))) for spot in spots]
    vector = embed_texts(model, [text])[0]
    whole, each = embed_pixels(model, pixels[None]) @ vector, embed_pixels(model, np.uint8(changed)) @ vector
    found = np.tensordot(whole - each, spots, axes=1) / spots.sum(axis=0)
    return map_to_image(found.astype(np.float32), size, model.preprocessor)


def drawn_over(picture: Image.Image, found: np.ndarray) -> Image.Image:
    """The image with relevance f32 (h, w) over it: orange where it speaks for the text, blue where against."""
    shown, most = picture.convert("RGB"), max(float(np.abs(found).max()), NOTHING)
    for color, part in ((_FOR, found), (_AGAINST, -found)):
        cover = np.where(part < NOTHING, 0, part) * (_COVER * 255 / most)
        shown.paste(color, (0, 0), Image.fromarray(np.rint(cover).astype(np.uint8)))
    return shown


def _spots(side: int) -> np.ndarray:
    """Weights f32 (SPOTS², s, s) of the soft spots: 1 in the middle of each."""
    step = side / SPOTS
    middles = (np.arange(SPOTS) + 0.5) * step - 0.5
    along = np.exp(-0.5 * ((np.arange(side) - middles[:, None]) / (WIDTH * step)) ** 2)
    return (along[:, None, :, None] * along[None, :, None, :]).reshape(-1, side, side).astype(np.float32)

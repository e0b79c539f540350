"""Saliency: where an image shows what a text says. Each spot is blurred in turn; the cosine lost is its own.

Occlusion (Zeiler & Fergus 2014) with a blur in place of a gray square (Fong & Vedaldi 2017), in soft spots. It needs
nothing of a model but its embeddings, so it is the same for every tower, and a spot without detail has no saliency.
Chosen by where it points on phantoms whose finding is known: `benchmarks/saliency.py`, docs/log.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image, ImageFilter

from medclip.data.decode_workers import isolate
from medclip.data.images import decode
from medclip.data.pixel_arrays import ImageInput
from medclip.encode.decode import query_error
from medclip.encode.encoder import embed_pixels, embed_texts
from medclip.errors import ImageError, UserError
from medclip.model.checkpoint import Model
from medclip.model.image_processor import map_to_image, preprocess

SPOTS_PER_SIDE = 8  # 64 spots are one batch of the encoder
SPOT_WIDTH = 0.75  # of the distance between two spots: the deviation of a spot, and of the blur in it
MIN_CHANGE = 1e-5  # a cosine that changes less has not changed: float32 in batches of another shape
_FOR, _AGAINST = (255, 96, 0), (0, 128, 255)  # orange and blue, for readers who confuse red and green
_MAX_OPACITY = 0.6  # at the strongest pixel


def saliency_map(
    model: Model,
    image: ImageInput,
    text: str,
    text_encoder: Callable[[Model, Sequence[str]], np.ndarray] = embed_texts,
    pixel_encoder: Callable[[Model, UInt8[np.ndarray, "b s s 3"]], np.ndarray] = embed_pixels,
) -> Float32[np.ndarray, "h w"]:
    """What each pixel of an image adds to its cosine with a text.

    Above 0 it speaks for the text, below 0 against it; 0 where the model does not look. The encoders give embeddings
    f32 (n, p); a service puts its own here. Raises UserError where the text is empty or the image cannot be read.
    """
    if not text.strip():
        raise UserError("the text is empty.")
    try:
        decoded = decode(image) if isinstance(image, Image.Image) else isolate(decode, image)
        pixels = preprocess(decoded, model.image_processor)
    except ImageError as error:
        raise query_error(str(image) if isinstance(image, str | Path) else "the image", error) from None
    spots = _spots(len(pixels))
    sigma = SPOT_WIDTH * len(pixels) / SPOTS_PER_SIDE
    blurred = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))
    variants = [np.rint(pixels + spot[..., None] * (blurred - pixels.astype(np.float32))) for spot in spots]
    embedding = text_encoder(model, [text])[0]
    cosine = pixel_encoder(model, pixels[None]) @ embedding
    cosines = pixel_encoder(model, np.array(variants).astype(np.uint8)) @ embedding
    saliency = np.tensordot(cosine - cosines, spots, axes=1) / spots.sum(axis=0)
    return map_to_image(saliency.astype(np.float32), decoded.size, model.image_processor)


def overlay_saliency(image: Image.Image, saliency: Float[np.ndarray, "h w"]) -> Image.Image:
    """The image with its saliency over it: orange where it speaks for the text, blue where against."""
    overlay, scale = image.convert("RGB"), max(float(np.abs(saliency).max()), MIN_CHANGE)
    for color, part in ((_FOR, saliency), (_AGAINST, -saliency)):
        opacity = np.where(part < MIN_CHANGE, 0, part) * (_MAX_OPACITY * 255 / scale)
        overlay.paste(color, (0, 0), Image.fromarray(np.rint(opacity).astype(np.uint8)))
    return overlay


def _spots(side: int) -> Float32[np.ndarray, "k s s"]:
    """Weights of the k soft spots over the pixels: 1 in the middle of each."""
    step = side / SPOTS_PER_SIDE
    centers = (np.arange(SPOTS_PER_SIDE) + 0.5) * step - 0.5
    profile = np.exp(-0.5 * ((np.arange(side) - centers[:, None]) / (SPOT_WIDTH * step)) ** 2)
    return (profile[:, None, :, None] * profile[None, :, None, :]).reshape(-1, side, side).astype(np.float32)

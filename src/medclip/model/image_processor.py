"""The image processor: what a model's `preprocessor_config.json` does to an image, before and after the crop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from medclip.atomic_io import read_json
from medclip.errors import MAX_PIXELS, TOO_MANY_PIXELS, ImageError

Size = tuple[int, int]
"""Width and height."""
Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""
Channels = tuple[float, ...]

# What CLIP's own folders say; those of 2021 have no such file.
CLIP_PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


@dataclass(frozen=True)
class ImageProcessor:
    """Resize, center crop and normalization of an image: the steps of a model's processor, in this order."""

    resize: Size | int | None
    """Width and height, whatever the image's own; or its shortest edge, the other in proportion; None: not at all."""
    resample: int
    """PIL's number of the interpolation; 0 is nearest."""
    crop: Size | None
    """Width and height of the middle that is taken; what lies outside the image is black. None: all."""
    mean: Channels
    """Of pixels / 255, for each channel."""
    std: Channels
    raw_config: Mapping[str, Any] = field(compare=False, repr=False)
    """`preprocessor_config.json`, as it is."""


def read_image_processor(folder: Path) -> ImageProcessor:
    """The processor of `preprocessor_config.json`; CLIP's own where the folder has none."""
    if not (folder / "preprocessor_config.json").is_file():
        return parse_image_processor(CLIP_PREPROCESSOR)
    return parse_image_processor(read_json(folder / "preprocessor_config.json", "a model folder"))


def parse_image_processor(raw: Mapping[str, Any]) -> ImageProcessor:
    """A processor's config as a value.

    `size` is {"shortest_edge": n} or {"height": n, "width": n}, or a number, which older files mean as the shortest
    edge where they crop and as a square where they do not.
    """
    crop, resize = _crop_size(raw), raw.get("size", 224)
    if not raw.get("do_resize", True):
        resize = None
    elif isinstance(resize, int):
        resize = resize if crop else (resize, resize)
    elif "shortest_edge" in resize:
        resize = resize["shortest_edge"]
    else:
        resize = (resize["width"], resize["height"])
    resample = raw.get("resample")
    if resample is None:  # 0 is nearest
        resample = Image.Resampling.BILINEAR if _is_vit(raw) else Image.Resampling.BICUBIC
    mean, std = raw.get("image_mean", (0.5,) * 3), raw.get("image_std", (0.5,) * 3)
    if not raw.get("do_normalize", True):
        mean, std = (0.0,) * 3, (1.0,) * 3
    factor = raw.get("rescale_factor", 1 / 255) if raw.get("do_rescale", True) else 1
    mean, std = (tuple(x / (255 * factor) for x in channels) for channels in (mean, std))
    return ImageProcessor(resize, int(resample), crop, mean, std, raw)


def square_image_processor(side: int) -> ImageProcessor:
    """The processor of models trained from scratch: the whole image squeezed to a square, values in [-1, 1]."""
    return parse_image_processor(
        {
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"height": side, "width": side},
            "resample": 3,
            "do_center_crop": False,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        }
    )


def preprocess(image: Image.Image, processor: ImageProcessor) -> UInt8[np.ndarray, "h w 3"]:
    """Resize and crop; normalization is left to the device. Raises ImageError where the resized image is too large."""
    size, box = _geometry(image.size, processor)
    if size[0] * size[1] > MAX_PIXELS:  # a line, whose shorter side becomes the model's
        raise ImageError(TOO_MANY_PIXELS)
    if processor.resize:
        image = image.resize(size, Image.Resampling(processor.resample))
    image = image.crop(box)  # what lies outside the image is black
    return np.asarray(image.convert("RGB"))  # last: resizing one channel gives what resizing three equal ones gives


def map_to_image(values: Float[np.ndarray, "s s"], size: Size, processor: ImageProcessor) -> Float32[np.ndarray, "h w"]:
    """Lay values over the pixels that `preprocess` gives back over the image of `size`; 0 where it crops."""
    (width, height), (left, top, right, bottom) = _geometry(size, processor)
    resized = np.zeros((height, width), np.float32)
    x, y = slice(max(left, 0), min(right, width)), slice(max(top, 0), min(bottom, height))
    resized[y, x] = values[y.start - top : y.stop - top, x.start - left : x.stop - left]
    return np.asarray(Image.fromarray(resized).resize(size, Image.Resampling.BILINEAR))


def _geometry(size: Size, processor: ImageProcessor) -> tuple[Size, Box]:
    """The size that an image of `size` is resized to, and the box that is then cropped."""
    match processor.resize:
        case None:
            width, height = size
        case int(edge):
            scale = edge / min(size)
            # transformers truncates the longer side; rounding it would shift the crop by a pixel
            width, height = (max(edge, int(n * scale)) for n in size)
        case (width, height):
            pass
    crop_width, crop_height = processor.crop or (width, height)
    left, top = (width - crop_width) // 2, (height - crop_height) // 2  # negative where the crop is the larger
    return (width, height), (left, top, left + crop_width, top + crop_height)


def _is_vit(raw: Mapping[str, Any]) -> bool:
    """ViT's processor: squeezes to a square, and interpolates linearly where its file does not say."""
    kind = raw.get("image_processor_type") or raw.get("feature_extractor_type") or ""
    return kind.startswith("ViT")


def _crop_size(raw: Mapping[str, Any]) -> Size | None:
    squeezes = _is_vit(raw) or (raw.get("image_processor_type") or "").startswith("Siglip")
    if not raw.get("do_center_crop", not squeezes):
        return None
    size = raw.get("crop_size", 224)
    return (size, size) if isinstance(size, int) else (size["width"], size["height"])

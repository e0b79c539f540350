"""Configs of image processors of every type, and the pixels that medclip and transformers make under them."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from medclip.model.image_processor import (
    ImageProcessor,
    preprocess,
)

FILES: dict[str, dict[str, Any]] = {
    "clip": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 28}, "crop_size": 28},
    "clip without sizes": {"image_processor_type": "CLIPImageProcessor"},
    "clip with nulls": {"image_processor_type": "CLIPImageProcessor", "size": {"height": 28, "width": 28},
                        "crop_size": None, "do_center_crop": None, "do_normalize": None, "image_mean": None,
                        "default_to_square": None},
    "vit with nulls": {"image_processor_type": "ViTImageProcessor", "crop_size": None, "do_center_crop": None,
                       "do_convert_rgb": None, "resample": 2},
    "clip of 2021": {"feature_extractor_type": "CLIPFeatureExtractor", "size": 28, "crop_size": 28, "resample": 3},
    "clip, fast": {"image_processor_type": "CLIPImageProcessorFast", "size": 28, "crop_size": [28, 28]},
    "clip, squashed": {"image_processor_type": "CLIPImageProcessor", "size": {"height": 28, "width": 28},
                       "do_center_crop": False},
    "clip, a rectangle cropped": {"image_processor_type": "CLIPImageProcessor", "size": [31, 47], "crop_size": 28},
    "clip, numbers are squares": {"image_processor_type": "CLIPImageProcessor", "size": 30, "crop_size": 28,
                                  "default_to_square": True},
    "a longest edge beside the shortest": {"image_processor_type": "CLIPImageProcessor", "crop_size": 28,
                                           "size": {"shortest_edge": 30, "longest_edge": 41}},
    "chinese clip": {"image_processor_type": "ChineseCLIPImageProcessor", "crop_size": 28, "size": 28},
    "blip": {"image_processor_type": "BlipImageProcessor", "size": 28},
    "blip without sizes": {"image_processor_type": "BlipImageProcessor"},
    "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": 28, "width": 28}},
    "vit of 2021": {"feature_extractor_type": "ViTFeatureExtractor", "size": 28, "image_mean": [0.4, 0.5, 0.6]},
    "vit without sizes": {"image_processor_type": "ViTImageProcessor"},
    "vit, nearest": {"image_processor_type": "ViTImageProcessor", "size": [32, 32], "resample": 0},
    "vit, scalars": {"image_processor_type": "ViTImageProcessor", "image_mean": 0.25, "image_std": 0.125},
    "deit": {"image_processor_type": "DeiTImageProcessor", "size": {"height": 36, "width": 36}, "crop_size": 28},
    "deit of 2021": {"feature_extractor_type": "DeiTFeatureExtractor", "size": 36, "crop_size": 28, "resample": 3},
    "deit without sizes": {"image_processor_type": "DeiTImageProcessor"},
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 28, "width": 28}},
    "siglip without sizes": {"image_processor_type": "SiglipImageProcessor"},
    "dinov2": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 32},
               "crop_size": {"height": 28, "width": 28}},
    "rad-dino": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 28}, "resample": 3,
                 "crop_size": {"height": 28, "width": 28}, "image_mean": [0.53] * 3, "image_std": [0.25] * 3},
    "no normalization": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 28},
                         "crop_size": {"height": 28, "width": 28}, "do_normalize": False},
    "no rescaling": {"image_processor_type": "CLIPImageProcessor", "do_rescale": False, "image_mean": [120, 110, 100],
                     "image_std": [60, 61, 62]},
    "another factor": {"image_processor_type": "SiglipImageProcessor", "rescale_factor": 1 / 127.5},
    "a crop larger than the image": {"image_processor_type": "CLIPImageProcessor", "do_resize": False,
                                     "crop_size": {"height": 61, "width": 61}},
    "a crop larger than the resize": {"image_processor_type": "BitImageProcessor", "size": 25, "crop_size": 32},
}  # fmt: skip


def pixels(image: Image.Image, processor: ImageProcessor) -> np.ndarray:
    """What a tower gets, (s, s, 3)."""
    return (preprocess(image, processor) / 255 - np.array(processor.mean)) / np.array(processor.std)


def transformers_pixels(image: Image.Image, raw: dict[str, Any]) -> np.ndarray:
    """What the PIL processor of transformers makes of the image under that file, (h, w, 3)."""
    import transformers

    kind = raw.get("image_processor_type") or raw["feature_extractor_type"]
    kind = kind.replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    theirs = getattr(transformers, f"{kind}Pil")(**{n: v for n, v in raw.items() if not n.endswith("_type")})
    return np.asarray(theirs(image, input_data_format="channels_last").pixel_values[0]).transpose(1, 2, 0)


def assert_same_pixels(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=3e-6 * max(1.0, np.abs(theirs).max()))


def random_image(width: int, height: int, gray: bool, seed: int) -> Image.Image:
    shape = (height, width) if gray else (height, width, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))

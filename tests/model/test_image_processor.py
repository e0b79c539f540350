"""Images are prepared as transformers' own processors prepare them, whatever kind the folder names."""

from __future__ import annotations

import numpy as np
import pytest

from medclip.data.images import mean_std, preprocess
from support.parity import png
from support.references import pictures

FILES = {
    "clip": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 28}, "crop_size": 28},
    "clip of 2021": {"feature_extractor_type": "CLIPFeatureExtractor", "size": 28, "crop_size": 28, "resample": 3},
    "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": 28, "width": 28}},
    "siglip": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 28, "width": 28}},
    "dinov2": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 32},
               "crop_size": {"height": 28, "width": 28}},
    "rad-dino": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 28}, "resample": 3,
                 "crop_size": {"height": 28, "width": 28}, "image_mean": [0.53] * 3, "image_std": [0.25] * 3},
    "no normalization": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 28},
                         "crop_size": {"height": 28, "width": 28}, "do_normalize": False},
    "a crop larger than the image": {"image_processor_type": "CLIPImageProcessor", "do_resize": False,
                                       "crop_size": {"height": 61, "width": 61}},
}  # fmt: skip
KINDS = {"CLIP": "CLIPImageProcessorPil", "ViT": "ViTImageProcessorPil", "Siglip": "SiglipImageProcessorPil",
         "Bit": "BitImageProcessorPil"}  # fmt: skip


@pytest.mark.parity
@pytest.mark.parametrize("said", FILES.values(), ids=FILES)
def test_pixels_are_within_one_level_of_transformers(said: dict) -> None:
    import transformers
    from PIL import Image

    kind = said.get("image_processor_type") or said["feature_extractor_type"]
    processor = getattr(transformers, next(name for part, name in KINDS.items() if kind.startswith(part)))
    plain = {name: value for name, value in said.items() if not name.endswith("_type")}
    theirs = processor(**plain)
    filled = {**said, "image_mean": theirs.image_mean, "image_std": theirs.image_std}
    mean, std = (np.array(x) for x in mean_std(filled))
    for picture in pictures(25, 1):
        ours = (preprocess(png(picture), filled) / 255 - mean) / std
        wanted = np.asarray(theirs(Image.fromarray(picture)).pixel_values[0]).transpose(1, 2, 0)
        np.testing.assert_allclose(ours * std, wanted * std, atol=1.01 / 255)

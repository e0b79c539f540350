"""Images are fitted to a model's square as transformers' own processors do it, whatever kind the folder names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from medclip.errors import ImageError
from medclip.model.image_processor import parse_image_processor, preprocess
from support.references import random_images

CLIP = parse_image_processor(
    {"size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": {"width": 32, "height": 32}}
)
SQUEEZE_FILE = {"size": {"height": 32, "width": 32}, "do_center_crop": False}
SQUEEZE = parse_image_processor(SQUEEZE_FILE)
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
@pytest.mark.parametrize("preprocessor", FILES.values(), ids=FILES)
def test_pixels_are_within_one_level_of_transformers(preprocessor: dict) -> None:
    import transformers

    kind = preprocessor.get("image_processor_type") or preprocessor["feature_extractor_type"]
    processor = getattr(transformers, next(name for part, name in KINDS.items() if kind.startswith(part)))
    arguments = {name: value for name, value in preprocessor.items() if not name.endswith("_type")}
    theirs = processor(**arguments)
    filled = parse_image_processor({**preprocessor, "image_mean": theirs.image_mean, "image_std": theirs.image_std})
    mean, std = (np.array(x) for x in (filled.mean, filled.std))
    for values in random_images(25, 1):
        image = Image.fromarray(values)
        ours = (preprocess(image, filled) / 255 - mean) / std
        wanted = np.asarray(theirs(image).pixel_values[0]).transpose(1, 2, 0)
        np.testing.assert_allclose(ours * std, wanted * std, atol=1.01 / 255)


def test_the_interpolation_is_the_files_and_nearest_is_one():
    image = Image.fromarray(random_images(25, 1)[1])
    for number in Image.Resampling:  # NEAREST is 0
        pixels = preprocess(image, parse_image_processor({**SQUEEZE_FILE, "resample": int(number)}))
        assert np.array_equal(pixels, np.asarray(image.resize((32, 32), number).convert("RGB")))


def test_the_crop_takes_the_middle():
    thirds = np.repeat(np.array([0, 128, 255], np.uint8), 32)
    pixels = preprocess(Image.fromarray(np.tile(thirds, (32, 1))), CLIP)
    assert pixels.shape == (32, 32, 3)
    assert (pixels == 128).all()


def test_the_squeeze_shows_everything():
    pixels = preprocess(Image.fromarray(np.tile(np.linspace(0, 255, 128).astype(np.uint8), (64, 1))), SQUEEZE)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    assert pixels[:, 0].max() < 8  # the first and last columns stand for 1/32 of the gradient
    assert pixels[:, -1].min() > 247


@given(st.integers(1, 100), st.integers(1, 100), st.sampled_from([CLIP, SQUEEZE]))
def test_every_image_fits_the_square(width, height, processor):
    assert preprocess(Image.new("L", (width, height)), processor).shape == (32, 32, 3)


@given(st.integers(1, 100), st.integers(1, 100), st.integers(0, 2**32 - 1), st.sampled_from([CLIP, SQUEEZE]))
def test_gray_fitted_in_one_channel_is_what_three_channels_give(width, height, seed, processor):
    gray = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    colored = Image.fromarray(np.stack([gray, gray, 255 - gray], axis=2))  # so that it is resized in three channels
    one, three = (preprocess(image, processor) for image in (Image.fromarray(gray), colored))
    for channel in range(3):
        assert np.array_equal(one[..., channel], three[..., 0])


def test_a_line_that_would_become_huge_is_refused():
    line = Image.new("L", (65_500, 1))
    with pytest.raises(ImageError, match=r"^image over 100 million pixels$"):
        preprocess(line, parse_image_processor({"size": {"shortest_edge": 224}, "do_center_crop": True}))
    assert preprocess(line, SQUEEZE).shape == (32, 32, 3)
